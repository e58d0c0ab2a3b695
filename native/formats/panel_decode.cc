// Rows of weights out of panels, in scalar code: a group at a time, so that what a group shares is read once.
#include <algorithm>

#include "../base/float16.h"
#include "panel.h"

namespace bitloom {
namespace {

// codes[0, 32) of row `lane` of a chunk.
void read_chunk(const PanelFormat& f, const uint8_t* chunk, int64_t lane, uint8_t* codes) {
  std::fill(codes, codes + kChunk, uint8_t{0});
  for (int32_t i = 0; i < f.plane_count; ++i) {
    const Plane& plane = f.planes[i];
    const int32_t p = plane.bits, mask = (1 << p) - 1;
    for (int32_t v = 0; v < 8; ++v) {
      const uint8_t* run = chunk + plane.chunk_offset + 64 * (v % p);
      for (int32_t j = 0; j < 4; ++j) {
        const uint8_t byte = run[p >= 4 ? 4 * lane + j : 16 * j + lane];
        codes[4 * v + j] |= static_cast<uint8_t>((byte >> (p * (v / p)) & mask) << plane.shift);
      }
    }
  }
}

// Weights of `count` codes that share a group, that of weight k.
void decode_group(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k, const uint8_t* codes,
                  int64_t count, float* values) {
  if (f.value_kind == ValueKind::row_table) {
    for (int64_t i = 0; i < count; ++i) values[i] = row_table_entry(f, panel, lane, codes[i]);
    return;
  }
  const float* table = f.float_table;
  if (f.value_kind == ValueKind::chosen_table) {
    table = chosen_table(f, panel + k / f.elements * f.block_bytes, lane);
  }
  if (table != nullptr) {
    const float scale = panel_stored_scale(f, panel, lane, k);
    for (int64_t i = 0; i < count; ++i) values[i] = scale * table[codes[i]];
    return;
  }
  const float scale = panel_scale(f, panel, lane, k);
  const auto value = [&](int64_t i) { return static_cast<float>(panel_value(f, codes[i]) - f.zero); };
  if (f.offset_kind == OffsetKind::none) {
    for (int64_t i = 0; i < count; ++i) values[i] = scale * value(i);
  } else if (f.offset_kind == OffsetKind::zero_point) {
    const float zero_point = panel_stored_offset(f, panel, lane, k);
    for (int64_t i = 0; i < count; ++i) values[i] = scale * ((value(i) - f.zero_shift) - zero_point);
  } else {
    const float offset = panel_offset(f, panel, lane, k);
    for (int64_t i = 0; i < count; ++i) values[i] = scale * value(i) + offset;
  }
}

}  // namespace

void decode_panel_row(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t first, int64_t count,
                      float* values) {
  if (f.value_kind == ValueKind::floats) {
    for (int64_t i = 0; i < count; ++i) values[i] = panel_weight(f, panel, lane, first + i);
    return;
  }
  const int64_t segment = std::min(kChunk, f.group), end = first + count;
  for (int64_t k = first / kChunk * kChunk; k < end; k += kChunk) {
    uint8_t codes[kChunk];
    const uint8_t* block = panel + k / f.elements * f.block_bytes;
    read_chunk(f, f.chunk(block, k % f.elements / kChunk), lane, codes);
    for (int64_t at = k; at < k + kChunk; at += segment) {
      const int64_t from = std::max(at, first), to = std::min(at + segment, end);
      if (from >= to) continue;
      decode_group(f, panel, lane, from, codes + (from - k), to - from, values + (from - first));
    }
  }
}

}  // namespace bitloom
