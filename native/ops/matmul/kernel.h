// The contract of matmul kernels.
#pragma once

#include <cstdint>

#include "../../formats/formats.h"
#include "../../include/bitloom.h"

namespace bitloom {

// A row of activations is padded with zeros to a multiple of kStep (the depth of an AMX tile of int8), so
// that kernels have no tails in K on that side.
constexpr int64_t kStep = 64;
constexpr int64_t padded_k(int64_t k) { return (k + kStep - 1) / kStep * kStep; }
// Activations of compute i8 have a scale per kGroup, in algorithm tile per kTileDepth (tile.h says why 512).
constexpr int64_t kGroup = 32;
constexpr int64_t kTileDepth = 512;
// Tables of one byte (lut_fast) have a scale per kTableGroup activations, and their products are scaled per
// step: that, or a group of the weights where it is smaller.
constexpr int64_t kTableGroup = 128;
inline int64_t table_step_of(const PanelFormat& f) { return f.group < kTableGroup ? f.group : kTableGroup; }
constexpr int64_t pieces(int64_t count, int64_t size) { return (count + size - 1) / size; }
constexpr int64_t tile_blocks(int64_t k) { return (k + kTileDepth - 1) / kTileDepth; }

// Sums over a block of a row's codes in algorithm tile.
struct TileSums {
  int32_t sum, squares;
  int32_t nonzero;  // values that are not 0, whatever their code
};

// Activations as kernels read them. Rows lie `stride` elements apart (a multiple of kStep); per-group arrays
// `stride / group` apart. Null what the kernel's compute mode and algorithm do not need.
struct Activations {
  int64_t stride;
  const float* values;  // f32: [M][stride]
  // tile: rows in tiles of 16, rows past the last zero; tile_at() of tile.h says where an element stands.
  const uint16_t* halves;  // bf16 tile: rounded to nearest even
  const int8_t* codes;     // i8: [M][stride], |code| <= 127
  // i8: a[m][k] ~ scales[m][k / 32] * codes[m][k]; tile: scales[m][k / 512]
  const float* scales;
  // dequant and lut; g = min(32, the weights' group): [M][stride / g]. tile: [M][tile_blocks(stride)]
  const int32_t* starts;  // -zero * sum of the group's codes: what its products begin with; tile: -128 * sum
  const float* moments;   // scale * (float) sum of the group's codes: what offsets are multiplied with
  // lut: tables of sums for planes of 1 and of 2 bits, see tables.h: [M][stride / 32][table_bytes(bits)]
  const uint8_t* tables[2];
  const int32_t* negatives;  // lut: -(sum of the negative codes of 32): [M][stride / 32]
  // lut_fast: the same tables rounded to bytes [M][stride / 32][fast_table_bytes(bits)], what an entry counts
  // [M][pieces(stride, 128)], and per step, [M][pieces(stride, table_step_of(weights))], what sums begin
  // with and what offsets are multiplied with.
  const uint8_t* fast_tables[2];
  const float* table_scales[2];
  const float *table_starts, *table_moments;
  // i1: a[m][k] ~ scales[m] * (1 where its bit is set, else -1); a word per 32, in the order of a plane of
  // one bit (panel.h): [M][stride / 32]
  const uint32_t* signs;
};

// What one call computes: rows [m_begin, m_end) of a times the rows of `panel_count` panels.
struct Tile {
  const uint8_t* panels;
  int64_t panel_stride;  // bytes between them
  int64_t panel_count;   // 1 to the kernel row's `panels`
  int64_t m_begin, m_end;
  float* values;   // [m_end - m_begin][stride], the first 16 * panel_count columns of a row are written:
  int64_t stride;  //   sum_k a[m, k] * b[n, k], added to what stands there if `accumulate`
  bool accumulate;
  uint8_t* scratch;  // the kernel row's scratch_bytes, aligned to 64; contents undefined
};

// Computes a tile. Pure: no allocation, no threads, no errors. Bits depend only on the rows of a and b
// concerned, never on the tile's bounds.
//
// i8, dequant, and lut with lossless tables, for all ISAs the same bits. Per group of g = min(32, f.group)
// weights, in order of k, I = starts + sum of value(code) * a_code, exact in int32 (at most 32 * 255 * 127),
//   both = scale_b * scale_a            rounded to f32
//   sum  = fma((float) I, both, sum)
//   sum  = fma(offset, moment, sum)     formats with offsets
// where offset of a zero point is -scale_b * (stored + zero_shift), each step rounded, as panel_offset()
// gives it. A scale of NaN in a makes the row NaN.
//
// Compute e4m3 is dequant f32 of activations that round_e4m3.h has rounded.
//
// lut_fast, for all ISAs the same bits. Per step of table_step_of(f) weights, in order of k, T_p = sum of
// what the codes of plane p look up, exact in int32,
//   looked = fma((float) T_p, table_scale_p * 2^(shift of the plane and of values), looked)
//            for each plane in order, from looked = table_starts
//   sum    = fma(scale_b, looked, sum)
//   sum    = fma(offset, table_moments, sum)     formats with offsets
//
// i1: per group of the weights, I = sum of sign_b * sign_a over the row's own columns, exact in int32,
//   sum = fma((float) I, scale_b * scale_a, sum)
// for all ISAs the same bits.
using MatmulKernel = void (*)(const PanelFormat& f, const Activations& a, const Tile& tile);

// Quantizes one row: x[0, k) to codes with a scale per 32. scale = max|x| / 127, code = x * (127 / max|x|) to
// nearest even; a group with a value that is not finite gets scale NaN and codes 0.
using PackActivations = void (*)(const float* x, int64_t k, int8_t* codes, float* scales);
// The same per kTileDepth, for algorithm tile. codes: where the row begins in its tile; what pads the row to
// a multiple of 64 is written too.
using PackTileCodes = void (*)(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums);
// Rounds a row to bf16 into tiles.
using PackTileHalves = void (*)(const float* x, int64_t k, uint16_t* halves);

// Tables of a row of `stride` codes for planes of `bits` (1 or 2) bits, see tables.h; for all ISAs the same
// bytes.
using BuildTables = void (*)(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables);

// The same rounded to bytes, with the number that an entry counts per kTableGroup codes; see tables.h.
// scales: of the codes, per 32.
using BuildFastTables = void (*)(const int8_t* codes, const float* scales, int64_t stride, int32_t bits,
                                 uint8_t* tables, float* table_scales);

// Per 32 codes of a row of `stride`: their sum, and minus the sum of the negative ones.
using SumCodes = void (*)(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives);

// Algorithm lut with tables of bytes (bl_tables): a row of kernels.inc of its own, no number that callers
// know.
constexpr int32_t BL_ALGORITHM_lut_fast = 64;
// Algorithm lut for the formats that takes_lut() leaves out: tables are made in the kernel, which reads what
// dequant reads.
constexpr int32_t BL_ALGORITHM_lut_wide = 65;
// Those whose tables are among the activations.
constexpr bool is_lut(int32_t algorithm) {
  return algorithm == BL_ALGORITHM_lut || algorithm == BL_ALGORITHM_lut_fast;
}

struct MatmulKernelRow {
  const char* name;
  int32_t isa;
  int32_t algorithm;  // bl_algorithm, or BL_ALGORITHM_lut_fast or _wide
  int32_t compute;    // bl_compute
  bool (*takes)(const PanelFormat& f);
  int32_t panels;                                                // at most so many a call
  int32_t rows;                                                  // of a, at most so many a call
  int64_t (*scratch_bytes)(const PanelFormat& f, int64_t rows);  // rows: of a, at most `rows`
  MatmulKernel run;
  PackActivations pack;
  PackTileCodes pack_tile_codes;
  PackTileHalves pack_tile_halves;
};

inline bool takes_integers(const PanelFormat& f) { return f.has_integer_values(); }
// Weights of one bit, +1 or -1 times a scale.
inline bool takes_signs(const PanelFormat& f) {
  return f.bits == 1 && f.value_kind == ValueKind::integer && f.shift == 1 &&
         f.offset_kind == OffsetKind::none;
}
// What the vector kernels of signs read: groups of whole chunks, scales of 16 bits.
inline bool takes_sign_chunks(const PanelFormat& f) {
  return takes_signs(f) && f.group % kChunk == 0 && f.scale_bytes == 2 && f.sub_bits == 0;
}
// What the unpacking of dequant_i8.inl covers: all integer formats but tables of odd sizes and wide
// tables of 6 bits.
inline bool takes_dequant_i8(const PanelFormat& f) {
  return f.has_integer_values() && (f.sub_bits != 0 || f.groups == 1 || f.group <= kGroup) &&
         (f.value_kind != ValueKind::table || f.bits == 4 || (f.bits == 6 && f.max_value <= 129));
}
// Planes of 1 and 2 bits only: a table for 4 bits would have the products themselves.
inline bool takes_lut(const PanelFormat& f) {
  return f.value_kind == ValueKind::integer && f.bits <= 3 && f.group >= kGroup && f.groups == 1 &&
         f.sub_bits == 0 && (f.offset_kind == OffsetKind::none || f.offset_kind == OffsetKind::zero_point);
}
// Values that lookups of four bits give (avx2_lut_wide_i8.cc).
inline bool takes_nibbles(const PanelFormat& f) {
  return f.value_kind == ValueKind::integer || (f.value_kind == ValueKind::table && f.bits == 4);
}
inline bool takes_any(const PanelFormat&) { return true; }
inline int64_t no_scratch(const PanelFormat&, int64_t) { return 0; }
// dequant i8 in SIMD: what dequant_i8.inl calls records.
inline int64_t records_scratch(const PanelFormat& f, int64_t rows) {
  const int64_t parts = f.group < kGroup ? kGroup / f.group : 1;
  return rows * ((f.cols + kChunk - 1) / kChunk) * (kChunk + 4 + 8 * parts);
}
// dequant f32 in SIMD (f32_kernel.inl). Several rows of a: a block of decoded weights with scales and
// offsets, and one of a. One row: scales and offsets of a block of every panel. Depth 128: two vectors of
// rows are 16 KB of L1, beside 6 KB of a, and sums are loaded and stored once in 128.
constexpr int64_t kF32Rows = 128, kF32Panels = 8, kF32Depth = 128;
inline int64_t f32_scratch(const PanelFormat& f, int64_t) {
  const int64_t block = kF32Depth * (2 * kPanelRows + kF32Rows) + 4 * kF32Depth / 8 * kPanelRows;
  const int64_t scales = 2 * kF32Panels * f.groups * kPanelRows;
  return (block > scales ? block : scales) * static_cast<int64_t>(sizeof(float));
}
bool takes_tile_i8(const PanelFormat& f);
inline bool takes_tile_bf16(const PanelFormat&) { return true; }
// Enough for every tile kernel: two blocks of weights (2 panels x 512 of int8, 256 of bf16, 128 of f32),
// tiles of sums, scales, a strip of widened activations.
inline int64_t tile_scratch(const PanelFormat&, int64_t) { return int64_t{1} << 17; }

#define BL_MATMUL_KERNEL(isa, algorithm, compute, formats, panels, rows, scratch)                    \
  namespace isa {                                                                                    \
  void matmul_##algorithm##_##compute(const PanelFormat& f, const Activations& a, const Tile& tile); \
  }
#include "kernels.inc"
#undef BL_MATMUL_KERNEL

namespace scalar {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums);
void pack_tile_halves(const float* x, int64_t k, uint16_t* halves);
void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables);
void build_fast_tables(const int8_t* codes, const float* scales, int64_t stride, int32_t bits,
                       uint8_t* tables, float* table_scales);
void sum_codes(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives);
}  // namespace scalar
namespace avx2 {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums);
void pack_tile_halves(const float* x, int64_t k, uint16_t* halves);
void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables);
void build_fast_tables(const int8_t* codes, const float* scales, int64_t stride, int32_t bits,
                       uint8_t* tables, float* table_scales);
void sum_codes(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives);
}  // namespace avx2
namespace avx512 {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums);
void pack_tile_halves(const float* x, int64_t k, uint16_t* halves);
void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables);
void build_fast_tables(const int8_t* codes, const float* scales, int64_t stride, int32_t bits,
                       uint8_t* tables, float* table_scales);
using avx2::sum_codes;
}  // namespace avx512
namespace amx {
using avx512::build_tables;
using avx512::pack_activations_i8;
using avx512::pack_tile_codes;
using avx512::pack_tile_halves;
}  // namespace amx
namespace neon {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales);
void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables);
void sum_codes(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives);
}  // namespace neon
namespace dotprod {
using neon::pack_activations_i8;
}  // namespace dotprod
namespace i8mm {
using neon::pack_activations_i8;
}  // namespace i8mm

}  // namespace bitloom
