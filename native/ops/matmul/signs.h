// What the kernels of compute i1 share: which weights of a group count.
#pragma once

#include <cstdint>

#include "../../formats/panel.h"

namespace bitloom {

// A group of a row's weights: `count` of them from column `k` on (fewer than f.group where the row ends), in
// `chunks` chunks from `chunk` on; of the last chunk the bits of `last`, in the order of a plane of one bit.
struct SignGroup {
  const uint8_t* scales;  // [16]
  const uint8_t* codes;
  const uint32_t* signs;
  int64_t count, chunks;
  uint32_t last;
};

// The weights 0 to count - 1 of a chunk, count 1 to 32: bit v of byte j is weight 4 v + j.
inline uint32_t first_weights(int64_t count) {
  uint32_t word = 0;
  for (int64_t j = 0; j < 4; ++j) {
    const int64_t bits = (count - j + 3) / 4;  // weights j, j + 4, ... below count
    word |= ((1u << (bits < 0 ? 0 : bits)) - 1) << (8 * j);
  }
  return word;
}

inline SignGroup sign_group(const PanelFormat& f, const uint8_t* panel, const uint32_t* signs, int64_t k) {
  const uint8_t* block = panel + k / f.elements * f.block_bytes;
  const int64_t count = f.cols - k < f.group ? f.cols - k : f.group;
  const int64_t chunks = (count + kChunk - 1) / kChunk;
  return {block + k % f.elements / f.group * kPanelRows * f.scale_bytes,
          f.chunk(block, k % f.elements / kChunk),
          signs + k / kChunk,
          count,
          chunks,
          first_weights(count - (chunks - 1) * kChunk)};
}

}  // namespace bitloom
