// What host and device agree on: parameters of the kernels, tile shapes. Plain C++17.
#pragma once

#include <cstdint>

#include "../../../native/formats/fragments_place.h"

namespace bitloom::cuda::gemm {

constexpr int kPromptRows = 64;      // of a, in a block's tile
constexpr int kPromptColumns = 128;  // of c
constexpr int kPromptThreads = 128;
constexpr int kPromptStages = 4;
constexpr int kPromptRowTiles = kPromptColumns / 16;
constexpr int kStagedStride = kPromptColumns + 4;  // floats of a row of c in shared memory; no bank met twice
constexpr int kStreamRows = 16;
constexpr int kStreamWarps = 8;    // at most
constexpr int kStreamStride = 20;  // floats of a row of c in shared memory
constexpr int kStreamWarpBytes = kStreamRows * kStreamStride * 4;

// What the second part of a record is.
enum class Second : int32_t { none, zero_point, min, sub_min, table_number };

// A matrix in layout fragments (native/formats/fragments.h), and how codes become weights:
// weight * unit = fma(value - zero, scale * unit, offset * unit)
struct FragmentWeights {
  const void* codes;
  const void* records;
  const void* supers;
  const float* header;                            // unit, 1 / unit
  int64_t tile_codes, tile_records, tile_supers;  // bytes of a row tile
  int32_t row_tiles, units;
  int32_t unit_bytes;
  int32_t group_shift;  // log2 of the group's weights; 31: the whole row
  int32_t record_bytes, second_offset;
  int32_t super_bytes;  // 0: scales are what records say
  int32_t super_shift;  // log2 of the units of a super record
  int32_t scale_type;   // bl_scale_dtype
  Second second;
  float factor;      // times the stored scale
  float zero;        // the value of weight zero
  float zero_shift;  // added to a stored zero point
  float sub_zero;
  int32_t exponent_shift;  // elements: magnitude bits are shifted left by it into f16's
  int32_t tables;          // in `table`, at least 1
  uint16_t table[64];      // f16 bits: [tables][2^bits]
};

// Weights of any format, as f16 fragments, for formats without a kernel of their own.
struct UnpackParams {
  FragmentWeights from;
  void* to;              // [row tiles][units][2048 bytes]
  const float* entries;  // f32 tables, or null
  int32_t bits;
  int32_t kind;  // UnpackKind
};
enum class UnpackKind : int32_t { table, row_table, bf16, f32 };

// What happens to products: y of bl_matmul_args, then c.
struct Epilogue {
  void* c;
  int64_t c_row, c_column;  // strides in elements
  void* c_scales;           // [M, ceil(N / 32)] f32, or null
  int64_t c_scales_row, c_scales_column;
  const float* row_factors;  // [M] what a's rows were multiplied with, inverted; or null
  const float* header;       // of b: [1] is 1 / unit; or null: 1
  const float* bias;         // [columns of y]
  const float* row_scale;
  const void* addend;
  int64_t addend_row, addend_column;
  const void* residual;
  int64_t residual_row, residual_column;
  const float* low;  // [M, rank]: down x, or null
  const void* up;    // [columns of y, rank], or [adapters] of them
  int64_t up_row, up_column, up_adapter;
  const int32_t* low_ids;      // [M] which adapter a row has, or null: all the first
  const int32_t* row_offsets;  // CSR, or null
  const int32_t* columns;
  const void* values;
  const void* a;  // as it was given, for outliers
  int64_t a_row, a_column;
  int32_t a_columns, outliers;  // how many there are
  int32_t c_dtype, addend_dtype, residual_dtype, up_dtype, values_dtype, a_dtype;
  int32_t activation;
  int32_t rank;
  int32_t adapters;
  float scale;  // times tensor scale
  float low_scale;
  float code_scale;       // c is i8: 1 / c_scale
  int32_t gated_columns;  // H of swiglu and geglu, else 0
};

// The products of a and b.
struct ProductParams {
  FragmentWeights b;
  const void* a;  // [M, K] f16 or bf16, rows at multiples of 16 bytes
  int64_t a_row_bytes;
  int32_t m, n, k;       // n: rows of b
  int32_t splits;        // of the units; split s takes [units s / splits, units (s + 1) / splits)
  float* partial;        // [splits, M, n], or null: c is written
  int32_t raw_bytes;     // prompt kernel: records of a row tile that a unit needs
  int32_t ready_groups;  // and how many they are
  Epilogue epilogue;
};

// c from partial sums.
struct FinishParams {
  const float* partial;  // [splits, M, n]
  int32_t splits, m, n;
  int32_t columns;  // of c
  Epilogue epilogue;
};

// Compute e4m3: which activations share a scale.
enum class Rounding8 : int32_t { none, row, columns32 };

// a to f16: rows times a power of two, columns picked and scaled. Or to bf16: columns picked.
struct PrepareParams {
  const void* a;
  int64_t a_row, a_column;  // strides in elements
  int32_t a_dtype;
  int32_t m, k;           // columns of b
  int32_t padded_k;       // a multiple of 64
  const float* a_scales;  // a is i8
  int64_t scales_row, scales_column;
  int32_t scale_columns;      // codes that share one; 0: the row
  const float* column_scale;  // [K of a]
  const int32_t* column_order;
  int32_t a_columns;   // K of a, to keep what column_order says within it
  void* out;           // [M, padded_k]
  int32_t out_dtype;   // f16, or bf16
  float* row_factors;  // [M], or null: as they are
  Rounding8 rounding;  // of prepare_e4m3_row
};

// low = a down^T
struct LowRankParams {
  const void* a;
  int64_t a_row, a_column;
  const void* down;  // [R, K], or [adapters] of them
  int64_t down_row, down_column, down_adapter;
  const int32_t* ids;  // [M], or null: all the first
  int32_t a_dtype, down_dtype;
  int32_t m, k, rank, adapters;
  const float* a_scales;
  int64_t scales_row, scales_column;
  int32_t scale_columns;
  float* low;  // [M, R]
};

// Units that a lane of the stream kernel has under way, with tiles of 8 rows of a: what 80 registers hold.
BL_HOST_DEVICE constexpr int stream_depth(int words, bool plain_scale, int tiles) {
  if (words >= 16 || tiles > 1) return 2;
  return words > 4 ? 2 : plain_scale ? 4 : 3;
}

// How many of scale, offset and zero a kind of codes has.
BL_HOST_DEVICE constexpr int scale_parts(bool plain_scale, bool table) {
  return plain_scale ? 1 : table ? 2 : 3;
}

// Bytes of a stage of the prompt kernel, and of all its shared memory.
BL_HOST_DEVICE constexpr int prompt_stage_bytes(int unit_bytes, int raw_bytes, int super_bytes) {
  return kPromptRows * 128 + kPromptRowTiles * (unit_bytes + raw_bytes + super_bytes);
}
constexpr int prompt_shared_bytes(int unit_bytes, int raw_bytes, int super_bytes, int ready_groups,
                                  int scale_parts, int table_bytes) {
  const int loop = kPromptStages * prompt_stage_bytes(unit_bytes, raw_bytes, super_bytes) +
                   2 * scale_parts * ready_groups * kPromptColumns * 4 + table_bytes;
  const int staged = kPromptRows * kStagedStride * 4;
  return loop > staged ? loop : staged;
}

}  // namespace bitloom::cuda::gemm
