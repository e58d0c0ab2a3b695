// Prepared activations: the form of compute i8, made once for several matmuls (bl_prepare_activations). The
// same bytes at every ISA level and for every format of the weights:
//
//   | header, 64 bytes | codes i8 [M][stride] | scales f32 [M][stride / 32] | sums i32, as scales |
//   | negatives i32, as scales | tables of 1 bit [M][stride / 32][256] | tables of 2 bits [..][512] |
//   | the same as bytes (bl_tables fast), of 1 bit [..][128] | of 2 bits [..][256] |
//   | what their entries count, f32 [M][pieces(stride, 128)], of 1 bit | of 2 bits |
//
// stride = padded_k(K); tables only where they were asked for; each part begins at a multiple of 64 bytes.
// Only the header is trusted with memory: whatever the rest holds, kernels read the same addresses. It is
// read once, so that a buffer that another thread writes cannot pass a check and change then.
#pragma once

#include "../../base/error.h"
#include "kernel.h"

namespace bitloom {

constexpr uint64_t kPreparedMagic = 0x32302d61706c62ULL;  // "blpa-02"
constexpr int32_t kAllTables = 15;
constexpr int32_t kFastTables = 2;  // bits from those of lossless tables to those of fast ones

struct PreparedHeader {
  uint64_t magic = 0;
  int64_t rows = 0, cols = 0;   // M, K
  int32_t tables = kAllTables;  // bit b - 1: tables for planes of b bits; bit b + 1: fast ones
  int32_t zero = 0;
  uint64_t bytes = 0;  // of the whole
  uint64_t reserved[3] = {};
};
static_assert(sizeof(PreparedHeader) == 64);

// Where the parts stand, from the first byte of the header. bytes is 0 if the whole would exceed 2^62.
struct PreparedLayout {
  int64_t rows, cols, stride;
  int32_t table_kinds;
  uint64_t codes, scales, sums, negatives, tables[2], fast_tables[2], table_scales[2], bytes;

  PreparedLayout(int64_t rows, int64_t cols, int32_t table_kinds);
};

// Which tables an algorithm's kernels look up for these weights, as PreparedHeader::tables.
int32_t table_kinds_of(const PanelFormat& f, int32_t algorithm);

// What makes the parts, by ISA level; all give the same bytes.
struct PrepareKernels {
  PackActivations pack;
  BuildTables build_tables;
  BuildFastTables build_fast_tables;
  SumCodes sum_codes;
};
PrepareKernels prepare_kernels(int32_t isa);

// Row x [cols] into its places of `memory`.
void prepare_row(const PrepareKernels& kernels, const PreparedLayout& layout, int64_t row, const float* x,
                 uint8_t* memory);

// A buffer from outside: aligned, large enough, with a header that belongs to it.
bl_status read_prepared(const void* data, uint64_t bytes, PreparedHeader* header, bl_error* error);

// starts and moments of a row, per g = min(32, the weights' group).
void set_sums(const PreparedLayout& layout, const uint8_t* memory, const PanelFormat& f, int64_t row,
              int32_t* starts, float* moments);

// As kernels read it, but for table_starts and table_moments; starts and moments [M][stride / g].
Activations activations_of(const PreparedLayout& layout, const uint8_t* memory, const int32_t* starts,
                           const float* moments);

}  // namespace bitloom
