// Layout lanes16: sixteen rows of weights side by side (a panel), so that a vector lane of 32 bits belongs to
// one row and no sum across lanes is needed. The one layout that matmul's kernels read, for every format;
// weights in other layouts are brought into it panel by panel as they are used.
//
// A panel is a sequence of panel blocks of `elements` weights of each row (the format's own block; several of
// them where it has fewer than 32 weights; a whole row, rounded up to 32, for `_row` formats):
//
//   | scales [headers][16] | offsets [headers][16] | sub-scales | chunk 0 | chunk 1 | ...
//
// In place of the first three: cbs<b> has scales [16] and tables' numbers [16], a byte each. lut<b> has its
// rows' tables, 2^b entries of 16 bits each: a plane of low bytes, then one of high bytes. A row's 2^b bytes
// are at row_table_byte(); byte shuffles, which see 16 bytes at a time, then look up four rows with 2^(b - 2)
// registers.
//
// A chunk is 32 weights of each row: 64 * bits bytes. Its vector v (0 to 7) is the 64 codes of weights 4v +
// j, j = 0 to 3. Codes are unsigned (signed ones have their top bit flipped) and cut into planes of 8, 4, 2
// and 1 bits, low bits in the first: 3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1. A plane of p bits is p
// runs of 64 bytes; vector v stands in run v % p at bits [p * (v / p), p * (v / p) + p) of the bytes. The
// code of row r and weight 4v + j is in byte 4r + j where p is 8 or 4, and in byte 16j + r where p is 2 or 1:
// byte shuffles, which see 16 bytes at a time, then meet sixteen rows of one table.
//
// Floats are no codes: run i of a chunk holds, for each row, 4 bytes of the row as it is (2 weights of f16
// and bf16, 1 of f32).
//
// Sub-scales are the K types' small integers, `sub_count` per row: scales, then mins. In planes of 8, 4 and 2
// bits; sub-scale u of row r is byte 16 * (u % n) + r, n = sub_count * p / 8, bits [p * (u / n), ...).
//
// In all the same bytes as sixteen canonical rows, save where padding to 32 weights adds some (`_row`
// formats, groups of 8 and 16) and for tq1_0, whose trits become codes of 2 bits. Rows past the last full
// sixteen stay canonical.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"
#include "codebooks.h"

namespace bitloom {

constexpr int64_t kPanelRows = 16;
constexpr int64_t kChunk = 32;  // weights of a row in a chunk
constexpr int64_t kMaxSubCount = 32;

// How the codes of a canonical block lie; pictures in gguf_blocks.h and formats.inc.
enum class CodeOrder : int32_t {
  stream,
  floats,
  q4_0,
  q5_0,
  q2_k,
  q3_k,
  q4_k,
  q5_k,
  q6_k,
  tq1_0,
  tq2_0,
  nvfp4
};

// What becomes of a code: weight = scale * (value(code) - zero) + offset, value(code) an unsigned integer of
// at most 8 bits; or weight = scale * entry(code) where values are floats: of one table, of the one that the
// group names; or weight = entry(code) of the row's own table.
enum class ValueKind : int32_t { integer, table, float_table, chosen_table, row_table, floats };

// The offset of a group's weights.
enum class OffsetKind : int32_t {
  none,
  zero_point,  // offset = -scale * (stored + zero_shift)
  min,         // offset = stored
  sub_min      // offset = -stored * sub-scale
};

struct Plane {
  int32_t bits;
  int32_t shift;         // of its bits within a code
  int32_t chunk_offset;  // of its first run
};

// Everything kernels must know of a format. Made by panel_format() for a matrix.
struct PanelFormat {
  const bl_format_info* info;
  int32_t format;
  int32_t bits;         // of a code, or of a float
  int32_t plane_count;  // 0 for floats
  Plane planes[3];
  int32_t flip;  // raw code ^ flip is the code as packed
  CodeOrder order;

  int64_t cols;
  int64_t blocks;    // panel blocks of a panel
  int64_t elements;  // of a panel block, a multiple of 32
  int64_t group;     // weights that share a scale: 8, 16 or a multiple of 32
  int64_t groups;    // in a panel block
  int64_t canonical_elements, canonical_bytes, canonical_per_block;
  int64_t header_elements;  // weights that share a stored scale (a K type's group has a part of it)
  int64_t headers;          // stored scales of a row in a panel block
  int64_t canonical_row_bytes;

