// Layout fragments in scalar code: canonical rows in and out.
#include "fragments.h"

#include <cstring>

#include "../base/float16.h"
#include "elements.h"
#include "panel_fields.h"

namespace bitloom {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 62;

// The bits of plane p of a code: which 32-bit word of a unit, and from which bit on.
struct CodePlace {
  int64_t byte;  // of the word, in the unit
  int32_t bit;
};
CodePlace place_code(const PanelFormat& f, int32_t p, int64_t row, int64_t k) {
  const int plane = f.planes[p].bits;
  const int lane = static_cast<int>(4 * (row % 8) + k % 32 / 8);
  const int step = static_cast<int>(2 * (k / 32) + k % 8 / 4);
  const int pair = static_cast<int>(2 * (row / 8) + k % 4 / 2), element = static_cast<int>(k % 2);
  const bool pairs = indexes_pairs(f);
  const PairPlace at =
      pairs ? table_pair_place(plane, step, pair) : pair_place(plane, f.planes[0].bits, step, pair);
  const int bit = at.bit + element * (pairs ? plane : 16);
  return {2 * f.planes[p].chunk_offset + 4 * plane_word(plane, lane, at.word), bit};
}

uint32_t load_word(const uint8_t* bytes) { return load_as<uint32_t>(bytes); }
void or_word(uint8_t* bytes, uint32_t bits) {
  const uint32_t word = load_word(bytes) | bits;
  std::memcpy(bytes, &word, sizeof(word));
}

}  // namespace

uint32_t fragment_code(const PanelFormat& f, const uint8_t* unit, int64_t row, int64_t k) {
  uint32_t code = 0;
  for (int32_t p = 0; p < f.plane_count; ++p) {
    const CodePlace at = place_code(f, p, row, k);
    code |= (load_word(unit + at.byte) >> at.bit & ((1u << f.planes[p].bits) - 1)) << f.planes[p].shift;
  }
  return code;
}

namespace {

void write_code_at(const PanelFormat& f, uint8_t* unit, int64_t row, int64_t k, uint32_t code) {
  for (int32_t p = 0; p < f.plane_count; ++p) {
    const CodePlace at = place_code(f, p, row, k);
    or_word(unit + at.byte, (code >> f.planes[p].shift & ((1u << f.planes[p].bits) - 1)) << at.bit);
  }
}

}  // namespace

int64_t fragment_float_byte(const PanelFormat& f, int64_t row, int64_t k) {
  const int64_t lane = 4 * (row % 8) + k % 32 / 8, step = 2 * (k / 32) + k % 8 / 4;
  return (((step * 32 + lane) * 2 + row / 8) * 4 + k % 4) * (f.bits / 8);
}

namespace {

struct Tile {
  uint8_t* codes;
  uint8_t* records;
  uint8_t* supers;
};
Tile tile_at(const FragmentsShape& shape, const uint8_t* fragments, int64_t tile) {
  uint8_t* bytes = const_cast<uint8_t*>(fragments);
  return {bytes + kFragmentsHeaderBytes + tile * shape.units * shape.unit_bytes,
          bytes + shape.records_offset + tile * shape.groups * shape.record_bytes,
          bytes + shape.supers_offset + tile * shape.supers * shape.super_bytes};
}

// Calls move(canonical byte, fragments byte, bytes) for what stands beside the codes of row `row` of a tile.
template <typename Move>
void for_headers(const PanelFormat& f, const FragmentsShape& shape, const Tile& tile, int64_t row,
                 uint8_t* canonical, const Move& move) {
  const int64_t place = record_place(row);
  if (f.value_kind == ValueKind::row_table) {
    for (int64_t e = 0; e < 1 << f.bits; ++e) move(canonical + 2 * e, tile.records + 32 * e + 2 * place, 2);
    return;
  }
  const int64_t bytes = f.scale_bytes;
  if (f.sub_bits != 0) {
    for (int64_t s = 0; s < shape.supers; ++s) {
      uint8_t* block = canonical + s * f.canonical_bytes;
      uint8_t* super = tile.supers + s * shape.super_bytes;
      move(block + f.canonical_scale, super + 2 * place, 2);
      if (f.offset_kind == OffsetKind::sub_min) move(block + f.canonical_offset, super + 32 + 2 * place, 2);
    }
    return;
  }
  const int64_t groups = shape.group == 0 ? 1 : (f.cols + shape.group - 1) / shape.group;
  for (int64_t q = 0; q < groups; ++q) {
    const int64_t k = q * shape.group;
    uint8_t* block = canonical + k / f.canonical_elements * f.canonical_bytes;
    uint8_t* record = tile.records + q * shape.record_bytes;
    move(block + f.canonical_scale + k % f.canonical_elements / f.header_elements * bytes,
         record + bytes * place, bytes);
    if (f.offset_kind != OffsetKind::none) {
      move(block + f.canonical_offset, record + shape.second_offset + bytes * place, bytes);
    }
    if (f.value_kind == ValueKind::chosen_table) {
      move(block + f.scale_bytes, record + shape.second_offset + place, 1);
    }
  }
}

// Sub-scale u of block s of a row: where it stands.
uint8_t* sub_at(const PanelFormat& f, const FragmentsShape& shape, const Tile& tile, int64_t row, int64_t s,
                int64_t u) {
  const int64_t scales = f.canonical_elements / shape.group;
  return tile.records + (s * scales + u % scales) * shape.record_bytes +
         (u < scales ? 0 : shape.second_offset) + record_place(row);
}

}  // namespace

