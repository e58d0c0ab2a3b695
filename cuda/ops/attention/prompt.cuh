// Attention of many rows (prompts), in f32 throughout: a block holds 16 * kRows rows and runs through the keys they see,
// 64 at a time. Threads are 16 x 16: thread (x, y) has the rows y * kRows + i, of scores the keys x + 16 j, of the result
// the columns 64 c + 4 x + 0..3. Scores stay in registers; weights go through shared memory to the product with v.
//
// Rows of shared tiles are 4 floats longer than their data: then 8 neighbours, each reading 16 bytes of a row of its own,
// meet 8 different groups of banks.
#pragma once

#include "rows.cuh"

namespace bitloom::cuda {

constexpr int kPadding = 4;
constexpr int kDepthStride = kPromptDepth + kPadding;
constexpr int kKeyStride = kPromptKeys + kPadding;
constexpr int kColumnStride = kPromptColumns + kPadding;

struct PromptTiles {
  float* query;    // [16 rows][depth + 4]
  float* weights;  // [16 rows][64 + 4]
  float* shared;   // keys: [64][32 + 4], values: [64][64 + 4]
  int64_t query_stride;
};

// rows [count][channels] of `view` at channel `channel` as f32. offset(i): element of row i, negative: zeros.
template <int kCount, int kChannels, typename Offset>
__device__ __forceinline__ void load_tile(const AttentionView& view, int64_t channel, int64_t stride, float* tile,
                                          Offset offset) {
#pragma unroll 1
  for (int i = threadIdx.x; i < kCount * kChannels / kVector; i += kPromptThreads) {
    const int row = i / (kChannels / kVector), column = i % (kChannels / kVector) * kVector;
    const int64_t element = offset(row);
    float values[kVector] = {};
    if (element >= 0) load_channels(view, element, channel + column, values);
    float4* at = reinterpret_cast<float4*>(tile + row * stride + column);
    at[0] = make_float4(values[0], values[1], values[2], values[3]);
    at[1] = make_float4(values[4], values[5], values[6], values[7]);
  }
}

// The same for keys or values, of which `count` follow `element`, `token_stride` apart. Not inlined: it is the same code
// for each block of columns.
template <int kChannels>
__device__ __noinline__ void load_keys(const AttentionView& view, int64_t element, int64_t count, int64_t channel,
                                       float* tile) {
  load_tile<kPromptKeys, kChannels>(view, channel, kChannels + kPadding, tile, [&](int key) {
    return key < count ? element + key * view.strides[0] : int64_t{-1};
  });
}

__device__ __forceinline__ float4 read4(const float* at) { return *reinterpret_cast<const float4*>(at); }

// scores[i][j] += of 32 channels.
template <int kRows>
__device__ __forceinline__ void multiply_keys(const PromptTiles& tiles, int64_t depth, float (&scores)[kRows][4]) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
  for (int d = 0; d < kPromptDepth; d += 4) {
    float4 key[4];
#pragma unroll
    for (int j = 0; j < 4; ++j) key[j] = read4(tiles.shared + (x + 16 * j) * kDepthStride + d);
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float4 query = read4(tiles.query + (y * kRows + i) * tiles.query_stride + depth + d);
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        float dot = fmaf(query.x, key[j].x, scores[i][j]);
        dot = fmaf(query.y, key[j].y, dot);
        dot = fmaf(query.z, key[j].z, dot);
        scores[i][j] = fmaf(query.w, key[j].w, dot);
      }
    }
  }
}

// sums[i] += weights of 64 keys times 4 columns. A weight below 0: the row does not see the key, whose value may be NaN.
template <int kRows>
__device__ __forceinline__ void multiply_values(const PromptTiles& tiles, float (&sums)[kRows][4]) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll 1
  for (int key = 0; key < kPromptKeys; key += 4) {
    float weights[kRows][4];
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
      const float4 four = read4(tiles.weights + (y * kRows + i) * kKeyStride + key);
      weights[i][0] = four.x, weights[i][1] = four.y, weights[i][2] = four.z, weights[i][3] = four.w;
    }
#pragma unroll
    for (int k = 0; k < 4; ++k) {
      const float4 value = read4(tiles.shared + (key + k) * kColumnStride + 4 * x);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
        if (weights[i][k] < 0.0f) continue;
        sums[i][0] = fmaf(weights[i][k], value.x, sums[i][0]);
        sums[i][1] = fmaf(weights[i][k], value.y, sums[i][1]);
        sums[i][2] = fmaf(weights[i][k], value.z, sums[i][2]);
        sums[i][3] = fmaf(weights[i][k], value.w, sums[i][3]);
      }
    }
  }
}

template <int kRows, int kColumns>
struct PromptState {
  KeyRange seen[kRows];
  float largest[kRows], weights[kRows];  // equal in the 16 threads of a row
  float sums[kRows][kColumns][4];
};