  int32_t scale_type;   // bl_scale_dtype; meaningless for floats
  int32_t scale_bytes;  // 0 for floats
  int32_t canonical_scale, canonical_offset, canonical_sub, canonical_codes;  // where they stand in a block
  float scale_factor;  // multiplies the stored scale (a power of two)
  OffsetKind offset_kind;
  float zero_shift;
  int32_t sub_bits;   // 0, 4, 6 or 8
  int32_t sub_count;  // per row: scales, then mins
  int32_t sub_zero;   // scale = stored * (sub - sub_zero); subs of 8 bits are flipped to be unsigned

  ValueKind value_kind;
  int32_t shift;             // value = code << shift (integer): 1 for signs, so that {0, 2} - 1 = {-1, 1}
  int32_t zero;              // the value of weight zero: integer and table
  int32_t max_value;         // the largest value(code)
  uint8_t table[64];         // table: value of each code
  const float* float_table;  // [2^bits], to be multiplied with the stored scale: float_table, and table
                             // formats that have a negative zero
  Codebooks tables;          // chosen_table

  // Byte offsets in a panel block.
  int64_t offset_offset, sub_offset, number_offset, chunk_offset;
  int64_t chunk_bytes;  // 64 * bits
  int64_t block_bytes;
  int64_t panel_bytes;

  // Integer products are exact for these: value(code) fits 8 bits.
  bool has_integer_values() const {
    return value_kind == ValueKind::integer || value_kind == ValueKind::table;
  }
  const uint8_t* chunk(const uint8_t* block, int64_t index) const {
    return block + chunk_offset + index * chunk_bytes;
  }
};

// `codebook`: as codebooks_of(). cols > 0 and such as the format takes.
PanelFormat panel_format(int32_t format, int64_t cols, const Codebooks& codebook);

// Bytes of a matrix in layout lanes16: full panels, then canonical rows. 0 on overflow beyond 2^62.
uint64_t lanes_bytes(int32_t format, int64_t rows, int64_t cols);

// Scalar reference of what follows in SIMD: `count` (1 to 16) canonical rows `row_bytes` apart to one panel,
// rows that are not there zero; and back.
void pack_panel(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count, uint8_t* panel);
// Canonical blocks [first, first + count) of row `lane` of a panel (weights of it, for floats).
void unpack_panel_row(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t first, int64_t count,
                      uint8_t* canonical);

// chosen_table: the table of a row in a panel block.
inline const float* chosen_table(const PanelFormat& f, const uint8_t* block, int64_t lane) {
  return f.tables.table(block[f.number_offset + lane], f.bits);
}
// row_table: where the low byte of entry 0 of a row's table stands in a panel; the others follow. High bytes
// are row_table_plane() on.
inline int64_t row_table_plane(const PanelFormat& f) { return kPanelRows << f.bits; }
inline int64_t row_table_byte(const PanelFormat& f, int64_t lane) {
  const int64_t together = 16 >> f.bits;  // rows in 16 bytes
  return 64 * (lane % 4 / together) + 16 * (lane / 4) + (lane % together << f.bits);
}
// The table of a canonical row to its place in a panel, and back.
void pack_row_table(const PanelFormat& f, const uint8_t* row, int64_t lane, uint8_t* panel);
void unpack_row_table(const PanelFormat& f, const uint8_t* panel, int64_t lane, uint8_t* row);
float row_table_entry(const PanelFormat& f, const uint8_t* panel, int64_t lane, uint32_t code);

// The unsigned code of weight `k` of a row in a panel. Not for floats.
uint32_t panel_code(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k);
// value(code): integer and table formats.
inline int32_t panel_value(const PanelFormat& f, uint32_t code) {
  return f.value_kind == ValueKind::table ? f.table[code] : static_cast<int32_t>(code << f.shift);
}
// Scale and offset of the group that holds weight `k`. f32; scale is that of value(code) - zero.
float panel_scale(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k);
float panel_offset(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k);
// What is stored of both: without scale_factor and sub-scale.
float panel_stored_scale(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k);
float panel_stored_offset(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k);
// The weight itself, as decode_row gives it. Any format.
float panel_weight(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t k);
// values[i] = panel_weight(f, panel, lane, first + i), i < count, faster.
void decode_panel_row(const PanelFormat& f, const uint8_t* panel, int64_t lane, int64_t first, int64_t count,
                      float* values);

}  // namespace bitloom
