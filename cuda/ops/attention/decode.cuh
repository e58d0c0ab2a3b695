// Attention of few rows (decoding): each warp of a block runs through keys of its own with a softmax of its own, 32 keys
// at a time, and needs no barrier until the end. `lanes` neighbours share a key, 8 channels (or 8 more from 256 on) each,
// so that a warp reads 32 / lanes keys at once, in vectors of 16 bytes. Key and value vectors are read once for all rows.
#pragma once

#include "rows.cuh"

namespace bitloom::cuda {

template <int kRows, int kVectors>
struct DecodeState {
  float largest[kRows];              // of a row's scores so far; equal in all lanes
  float weights[kRows];              // this lane's part of their sum
  float sums[kRows][kVectors][kVector];  // of weights times values, of this lane's channels and its keys
};

// One lane's vectors of a key or value, not yet converted.
template <bool kWide, int kVectors>
struct Channels {
  uint4 raw[kVectors];
  float values[kWide ? 1 : kVectors][kVector];

  __device__ __forceinline__ void load(const AttentionView& view, int64_t element, int64_t channel, bool seen) {
#pragma unroll
    for (int n = 0; n < kVectors; ++n) {
      const int64_t at = channel + n * 256;
      if constexpr (kWide) {
        raw[n] = seen && at < view.width ? *reinterpret_cast<const uint4*>(static_cast<const uint16_t*>(view.data) + element + at)
                                         : make_uint4(0, 0, 0, 0);
      } else {
        if (seen) {
          load_channels(view, element, at, values[n]);
        } else {
#pragma unroll
          for (int i = 0; i < kVector; ++i) values[n][i] = 0.0f;
        }
      }
    }
  }
  __device__ __forceinline__ void get(int32_t dtype, int n, float (&out)[kVector]) const {
    if constexpr (kWide) {
      const uint32_t words[4] = {raw[n].x, raw[n].y, raw[n].z, raw[n].w};
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        if (dtype == BL_DTYPE_f16) {
          out[2 * i] = ptx::cvt_f32_f16(static_cast<uint16_t>(words[i]));
          out[2 * i + 1] = ptx::cvt_f32_f16(static_cast<uint16_t>(words[i] >> 16));
        } else {
          out[2 * i] = __uint_as_float(words[i] << 16);
          out[2 * i + 1] = __uint_as_float(words[i] & 0xffff0000u);
        }
      }
    } else {
#pragma unroll
      for (int i = 0; i < kVector; ++i) out[i] = values[n][i];
    }
  }
};

// How many keys a lane has under way at once. 8 rows do enough with each to need fewer.
template <bool kWide, int kRows, int kVectors>
constexpr int kAhead = !kWide || kVectors > 1 ? 1 : kRows > 4 ? 2 : 4;

// scores[r] = of key `first` + lane, for all rows; the caller masks them.
template <bool kWide, int kRows, int kVectors>
__device__ __forceinline__ void score_keys(const AttentionParams& p, const float (&query)[kRows][kVectors][kVector],
                                           int64_t head, int64_t first, int64_t end, float (&scores)[kRows]) {
  constexpr int kSteps = kAhead<kWide, kRows, kVectors>;
  const int lane = threadIdx.x % 32, at_once = 32 / p.lanes;
  const int64_t channel = lane % p.lanes * kVector;
#pragma unroll 1
  for (int step = 0; step < p.lanes; step += kSteps) {
    Channels<kWide, kVectors> keys[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int64_t key = first + (step + s) * at_once + lane / p.lanes;
      keys[s].load(p.k, head + key * p.k.strides[0], channel, key < end);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      float dots[kRows] = {};
#pragma unroll
      for (int n = 0; n < kVectors; ++n) {
        float key[kVector];
        keys[s].get(p.k.dtype, n, key);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int i = 0; i < kVector; ++i) dots[r] = fmaf(query[r][n][i], key[i], dots[r]);
        }
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        const float dot = __shfl_sync(~0u, warp_reduce(dots[r], Sum{}, p.lanes), lane % at_once * p.lanes);
        if (lane / at_once == step + s) scores[r] = dot * p.scale;
      }
    }
  }
}