FragmentsShape::FragmentsShape(const PanelFormat& f, int64_t rows) {
  const bool floats = f.value_kind == ValueKind::floats;
  row_tiles = (rows + kUnitRows - 1) / kUnitRows;
  units = (f.cols + kUnitDepth - 1) / kUnitDepth;
  unit_bytes = kUnitRows * kUnitDepth / 8 * f.bits;
  group = floats || f.info->group_size == 0 ? 0 : f.group;
  groups = floats ? 0 : group == 0 ? 1 : (f.cols + group - 1) / group;
  if (group != 0 && group < kUnitDepth) groups = units * (kUnitDepth / group);
  const int64_t entry = f.sub_bits != 0 ? 1 : f.scale_bytes;
  second_offset = floats ? 0 : kUnitRows * entry;
  record_bytes = second_offset;
  if (f.offset_kind != OffsetKind::none) record_bytes *= 2;
  if (f.value_kind == ValueKind::chosen_table) record_bytes += kUnitRows;
  if (f.value_kind == ValueKind::row_table) record_bytes = kUnitRows * 2 << f.bits;
  supers = f.sub_bits != 0 ? f.cols / f.canonical_elements : 0;
  super_bytes = f.offset_kind == OffsetKind::sub_min ? 64 : 32;
  const auto codes = static_cast<unsigned __int128>(row_tiles) * static_cast<uint64_t>(units * unit_bytes);
  const auto records =
      static_cast<unsigned __int128>(row_tiles) * static_cast<uint64_t>(groups * record_bytes);
  const auto rest = static_cast<unsigned __int128>(row_tiles) * static_cast<uint64_t>(supers * super_bytes);
  const unsigned __int128 total = kFragmentsHeaderBytes + codes + records + rest;
  bytes = total > kMaxBytes ? 0 : static_cast<uint64_t>(total);
  records_offset = static_cast<uint64_t>(kFragmentsHeaderBytes + codes);
  supers_offset = records_offset + static_cast<uint64_t>(records);
}

bool has_elements(const PanelFormat& f) {
  switch (f.info->kind) {
    case BL_KIND_fp4:
    case BL_KIND_e2m1:
    case BL_KIND_e2m3:
    case BL_KIND_e3m2:
    case BL_KIND_e4m3:
    case BL_KIND_e5m2:
      return true;
    default:
      return f.format == BL_FORMAT_mxfp4 || f.format == BL_FORMAT_nvfp4;
  }
}

bool indexes_pairs(const PanelFormat& f) {
  if (has_elements(f)) return false;
  return f.value_kind == ValueKind::float_table || f.value_kind == ValueKind::chosen_table ||
         f.value_kind == ValueKind::row_table || f.format == BL_FORMAT_iq4_nl;
}

