// Panels in scalar code: canonical blocks in and out, one weight at a time. The specification of what the
// kernels do with vectors.
#include <cstring>

#include "../base/float16.h"
#include "elements.h"
#include "formats.h"
#include "gguf_blocks.h"
#include "grouped.h"
#include "panel.h"
#include "panel_fields.h"

namespace bitloom {
namespace {

// Nibble i of 32 bytes' worth that hold weights as q4_0 does, 16 bytes for 32 weights.
int64_t nibble_bit(int64_t i) { return 8 * (i % 16) + (i < 16 ? 0 : 4); }

}  // namespace

void code_fields(const PanelFormat& f, int64_t i, Field* low, Field* high) {
  *high = {0, 0, 0};
  const int64_t base = 8 * f.canonical_codes;
  switch (f.order) {
    case CodeOrder::q4_0:
      *low = {base + nibble_bit(i), 4, 0};
      return;
    case CodeOrder::q5_0:
      *low = {base + 32 + nibble_bit(i), 4, 0};
      *high = {base + i, 1, 4};
      return;
    case CodeOrder::q2_k:
    case CodeOrder::tq2_0:
    case CodeOrder::q3_k:
      *low = {8 * (f.order == CodeOrder::q2_k   ? 16
                   : f.order == CodeOrder::q3_k ? 32
                                                : 0) +
                  8 * (32 * (i / 128) + i % 32) + 2 * (i / 32 % 4),
              2, 0};
      if (f.order == CodeOrder::q3_k) *high = {8 * (i % 32) + i / 32, 1, 2};
      return;
    case CodeOrder::q4_k:
      *low = {base + 8 * (32 * (i / 64) + i % 32) + 4 * (i / 32 % 2), 4, 0};
      return;
    case CodeOrder::q5_k:
      *low = {base + 8 * (32 + 32 * (i / 64) + i % 32) + 4 * (i / 32 % 2), 4, 0};
      *high = {base + 8 * (i % 32) + i / 32, 1, 4};
      return;
    case CodeOrder::q6_k: {
      const int64_t plane = i / 32 % 4;
      *low = {8 * (64 * (i / 128) + 32 * (plane % 2) + i % 32) + (plane < 2 ? 0 : 4), 4, 0};
      *high = {8 * (128 + 32 * (i / 128) + i % 32) + 2 * plane, 2, 4};
      return;
    }
    case CodeOrder::nvfp4:
      *low = {base + 8 * (8 * (i / 16) + i % 8) + (i % 16 < 8 ? 0 : 4), 4, 0};
      return;
    default:
      *low = {base + i * f.bits, f.bits, 0};
  }
}

void sub_fields(const PanelFormat& f, int64_t u, Field* low, Field* high) {
  *high = {0, 0, 0};
  const int64_t base = 8 * f.canonical_sub;
  if (f.sub_bits == 8) {
    *low = {base + 8 * u, 8, 0};
  } else if (f.sub_bits == 4) {  // q2_k: scale in the low nibble, min in the high one
    *low = {base + 8 * (u % 16) + (u < 16 ? 0 : 4), 4, 0};
  } else if (f.order == CodeOrder::q3_k) {
    *low = {base + 8 * (u % 8) + (u < 8 ? 0 : 4), 4, 0};
    *high = {base + 8 * (8 + u % 4) + 2 * (u / 4), 2, 4};
  } else {  // q4_k, q5_k: scales 0 to 7, mins 8 to 15
    const int64_t s = u % 8;
    const bool min = u >= 8;
    if (s < 4) {
      *low = {base + 8 * (s + (min ? 4 : 0)), 6, 0};
    } else {
      *low = {base + 8 * (s + 4) + (min ? 4 : 0), 4, 0};
      *high = {base + 8 * (s - 4 + (min ? 4 : 0)) + 6, 2, 4};
    }
  }
}

namespace {

uint32_t read_field(const uint8_t* block, const Field& field) {
  if (field.width == 0) return 0;
  const int shift = static_cast<int>(field.bit & 7);
  uint32_t word = block[field.bit >> 3];
  if (shift + field.width > 8) word |= static_cast<uint32_t>(block[(field.bit >> 3) + 1]) << 8;
  return (word >> shift & ((1u << field.width) - 1)) << field.shift;
}
void write_field(uint8_t* block, const Field& field, uint32_t code) {
  if (field.width == 0) return;
  const int shift = static_cast<int>(field.bit & 7);
  const uint32_t word = (code >> field.shift & ((1u << field.width) - 1)) << shift;
  block[field.bit >> 3] |= static_cast<uint8_t>(word);
  if (shift + field.width > 8) block[(field.bit >> 3) + 1] |= static_cast<uint8_t>(word >> 8);
}

// tq1_0: trit n of byte m, both from the weight's place (gguf_blocks.h).
struct Trit {
  int64_t byte;
  int32_t n;
};
Trit trit_of(int64_t i) {
  if (i < 160) return {i % 32, static_cast<int32_t>(i / 32)};
  if (i < 240) return {32 + (i - 160) % 16, static_cast<int32_t>((i - 160) / 16)};
  return {48 + (i - 240) % 4, static_cast<int32_t>((i - 240) / 4)};
}
uint32_t read_trit(const uint8_t* block, int64_t i) {
  constexpr uint8_t kPowers[5] = {1, 3, 9, 27, 81};
  const Trit at = trit_of(i);
  return static_cast<uint32_t>(static_cast<uint8_t>(block[at.byte] * kPowers[at.n]) * 3 >> 8);
}
// Bytes of a whole block: ceil(sum of trits * 3^(4-n) * 256 / 243).
void write_trits(const uint32_t* trits, uint8_t* block) {
  uint32_t sums[52] = {};
  constexpr uint32_t kWeights[5] = {81, 27, 9, 3, 1};
  for (int64_t i = 0; i < 256; ++i) {
    const Trit at = trit_of(i);
    sums[at.byte] += trits[i] * kWeights[at.n];
  }
  for (int byte = 0; byte < 52; ++byte) block[byte] = static_cast<uint8_t>((sums[byte] * 256 + 242) / 243);
}

}  // namespace

uint32_t read_canonical(const PanelFormat& f, const uint8_t* block, int64_t i) {
  if (f.order == CodeOrder::tq1_0) return read_trit(block, i);
  Field low, high;
  code_fields(f, i, &low, &high);
  return read_field(block, low) | read_field(block, high);
}
uint32_t read_canonical_sub(const PanelFormat& f, const uint8_t* block, int64_t u) {
  Field low, high;
  sub_fields(f, u, &low, &high);
  return read_field(block, low) | read_field(block, high);
}

void write_canonical_code(const PanelFormat& f, int64_t i, uint32_t code, uint8_t* block) {
  Field low, high;
  code_fields(f, i, &low, &high);
  write_field(block, low, code);
  write_field(block, high, code);
}
void write_canonical(const PanelFormat& f, const uint8_t* codes, uint8_t* block) {
  if (f.order == CodeOrder::tq1_0) {
    uint32_t trits[256];
    for (int i = 0; i < 256; ++i) trits[i] = codes[i];
    write_trits(trits, block);
    return;
  }
  for (int64_t i = 0; i < f.canonical_elements; ++i) write_canonical_code(f, i, codes[i], block);
}
void write_canonical_sub(const PanelFormat& f, int64_t u, uint32_t value, uint8_t* block) {
  Field low, high;
  sub_fields(f, u, &low, &high);
  write_field(block, low, value);
  write_field(block, high, value);
}

namespace {

// The byte of a chunk that holds plane p's bits of weight k of row `lane`, and their shift in it.
uint8_t* code_byte(const Plane& plane, uint8_t* chunk, int64_t lane, int64_t k, int32_t* shift) {
  const int64_t v = k / 4, j = k % 4, p = plane.bits;
  *shift = static_cast<int32_t>(p * (v / p));
  return chunk + plane.chunk_offset + 64 * (v % p) + (p >= 4 ? 4 * lane + j : 16 * j + lane);
}

// Sub-scales in planes of 8, or 4 and 2 bits.
uint8_t* sub_byte(const PanelFormat& f, uint8_t* block, int32_t plane_bits, int64_t lane, int64_t u,
                  int32_t* shift) {
  const int64_t n = f.sub_count * plane_bits / 8;
  uint8_t* plane = block + f.sub_offset + (plane_bits == 2 ? kPanelRows * f.sub_count / 2 : 0);
  *shift = static_cast<int32_t>(plane_bits * (u / n));
  return plane + kPanelRows * (u % n) + lane;
}
uint32_t read_sub(const PanelFormat& f, const uint8_t* block, int64_t lane, int64_t u) {
  uint8_t* bytes = const_cast<uint8_t*>(block);
  int32_t shift = 0;
  if (f.sub_bits == 8) return *sub_byte(f, bytes, 8, lane, u, &shift);
  // The byte first, then its shift: compilers with checks of shifts turn the two about.
  const uint32_t low = *sub_byte(f, bytes, 4, lane, u, &shift);
  const uint32_t value = low >> shift & 15;
  if (f.sub_bits == 4) return value;
  const uint32_t high = *sub_byte(f, bytes, 2, lane, u, &shift);
  return value | (high >> shift & 3) << 4;
}
void write_sub(const PanelFormat& f, uint8_t* block, int64_t lane, int64_t u, uint32_t value) {
  int32_t shift = 0;
  if (f.sub_bits == 8) {
    *sub_byte(f, block, 8, lane, u, &shift) = static_cast<uint8_t>(value);
    return;
  }
  uint8_t* byte = sub_byte(f, block, 4, lane, u, &shift);
  *byte |= static_cast<uint8_t>((value & 15) << shift);
  if (f.sub_bits == 6) {
    byte = sub_byte(f, block, 2, lane, u, &shift);
    *byte |= static_cast<uint8_t>(value >> 4 << shift);
  }
}
uint32_t read_block_code(const PanelFormat& f, const uint8_t* block, int64_t lane, int64_t i) {
  uint8_t* chunk = const_cast<uint8_t*>(f.chunk(block, i / kChunk));
  uint32_t code = 0;
  for (int32_t p = 0; p < f.plane_count; ++p) {
    int32_t shift = 0;
    const uint32_t byte = *code_byte(f.planes[p], chunk, lane, i % kChunk, &shift);
    code |= (byte >> shift & ((1u << f.planes[p].bits) - 1)) << f.planes[p].shift;
  }
  return code;
}

void pack_floats(const PanelFormat& f, const uint8_t* row, int64_t lane, uint8_t* panel) {
  const int64_t bytes = f.bits / 8;
  for (int64_t k = 0; k < f.cols; ++k) {
    const int64_t at = k * bytes;
    std::memcpy(panel + at / 4 * 64 + 4 * lane + at % 4, row + at, static_cast<size_t>(bytes));
  }
}

// One canonical block into row `lane` of a zeroed panel block; it is the part-th of those in it.
void pack_block(const PanelFormat& f, const uint8_t* canonical, int64_t count, int64_t lane, int64_t part,
                uint8_t* block) {
  const size_t bytes = static_cast<size_t>(f.scale_bytes);
  const int64_t headers = f.headers / f.canonical_per_block;
  for (int64_t h = 0; h < headers; ++h) {
    const int64_t header = ((part * headers + h) * kPanelRows + lane) * f.scale_bytes;
    std::memcpy(block + header, canonical + f.canonical_scale + h * f.scale_bytes, bytes);
    if (f.offset_kind == OffsetKind::none) continue;
    std::memcpy(block + f.offset_offset + header, canonical + f.canonical_offset, bytes);
  }
  for (int64_t u = 0; u < f.sub_count; ++u) {
    write_sub(f, block, lane, u, read_canonical_sub(f, canonical, u) ^ sub_flip(f));
  }
  if (f.value_kind == ValueKind::chosen_table) block[f.number_offset + lane] = canonical[f.scale_bytes];
  if (f.value_kind == ValueKind::row_table) pack_row_table(f, canonical, lane, block);
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t code = read_canonical(f, canonical, i) ^ static_cast<uint32_t>(f.flip);
    const int64_t k = part * f.canonical_elements + i;
    uint8_t* chunk = const_cast<uint8_t*>(f.chunk(block, k / kChunk));
    for (int32_t p = 0; p < f.plane_count; ++p) {
      int32_t shift = 0;
      uint8_t* byte = code_byte(f.planes[p], chunk, lane, k % kChunk, &shift);
      *byte |= static_cast<uint8_t>((code >> f.planes[p].shift & ((1u << f.planes[p].bits) - 1)) << shift);
    }
  }
}

// Which sub-scale the weight i of a block has.
int64_t sub_of(const PanelFormat& f, int64_t i) { return i / f.group; }
int64_t header_of(const PanelFormat& f, int64_t i, int64_t lane) {
  return (i / f.header_elements * kPanelRows + lane) * f.scale_bytes;
}

}  // namespace