// Adds weights[r] (of key `first` + lane, negative: not seen) times values.
template <bool kWide, int kRows, int kVectors>
__device__ __forceinline__ void add_values(const AttentionParams& p, const float (&weights)[kRows], int64_t head,
                                           int64_t first, int64_t end, DecodeState<kRows, kVectors>& state) {
  constexpr int kSteps = kAhead<kWide, kRows, kVectors>;
  const int lane = threadIdx.x % 32, at_once = 32 / p.lanes;
  const int64_t channel = lane % p.lanes * kVector;
#pragma unroll 1
  for (int step = 0; step < p.lanes; step += kSteps) {
    Channels<kWide, kVectors> values[kSteps];
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      const int64_t key = first + (step + s) * at_once + lane / p.lanes;
      values[s].load(p.v, head + key * p.v.strides[0], channel, key < end);
    }
#pragma unroll
    for (int s = 0; s < kSteps; ++s) {
      float weight[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) {
        weight[r] = __shfl_sync(~0u, weights[r], (step + s) * at_once + lane / p.lanes);
      }
#pragma unroll
      for (int n = 0; n < kVectors; ++n) {
        float value[kVector];
        values[s].get(p.v.dtype, n, value);
#pragma unroll
        for (int r = 0; r < kRows; ++r) {
#pragma unroll
          for (int i = 0; i < kVector; ++i) {
            // A value that a row does not see may be NaN: 0 times it is none.
            if (!(weight[r] < 0.0f)) state.sums[r][n][i] = fmaf(weight[r], value[i], state.sums[r][n][i]);
          }
        }
      }
    }
  }
}

// The parts of the sequence's keys.
struct KeySplits {
  int64_t keys, keys_per_split;
  int32_t count;
};
__device__ __forceinline__ KeySplits splits_of(const AttentionParams& p) {
  if (p.key_count == nullptr) return {p.keys, p.keys_per_split, p.splits};
  const uint32_t keys = static_cast<uint32_t>(keys_of(p));
  const DecodeSplits<uint32_t> splits = decode_splits<uint32_t>(keys, static_cast<uint32_t>(p.splits));
  return {keys, splits.keys_per_split, static_cast<int32_t>(splits.count)};
}

// A row's sums of all lanes and warps together, in fixed order: to the output, or as one of `splits` parts.
template <int kRows, int kVectors>
__device__ __forceinline__ void finish_rows(const AttentionParams& p, DecodeState<kRows, kVectors>& state,
                                            int64_t kv_head, int64_t first_row, int32_t splits, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t width = p.v.width;
  float* states = shared + kDecodeWarps * kRows * width;  // [warps][rows][2]
#pragma unroll 1
  for (int lanes = p.lanes; lanes < 32; lanes *= 2) {
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
#pragma unroll
      for (int n = 0; n < kVectors; ++n) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) {
          state.sums[r][n][i] += __shfl_xor_sync(~0u, state.sums[r][n][i], lanes);
        }
      }
    }
  }
  __syncthreads();  // queries were in the same memory
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const float weights = warp_reduce(state.weights[r], Sum{});
    if (lane == 0) {
      states[(warp * kRows + r) * 2] = state.largest[r];
      states[(warp * kRows + r) * 2 + 1] = weights;
    }
#pragma unroll
    for (int n = 0; n < kVectors; ++n) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const int64_t channel = lane % p.lanes * kVector + n * 256 + i;
        if (lane < p.lanes && channel < width) shared[(warp * kRows + r) * width + channel] = state.sums[r][n][i];
      }
    }
  }
  __syncthreads();
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < kRows * width; i += blockDim.x) {
    const uint32_t r = i / static_cast<uint32_t>(width);
    const int64_t channel = i - r * width, row = first_row + r;
    if (row >= p.rows) break;
    float largest = kMinusInfinity, weights = 0.0f, sum = 0.0f;
#pragma unroll 1
    for (int w = 0; w < kDecodeWarps; ++w) largest = fmaxf(largest, states[(w * kRows + r) * 2]);
#pragma unroll 1
    for (int w = 0; w < kDecodeWarps; ++w) {
      const float share = expf(states[(w * kRows + r) * 2] - finite_maximum(largest));
      weights = fmaf(share, states[(w * kRows + r) * 2 + 1], weights);
      sum = fmaf(share, shared[(w * kRows + r) * width + channel], sum);
    }
    if (splits == 1) {
      store_element(p.output.dtype, p.output.data,
                    row_offset(p, p.output, kv_head, row) + channel * p.output.strides[2], normalized(sum, weights));
    } else {
      const int64_t at = (blockIdx.x * p.kv_heads + kv_head) * p.rows + row;
      p.partial[at * width + channel] = sum;
      if (channel == 0) p.state[at * 2] = largest, p.state[at * 2 + 1] = weights;
    }
  }
}

// The queries of a block's rows as f32, this lane's channels of them; by way of shared memory, so that the code that
// loads and converts stands once.
template <int kRows, int kVectors>
__device__ __forceinline__ void load_queries(const AttentionParams& p, int64_t kv_head, int64_t first_row, float* shared,
                                             float (&query)[kRows][kVectors][kVector]) {
#pragma unroll 1
  for (uint32_t i = threadIdx.x; i < kRows * p.q.width; i += blockDim.x) {
    const uint32_t width = static_cast<uint32_t>(p.q.width), channel = i % width;
    const int64_t row = first_row + i / width;
    shared[i] = row < p.rows ? load_element(p.q.dtype, p.q.data,
                                            row_offset(p, p.q, kv_head, row) + channel * p.q.strides[2])
                             : 0.0f;
  }
  __syncthreads();
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
#pragma unroll
    for (int n = 0; n < kVectors; ++n) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) {
        const int64_t channel = threadIdx.x % 32 % p.lanes * kVector + n * 256 + i;
        query[r][n][i] = channel < p.q.width ? shared[r * p.q.width + channel] : 0.0f;
      }
    }
  }
}