uint64_t fragments_bytes(int32_t format, int64_t rows, int64_t cols) {
  if (bl_weights_bytes(format, rows, cols) == 0) return 0;
  return FragmentsShape(panel_format(format, cols, {nullptr, 1}), rows).bytes;
}

void pack_fragments(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* rows, int64_t row_bytes,
                    int64_t count, int64_t index, uint8_t* fragments) {
  const Tile tile = tile_at(shape, fragments, index);
  std::memset(tile.codes, 0, static_cast<size_t>(shape.units * shape.unit_bytes));
  std::memset(tile.records, 0, static_cast<size_t>(shape.groups * shape.record_bytes));
  if (shape.supers != 0) std::memset(tile.supers, 0, static_cast<size_t>(shape.supers * shape.super_bytes));
  for (int64_t row = 0; row < count; ++row) {
    uint8_t* canonical = const_cast<uint8_t*>(rows + row * row_bytes);
    const auto unit = [&](int64_t k) { return tile.codes + k / kUnitDepth * shape.unit_bytes; };
    if (f.value_kind == ValueKind::floats) {
      const size_t bytes = static_cast<size_t>(f.bits / 8);
      for (int64_t k = 0; k < f.cols; ++k) {
        std::memcpy(unit(k) + fragment_float_byte(f, row, k % kUnitDepth), canonical + k * f.bits / 8, bytes);
      }
      continue;
    }
    for_headers(f, shape, tile, row, canonical, [](const uint8_t* from, uint8_t* to, int64_t bytes) {
      std::memcpy(to, from, static_cast<size_t>(bytes));
    });
    for (int64_t s = 0; s < shape.supers; ++s) {
      for (int64_t u = 0; u < f.sub_count; ++u) {
        *sub_at(f, shape, tile, row, s, u) =
            static_cast<uint8_t>(read_canonical_sub(f, canonical + s * f.canonical_bytes, u) ^ sub_flip(f));
      }
    }
    for (int64_t k = 0; k < f.cols; ++k) {
      const uint8_t* block = canonical + k / f.canonical_elements * f.canonical_bytes;
      const uint32_t code =
          read_canonical(f, block, k % f.canonical_elements) ^ static_cast<uint32_t>(f.flip);
      write_code_at(f, unit(k), row, k % kUnitDepth, code);
    }
  }
}

void unpack_fragments_row(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* fragments,
                          int64_t at, uint8_t* canonical) {
  const Tile tile = tile_at(shape, fragments, at / kUnitRows);
  const int64_t row = at % kUnitRows;
  const auto unit = [&](int64_t k) { return tile.codes + k / kUnitDepth * shape.unit_bytes; };
  if (f.value_kind == ValueKind::floats) {
    for (int64_t k = 0; k < f.cols; ++k) {
      std::memcpy(canonical + k * f.bits / 8, unit(k) + fragment_float_byte(f, row, k % kUnitDepth),
                  static_cast<size_t>(f.bits / 8));
    }
    return;
  }
  std::memset(canonical, 0, static_cast<size_t>(f.canonical_row_bytes));
  for_headers(f, shape, tile, row, canonical, [](uint8_t* to, const uint8_t* from, int64_t bytes) {
    std::memcpy(to, from, static_cast<size_t>(bytes));
  });
  for (int64_t s = 0; s < shape.supers; ++s) {
    for (int64_t u = 0; u < f.sub_count; ++u) {
      write_canonical_sub(f, u, *sub_at(f, shape, tile, row, s, u) ^ sub_flip(f),
                          canonical + s * f.canonical_bytes);
    }
  }
  uint8_t codes[256];
  for (int64_t k = 0; k < f.cols; ++k) {
    const int64_t i = k % f.canonical_elements;
    uint8_t* block = canonical + k / f.canonical_elements * f.canonical_bytes;
    const uint32_t code = fragment_code(f, unit(k), row, k % kUnitDepth) ^ static_cast<uint32_t>(f.flip);
    if (f.order != CodeOrder::tq1_0) {
      write_canonical_code(f, i, code, block);
      continue;
    }
    codes[i] = static_cast<uint8_t>(code);
    if (i == 255) write_canonical(f, codes, block);
  }
}

}  // namespace bitloom