void pack_panel(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count, uint8_t* panel) {
  std::memset(panel, 0, static_cast<size_t>(f.panel_bytes));
  const int64_t canonical_blocks = f.canonical_row_bytes / f.canonical_bytes;
  for (int64_t lane = 0; lane < count; ++lane) {
    const uint8_t* row = rows + lane * row_bytes;
    if (f.value_kind == ValueKind::floats) {
      pack_floats(f, row, lane, panel);
      continue;
    }
    for (int64_t j = 0; j < canonical_blocks; ++j) {
      pack_block(f, row + j * f.canonical_bytes, f.canonical_elements, lane, j % f.canonical_per_block,
                 panel + j / f.canonical_per_block * f.block_bytes);
    }
  }
}

void unpack_panel_row(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t first, int64_t count,
                      uint8_t* canonical) {
  if (f.value_kind == ValueKind::floats) {
    const int64_t bytes = f.bits / 8;
    for (int64_t k = first; k < first + count; ++k, canonical += bytes) {
      const int64_t at = k * bytes;
      std::memcpy(canonical, panel + at / 4 * 64 + 4 * lane + at % 4, static_cast<size_t>(bytes));
    }
    return;
  }
  std::memset(canonical, 0, static_cast<size_t>(count * f.canonical_bytes));
  for (int64_t j = first; j < first + count; ++j, canonical += f.canonical_bytes) {
    const uint8_t* block = panel + j / f.canonical_per_block * f.block_bytes;
    const int64_t part = j % f.canonical_per_block;
    uint8_t trits[256];
    for (int64_t i = 0; i < f.canonical_elements; ++i) {
      const uint32_t code =
          read_block_code(f, block, lane, part * f.canonical_elements + i) ^ static_cast<uint32_t>(f.flip);
      if (f.order == CodeOrder::tq1_0) {
        trits[i] = static_cast<uint8_t>(code);
      } else {
        write_canonical_code(f, i, code, canonical);
      }
    }
    if (f.order == CodeOrder::tq1_0) write_canonical(f, trits, canonical);
    for (int64_t u = 0; u < f.sub_count; ++u) {
      write_canonical_sub(f, u, read_sub(f, block, lane, u) ^ sub_flip(f), canonical);
    }
    if (f.value_kind == ValueKind::chosen_table) canonical[f.scale_bytes] = block[f.number_offset + lane];
    if (f.value_kind == ValueKind::row_table) unpack_row_table(f, block, lane, canonical);
    const size_t bytes = static_cast<size_t>(f.scale_bytes);
    const int64_t headers = f.headers / f.canonical_per_block;
    for (int64_t h = 0; h < headers; ++h) {
      const int64_t header = ((part * headers + h) * kPanelRows + lane) * f.scale_bytes;
      std::memcpy(canonical + f.canonical_scale + h * f.scale_bytes, block + header, bytes);
      if (f.offset_kind == OffsetKind::none) continue;
      std::memcpy(canonical + f.canonical_offset, block + f.offset_offset + header, bytes);
    }
  }
}

