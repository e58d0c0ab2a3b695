// Parameters and result of the sampling kernels, shared by host and device.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

// What sample reads back.
struct SampleResult {
  uint64_t largest;       // key of the first candidate; 0: none
  int64_t candidates;     // tokens above -infinity
  uint32_t nan;           // 2^31 - 1 - the lowest index of a NaN; 0: none
  uint32_t bad_previous;  // the same of an id outside the vocabulary
  int32_t token;
  float probability;
};

struct SampleParams {
  const float* logits;  // [vocab]
  int64_t vocab;
  const int32_t* previous;  // [previous_count]
  int64_t previous_count, previous_stride;
  double penalty;
  double temperature;
  double top_p, min_p;  // 0: none
  double draw;          // in [0, 1)
  int64_t top_k;        // 0: all
  // A candidate's key: its logit's bits in an order of unsigned numbers, then 2^32 - 1 - id. A larger key
  // stands before a smaller one, no two are equal; 0: no candidate.
  uint64_t* keys;  // [vocab]
  double* masses;  // [mass_blocks], sums of weights of kMassTokens tokens each
  int64_t mass_blocks;
  SampleResult* result;
};

constexpr uint32_t kSampleThreads = 256;
constexpr int kMassTokens = 2048;  // of a block, whatever the device: the sum's order is part of the result
constexpr int kPickThreads = 1024;
constexpr int kPickKeys = kPickThreads;  // that are sorted at a time

}  // namespace bitloom::cuda
