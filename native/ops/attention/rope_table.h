// Rotations of queries and keys by their positions (ops/rope/README.md), as attention needs them: for any
// position from a small table, since a sine and cosine in double for each key and pair would take longer than
// attention itself.
#pragma once

#include <cstdint>

#include "../../include/bitloom.h"

namespace bitloom {

// A rotation by position p is the product of those by the hexadecimal digits of p: by digit d of 16^level for
// each level.
struct RopeTable {
  int64_t pairs;        // of channels that are turned: rotary_dim / 2
  bool half;            // pairs (j, j + pairs); else (2 j, 2 j + 1)
  double magnitude;     // of cos and sin: not 1 with yarn alone
  int32_t levels;       // at least 2
  double* frequencies;  // [pairs] radians per position
  double* digits;       // [levels][16][2][pairs]: cos and sin of d * 16^level * frequency
  float* next;          // [2][pairs][16]: cos and sin of 0 to 15 positions, of magnitude 1

  const double* digit(int32_t level, int64_t value) const {
    return digits + (level * 16 + value) * 2 * pairs;
  }
};

uint64_t rope_table_bytes(const bl_rope_args& rope, int64_t last_position);
// Fills `memory` [rope_table_bytes()], aligned to 64. rope: checked, what zero stands for filled in.
RopeTable make_rope_table(const bl_rope_args& rope, int64_t last_position, uint8_t* memory);

}  // namespace bitloom