uint32_t panel_code(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k) {
  return read_block_code(f, panel + k / f.elements * f.block_bytes, lane, k % f.elements);
}

float panel_stored_scale(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k) {
  const uint8_t* block = panel + k / f.elements * f.block_bytes;
  return scale_value(f.scale_type, block + header_of(f, k % f.elements, lane));
}
float panel_stored_offset(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k) {
  const uint8_t* block = panel + k / f.elements * f.block_bytes;
  return scale_value(f.scale_type, block + f.offset_offset + header_of(f, k % f.elements, lane));
}

float panel_scale(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k) {
  const float scale = panel_stored_scale(f, panel, lane, k) * f.scale_factor;
  if (f.sub_bits == 0) return scale;
  const uint8_t* block = panel + k / f.elements * f.block_bytes;
  const int64_t i = k % f.elements;
  return scale *
         static_cast<float>(static_cast<int32_t>(read_sub(f, block, lane, sub_of(f, i))) - f.sub_zero);
}

float panel_offset(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k) {
  if (f.offset_kind == OffsetKind::none) return 0;
  const float stored = panel_stored_offset(f, panel, lane, k);
  if (f.offset_kind == OffsetKind::min) return stored;
  if (f.offset_kind == OffsetKind::zero_point)
    return -panel_scale(f, panel, lane, k) * (stored + f.zero_shift);
  const uint8_t* block = panel + k / f.elements * f.block_bytes;
  const int64_t i = k % f.elements;
  return -stored * static_cast<float>(read_sub(f, block, lane, f.sub_count / 2 + sub_of(f, i)));
}

