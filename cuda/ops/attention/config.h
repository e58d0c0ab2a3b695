// Parameters of the attention kernels, shared by host and device.
//
// Rows: of the query heads that share a kv head, row r is query r / group, head r % group of the group. All
// rows of a kv head read the same keys and values.
#pragma once

#include <cstdint>

#ifdef __CUDACC__
#define BL_HOST_DEVICE __host__ __device__
#else
#define BL_HOST_DEVICE
#endif

namespace bitloom::cuda {

struct AttentionView {
  void* data;
  int64_t strides[3];  // of token, head, channel; in elements
  int64_t width;       // channels
  int32_t dtype;
  int32_t wide;  // 1: channels contiguous, each head at a multiple of 16 bytes, width a multiple of 8
};

struct AttentionParams {
  AttentionView q, k, v, output;
  int64_t queries, keys;
  // Device memory, or null: of `keys` as many as this number says, kept within [0, keys], are the sequence's.
  const int32_t* key_count;
  int64_t group, rows;  // query heads per kv head; queries * group
  int64_t kv_heads;
  int64_t window;  // 0: all
  float scale;
  int32_t causal;
  // Decoding: keys in parts of so many, whose results are merged.
  int64_t keys_per_split;  // key_count null; else kernels work it out
  int32_t splits;          // with key_count: at most
  int32_t lanes;           // of a warp that share a key: a power of two from 4 to 32
  float* partial;          // [splits][kv_heads][rows][value_dim], sums of weights times values; splits > 1
  float* state;            // [splits][kv_heads][rows][2], largest score and sum of weights
};

// Decoding: a block's warps, each with keys of its own.
constexpr int kDecodeWarps = 4;
constexpr int kDecodeKeys = 32;  // that a warp takes at a time
constexpr int kDecodeRound = kDecodeWarps * kDecodeKeys;

// How keys are split: `count` parts (at least 1, at most `most`) of `keys_per_split`, whole rounds of a
// block, the last one shorter. The same on host and device, so that results do not depend on who knows the
// number of keys.
template <typename Int>
struct DecodeSplits {
  Int keys_per_split, count;
};
template <typename Int>
BL_HOST_DEVICE constexpr DecodeSplits<Int> decode_splits(Int keys, Int most) {
  if (keys == 0) return {kDecodeRound, 1};
  const Int rounds = (keys + kDecodeRound - 1) / kDecodeRound;
  const Int keys_per_split = (rounds + most - 1) / most * kDecodeRound;
  return {keys_per_split, (keys + keys_per_split - 1) / keys_per_split};
}
// Prompts: 16 x 16 threads, tiles of keys, channels of q and k at a time, columns of v at a time.
constexpr int kPromptThreads = 256;
constexpr int kPromptKeys = 64;
constexpr int kPromptDepth = 32;
constexpr int kPromptColumns = 64;

constexpr uint64_t decode_shared_bytes(int rows, int64_t head_dim, int64_t value_dim) {
  const uint64_t queries = 4 * static_cast<uint64_t>(rows * head_dim);
  const uint64_t sums = 4 * static_cast<uint64_t>(kDecodeWarps * rows * (value_dim + 2));
  return queries > sums ? queries : sums;
}

constexpr uint64_t prompt_shared_bytes(int rows_per_thread, int64_t head_dim) {
  const uint64_t rows = 16 * static_cast<uint64_t>(rows_per_thread);
  const uint64_t depth = (static_cast<uint64_t>(head_dim) + kPromptDepth - 1) / kPromptDepth * kPromptDepth;
  return 4 * (rows * (depth + 4) + rows * (kPromptKeys + 4) + kPromptKeys * (kPromptColumns + 4));
}

}  // namespace bitloom::cuda
