#include "rope_table.h"

#include <cmath>

#include "../../base/scratch.h"
#include "../../formats/kv_page.h"
#include "../rope/frequencies.h"

namespace bitloom {

namespace {

int32_t levels_for(int64_t last_position) {
  int32_t levels = 2;
  while (last_position >> (4 * levels) != 0) ++levels;
  return levels;
}

// Digits d = 0 to 15 of a level: (cos, sin) of d * angle as a product of those of d - 1 and 1. Off by 16 *
// 2^-53 at most.
void fill_level(const RopeTable& table, int32_t level) {
  const int64_t pairs = table.pairs;
  double* row = table.digits + level * 16 * 2 * pairs;
  const double* one = row + 2 * pairs;
  const double positions = std::ldexp(1.0, 4 * level);
  for (int64_t j = 0; j < pairs; ++j) {
    row[j] = 1;
    row[pairs + j] = 0;
    row[2 * pairs + j] = std::cos(positions * table.frequencies[j]);
    row[3 * pairs + j] = std::sin(positions * table.frequencies[j]);
  }
  for (int64_t d = 2; d < 16; ++d) {
    const double* before = row + (d - 1) * 2 * pairs;
    double* to = row + d * 2 * pairs;
    for (int64_t j = 0; j < pairs; ++j) {
      to[j] = before[j] * one[j] - before[pairs + j] * one[pairs + j];
      to[pairs + j] = before[j] * one[pairs + j] + before[pairs + j] * one[j];
    }
  }
}

}  // namespace

uint64_t rope_table_bytes(const bl_rope_args& rope, int64_t last_position) {
  const uint64_t pairs = static_cast<uint64_t>(rope.rotary_dim / 2);
  const uint64_t doubles = pairs * (1 + static_cast<uint64_t>(levels_for(last_position)) * 16 * 2);
  return align_up(doubles * sizeof(double)) + align_up(pairs * 2 * kKvUnit * sizeof(float));
}

RopeTable make_rope_table(const bl_rope_args& rope, int64_t last_position, uint8_t* memory) {
  RopeTable table{};
  table.pairs = rope.rotary_dim / 2;
  table.half = rope.mode == BL_ROPE_half;
  table.levels = levels_for(last_position);
  table.next = reinterpret_cast<float*>(memory);
  table.frequencies = reinterpret_cast<double*>(
      memory + align_up(static_cast<uint64_t>(table.pairs) * 2 * kKvUnit * sizeof(float)));
  table.digits = table.frequencies + table.pairs;
  table.magnitude = rope_frequencies(rope, table.frequencies);
  for (int32_t level = 0; level < table.levels; ++level) fill_level(table, level);
  for (int64_t d = 0; d < kKvUnit; ++d) {
    for (int64_t i = 0; i < 2 * table.pairs; ++i) {
      table.next[i * kKvUnit + d] = static_cast<float>(table.digit(0, d)[i]);
    }
  }
  return table;
}

}  // namespace bitloom