// Grid: splits (of those that the keys turn out not to need, blocks end at once), kv heads, blocks of rows. Dynamic
// shared memory: decode_shared_bytes.
template <bool kWide, int kRows, int kVectors>
__device__ __forceinline__ void decode(const AttentionParams& p, float* shared) {
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  const int64_t kv_head = blockIdx.y, first_row = int64_t{blockIdx.z} * kRows;
  const KeySplits splits = splits_of(p);
  if (blockIdx.x >= splits.count) return;
  const int64_t begin = blockIdx.x * splits.keys_per_split, end = min(begin + splits.keys_per_split, splits.keys);
  float query[kRows][kVectors][kVector];
  DecodeState<kRows, kVectors> state;
  KeyRange seen[kRows];
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    const bool is_row = first_row + r < p.rows;
    seen[r] = is_row ? keys_of_row(p, splits.keys, first_row + r) : KeyRange{0, 0};
    state.largest[r] = kMinusInfinity;
    state.weights[r] = 0.0f;
#pragma unroll
    for (int n = 0; n < kVectors; ++n) {
#pragma unroll
      for (int i = 0; i < kVector; ++i) state.sums[r][n][i] = 0.0f;
    }
  }
  load_queries(p, kv_head, first_row, shared, query);
  const int64_t k_head = kv_head * p.k.strides[1], v_head = kv_head * p.v.strides[1];
  // Rows come in the order of their queries: the first sees the earliest key, the last the latest.
  const int64_t last_row = min(first_row + kRows, p.rows) - 1;
  const int64_t from = max(begin, seen[0].first), to = min(end, keys_of_row(p, splits.keys, last_row).last);
#pragma unroll 1
  for (int64_t first = from + warp * kDecodeKeys; first < to; first += kDecodeWarps * kDecodeKeys) {
    float weights[kRows];
#pragma unroll
    for (int r = 0; r < kRows; ++r) weights[r] = kMinusInfinity;
    score_keys<kWide>(p, query, k_head, first, to, weights);
    const int64_t key = first + lane;
#pragma unroll
    for (int r = 0; r < kRows; ++r) {
      const bool sees = key >= seen[r].first && key < min(seen[r].last, to);
      const float score = weights[r];
      const float largest = fmaxf(state.largest[r], warp_reduce(sees ? score : kMinusInfinity, Max{}));
      const float share = expf(state.largest[r] - finite_maximum(largest));
      const float weight = expf(score - finite_maximum(largest));
      state.weights[r] = fmaf(state.weights[r], share, sees ? weight : 0.0f);
#pragma unroll
      for (int n = 0; n < kVectors; ++n) {
#pragma unroll
        for (int i = 0; i < kVector; ++i) state.sums[r][n][i] *= share;
      }
      state.largest[r] = largest;
      weights[r] = sees && score != kMinusInfinity ? weight : -1.0f;
    }
    add_values<kWide>(p, weights, v_head, first, to, state);
  }
  finish_rows(p, state, kv_head, first_row, splits.count, shared);
}

// Adds the parts of a row, in their order; of one part, its block has written the output. Grid: rows of all kv heads.
__device__ __forceinline__ void merge_splits(const AttentionParams& p) {
  const int32_t splits = splits_of(p).count;
  if (splits == 1) return;
  const int64_t all_rows = p.kv_heads * p.rows, at = blockIdx.x;
  float largest = kMinusInfinity, weights = 0.0f;
#pragma unroll 1
  for (int s = 0; s < splits; ++s) largest = fmaxf(largest, p.state[(s * all_rows + at) * 2]);
#pragma unroll 1
  for (int s = 0; s < splits; ++s) {
    const float* state = p.state + (s * all_rows + at) * 2;
    weights = fmaf(expf(state[0] - finite_maximum(largest)), state[1], weights);
  }
  const uint32_t kv_head = blockIdx.x / static_cast<uint32_t>(p.rows);
  const int64_t output = row_offset(p, p.output, kv_head, at - kv_head * p.rows);
#pragma unroll 1
  for (int64_t channel = threadIdx.x; channel < p.v.width; channel += blockDim.x) {
    float sum = 0.0f;
#pragma unroll 1
    for (int s = 0; s < splits; ++s) {
      const float share = expf(p.state[(s * all_rows + at) * 2] - finite_maximum(largest));
      sum = fmaf(share, p.partial[(s * all_rows + at) * p.v.width + channel], sum);
    }
    store_element(p.output.dtype, p.output.data, output + channel * p.output.strides[2], normalized(sum, weights));
  }
}

}  // namespace bitloom::cuda
