// Activations brought into the form that a kernel reads.
#pragma once

#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "input.h"
#include "kernel.h"
#include "row_kernels.h"

namespace bitloom {

// Elements below which waking other threads costs more than it brings.
constexpr int64_t kSerialElements = int64_t{1} << 14;

// Sizes of the packed activations of m rows. Independent of N.
struct ActivationsPlan {
  int64_t m, stride;
  bool tile;  // laid out in tiles of 16 rows
  uint64_t values_bytes = 0, halves_bytes = 0, codes_bytes = 0, scales_bytes = 0, sums_bytes = 0;
  uint64_t signs_bytes = 0, tile_sums_bytes = 0;
  uint64_t tables_bytes[2] = {}, negatives_bytes = 0;    // lut: per plane width
  uint64_t table_scales_bytes[2] = {}, steps_bytes = 0;  // lut_fast; steps_bytes twice
  uint64_t row_bytes;
  int64_t tasks;  // the packing's, each with two rows of f32 of its own, in tiles one of codes too

  ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, const Input& input, int64_t m);
  uint64_t task_bytes() const { return 2 * row_bytes + (tile ? align_up(static_cast<uint64_t>(stride)) : 0); }
  uint64_t total() const;
};

// How rows become codes where it is not the kernel's own way: 8 bits and a scale per 32. Or numbers, with
// e4m3.
struct Rounding {
  float levels;  // 127, or 7 for codes of 4 bits
  bool scale_per_row;
  bool own;   // none of the above asked for
  bool e4m3;  // compute e4m3: values are rounded (round_e4m3.h)
};
Rounding rounding_of(const bl_matmul_args& args);

// Packs the rows of `input` into `memory` (plan.total() bytes, aligned to 64). Of prepared activations only
// the sums that belong to the format are made; the rest stays where it is.
Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run, const Input& input, const Rounding& rounding,
                             uint8_t* memory);

// The same for algorithm tile. Row i of the result is row rows[i] of `input`, i < count.
// i8: rows that int8 does not suit (kTileWorstError of tile.h) are left out, unless the caller says how they
// are rounded. On return rows names the rows that are packed, in the order of the result, then those that are
// not.
struct TileActivations {
  Activations a;
  int64_t count;  // packed
};
TileActivations pack_tile_activations(const MatmulKernelRow& kernel, const PanelFormat& f,
                                      const ActivationsPlan& plan, const bl_run& run, const Input& input,
                                      const Rounding& rounding, int64_t* rows, int64_t count,
                                      uint8_t* memory);

// Quantizes x [count] to codes with one scale: scale = largest / levels, code = x * (levels / largest) to
// nearest even; scale NaN and codes 0 if a value is not finite. For 32 values and 127 levels the same as a
// kernel's pack.
float quantize_group(const RowKernels& rows, const float* x, int64_t count, float levels, int8_t* codes);

}  // namespace bitloom
