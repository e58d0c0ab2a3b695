// Parameters of the rope kernel, shared by host and device.
#pragma once

#include "../../tile/view.h"

namespace bitloom::cuda {

// Frequencies that travel with the launch: rotary_dim up to 512, 2 KiB of the 4 KiB that parameters may have.
constexpr int kInlineFrequencies = 256;
// Pairs whose cosines and sines a block holds at a time.
constexpr int kRopeTablePairs = 256;
constexpr uint32_t kRopeThreads = 256;

struct RopeParams {
  // [batch, tokens, heads] rows of head_dim; axes of batch joined or counted through.
  const void* x;
  void* output;
  int32_t x_dtype, output_dtype;
  int64_t batch, tokens, heads, head_dim;
  int32_t batch_rank, is_half;  // is_half: pairs (i, i + pairs), else (2i, 2i + 1)
  int64_t batch_shape[3];
  int64_t x_batch_strides[3], output_batch_strides[3];
  int64_t x_strides[3], output_strides[3];  // of token, head, channel
  const int32_t* positions;                 // [tokens]
  int64_t position_stride;
  const float* freq_factors;  // [pairs] or null
  const double* frequencies;  // [pairs], or null: inline_frequencies
  int64_t pairs;
  double magnitude;
  int64_t heads_per_block;
  double inline_frequencies[kInlineFrequencies];
};

}  // namespace bitloom::cuda