// Scores of keys [first, first + 64) become weights in shared memory; the state is scaled to the new maximum.
template <int kRows, int kColumns>
__device__ __forceinline__ void weigh(const AttentionParams& p, const PromptTiles& tiles, int64_t first,
                                      const float (&scores)[kRows][4], PromptState<kRows, kColumns>& state) {
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    bool sees[4];
    float largest = state.largest[i];
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const int64_t key = first + x + 16 * j;
      sees[j] = key >= state.seen[i].first && key < state.seen[i].last;
      if (sees[j]) largest = fmaxf(largest, scores[i][j] * p.scale);
    }
    largest = warp_reduce(largest, Max{}, 16);
    const float share = expf(state.largest[i] - finite_maximum(largest));
    float sum = 0.0f;
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      const float score = scores[i][j] * p.scale;
      const float weight = expf(score - finite_maximum(largest));
      if (sees[j]) sum += weight;
      tiles.weights[(y * kRows + i) * kKeyStride + x + 16 * j] = sees[j] && score != kMinusInfinity ? weight : -1.0f;
    }
    state.weights[i] = fmaf(state.weights[i], share, warp_reduce(sum, Sum{}, 16));
    state.largest[i] = largest;
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
#pragma unroll
      for (int e = 0; e < 4; ++e) state.sums[i][c][e] *= share;
    }
  }
}

// 64 columns of a block's rows, from shared memory to the output.
template <int kBlockRows>
__device__ __noinline__ void store_columns(const AttentionParams& p, int64_t kv_head, int64_t first_row, int64_t column,
                                           const float* results) {
#pragma unroll 1
  for (int i = threadIdx.x; i < kBlockRows * kPromptColumns; i += kPromptThreads) {
    const int64_t row = first_row + i / kPromptColumns, at = column + i % kPromptColumns;
    if (row >= p.rows || at >= p.v.width) continue;
    store_element(p.output.dtype, p.output.data, row_offset(p, p.output, kv_head, row) + at * p.output.strides[2],
                  results[i / kPromptColumns * kColumnStride + i % kPromptColumns]);
  }
}

// Grid: blocks of rows, kv heads. Dynamic shared memory: prompt_shared_bytes.
template <int kRows, int kColumns>
__device__ __forceinline__ void prompt(const AttentionParams& p, float* shared) {
  constexpr int kBlockRows = 16 * kRows;
  const int x = threadIdx.x % 16, y = threadIdx.x / 16;
  const int64_t kv_head = blockIdx.y;
  // Causal rows get longer: the longest first.
  const int64_t first_row = int64_t{gridDim.x - 1 - blockIdx.x} * kBlockRows;
  const int64_t last_row = min(first_row + kBlockRows, p.rows) - 1;
  const int64_t depth = (p.q.width + kPromptDepth - 1) / kPromptDepth * kPromptDepth;
  const int64_t keys = keys_of(p);
  PromptTiles tiles;
  tiles.query = shared;
  tiles.query_stride = depth + kPadding;
  tiles.weights = shared + kBlockRows * tiles.query_stride;
  tiles.shared = tiles.weights + kBlockRows * kKeyStride;
#pragma unroll 1
  for (int64_t channel = 0; channel < depth; channel += kPromptDepth) {
    load_tile<kBlockRows, kPromptDepth>(p.q, channel, tiles.query_stride, tiles.query + channel, [&](int row) {
      return first_row + row <= last_row ? row_offset(p, p.q, kv_head, first_row + row) : int64_t{-1};
    });
  }
  PromptState<kRows, kColumns> state = {};
#pragma unroll
  for (int i = 0; i < kRows; ++i) {
    const int64_t row = first_row + y * kRows + i;
    state.seen[i] = row <= last_row ? keys_of_row(p, keys, row) : KeyRange{0, 0};
    state.largest[i] = kMinusInfinity;
  }
  const int64_t begin = keys_of_row(p, keys, first_row).first, end = keys_of_row(p, keys, last_row).last;
#pragma unroll 1
  for (int64_t first = begin; first < end; first += kPromptKeys) {
    float scores[kRows][4] = {};
#pragma unroll 1
    for (int64_t channel = 0; channel < depth; channel += kPromptDepth) {
      __syncthreads();  // the last tile has been read; the first time: q is there
      load_keys<kPromptDepth>(p.k, first * p.k.strides[0] + kv_head * p.k.strides[1], end - first, channel, tiles.shared);
      __syncthreads();
      multiply_keys(tiles, channel, scores);
    }
    weigh(p, tiles, first, scores, state);
#pragma unroll
    for (int c = 0; c < kColumns; ++c) {
      if (c * kPromptColumns >= p.v.width) continue;
      __syncthreads();
      load_keys<kPromptColumns>(p.v, first * p.v.strides[0] + kv_head * p.v.strides[1], end - first,
                                c * kPromptColumns, tiles.shared);
      __syncthreads();
      float sums[kRows][4];
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) sums[i][e] = state.sums[i][c][e];
      }
      multiply_values(tiles, sums);
#pragma unroll
      for (int i = 0; i < kRows; ++i) {
#pragma unroll
        for (int e = 0; e < 4; ++e) state.sums[i][c][e] = sums[i][e];
      }
    }
  }
  // By way of shared memory, 64 columns at a time: the code that rounds and stores stands once, not per register.
#pragma unroll
  for (int c = 0; c < kColumns; ++c) {
    if (c * kPromptColumns >= p.v.width) continue;
    __syncthreads();
#pragma unroll
    for (int i = 0; i < kRows; ++i) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        tiles.weights[(y * kRows + i) * kColumnStride + 4 * x + e] = normalized(state.sums[i][c][e], state.weights[i]);
      }
    }
    __syncthreads();
    store_columns<kBlockRows>(p, kv_head, first_row, c * kPromptColumns, tiles.weights);
  }
}

}  // namespace bitloom::cuda