float panel_weight(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k) {
  if (f.value_kind == ValueKind::floats) {
    const int64_t at = k * (f.bits / 8);
    const uint8_t* bytes = panel + at / 4 * 64 + 4 * lane + at % 4;
    if (f.bits == 32) return load_as<float>(bytes);
    const uint16_t half = load_as<uint16_t>(bytes);
    return f.format == BL_FORMAT_bf16 ? bf16_to_f32(half) : f16_to_f32(half);
  }
  const uint32_t code = panel_code(f, panel, lane, k);
  if (f.float_table != nullptr) return panel_stored_scale(f, panel, lane, k) * f.float_table[code];
  if (f.value_kind == ValueKind::chosen_table) {
    const uint8_t* block = panel + k / f.elements * f.block_bytes;
    return panel_stored_scale(f, panel, lane, k) * chosen_table(f, block, lane)[code];
  }
  if (f.value_kind == ValueKind::row_table) return row_table_entry(f, panel, lane, code);
  const float scale = panel_scale(f, panel, lane, k);
  const float value = static_cast<float>(panel_value(f, code) - f.zero);
  if (f.offset_kind == OffsetKind::none) return scale * value;  // keeps the sign of a zero
  if (f.offset_kind == OffsetKind::zero_point) {                // one rounding fewer than by the offset
    return scale * ((value - f.zero_shift) - panel_stored_offset(f, panel, lane, k));
  }
  return scale * value + panel_offset(f, panel, lane, k);
}

}  // namespace bitloom
