// Layout lanes16: sixteen rows side by side, so that a vector lane of 32 bits belongs to one row and no sum
// across lanes is needed. Formats q4_0 and q8_0 only. Block j of rows 16p to 16p + 15:
//
//   | scale of row 0 .. 15: 2 bytes each | bytes 0-3 of the codes of row 0 .. 15 | bytes 4-7 of ... | ...
//
// The same bytes as the sixteen canonical rows, at the same place. Rows past the last full sixteen stay
// canonical.
#pragma once

#include <cstdint>
#include <cstring>

namespace bitloom {

constexpr int64_t kLaneRows = 16;

// Where the scale and the i-th four code bytes of row `lane` stand in a block of sixteen.
inline int64_t lane_scale(int64_t lane) { return 2 * lane; }
inline int64_t lane_codes(int64_t lane, int64_t i) { return 2 * kLaneRows + 4 * (kLaneRows * i + lane); }

// One row's block out of a block of sixteen, and back.
inline void load_lane_block(const uint8_t* sixteen, int64_t lane, int64_t block_bytes, uint8_t* block) {
  std::memcpy(block, sixteen + lane_scale(lane), 2);
  for (int64_t i = 0; 4 * i + 2 < block_bytes; ++i) {
    std::memcpy(block + 2 + 4 * i, sixteen + lane_codes(lane, i), 4);
  }
}
inline void store_lane_block(const uint8_t* block, int64_t lane, int64_t block_bytes, uint8_t* sixteen) {
  std::memcpy(sixteen + lane_scale(lane), block, 2);
  for (int64_t i = 0; 4 * i + 2 < block_bytes; ++i) {
    std::memcpy(sixteen + lane_codes(lane, i), block + 2 + 4 * i, 4);
  }
}

}  // namespace bitloom
