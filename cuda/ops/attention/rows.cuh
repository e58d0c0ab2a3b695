// What the attention kernels share: where rows and their keys are, loading channels, the running softmax.
#pragma once

#include "../../tile/reduce.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {

constexpr float kMinusInfinity = -__builtin_huge_valf();

// Rows are fewer than 2^31: a division of 64 bits costs a hundred instructions.
__device__ __forceinline__ uint32_t query_of(const AttentionParams& p, int64_t row) {
  return static_cast<uint32_t>(row) / static_cast<uint32_t>(p.group);
}

// A row that has seen nothing is 0.
__device__ __forceinline__ float normalized(float sum, float weights) { return weights == 0.0f ? 0.0f : sum / weights; }

// Keys of the sequence. A number in device memory is one that nobody has checked.
__device__ __forceinline__ int64_t keys_of(const AttentionParams& p) {
  return p.key_count == nullptr ? p.keys : max(int64_t{0}, min(int64_t{*p.key_count}, p.keys));
}

// Keys [first, last) of `keys` that a row sees.
struct KeyRange {
  int64_t first, last;
};
__device__ __forceinline__ KeyRange keys_of_row(const AttentionParams& p, int64_t keys, int64_t row) {
  if (p.causal == 0) return {0, keys};
  const int64_t last = query_of(p, row) + (keys - p.queries) + 1;
  return {p.window == 0 ? 0 : max(last - p.window, int64_t{0}), last};
}

// Element of channel 0 of a row's query or output.
__device__ __forceinline__ int64_t row_offset(const AttentionParams& p, const AttentionView& view, int64_t kv_head,
                                              int64_t row) {
  const uint32_t query = query_of(p, row);
  return query * view.strides[0] + (kv_head * p.group + (row - query * p.group)) * view.strides[1];
}

// Channels [channel, channel + 8) of a head that begins at `element`; 0 past its end.
__device__ __forceinline__ void load_channels(const AttentionView& view, int64_t element, int64_t channel,
                                              float (&values)[kVector]) {
  if (view.wide != 0 && channel < view.width) return load_vector(view.dtype, view.data, element + channel, values);
#pragma unroll
  for (int i = 0; i < kVector; ++i) {
    values[i] = channel + i < view.width
                    ? load_element(view.dtype, view.data, element + (channel + i) * view.strides[2])
                    : 0.0f;
  }
}

// What a maximum is subtracted as: where only -infinity was seen, exp(-infinity - -infinity) must not become NaN as
// long as a finite score may follow.
__device__ __forceinline__ float finite_maximum(float largest) { return largest == kMinusInfinity ? 0.0f : largest; }

}  // namespace bitloom::cuda
