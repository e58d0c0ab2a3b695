// Activations brought into the form that a kernel reads.
#pragma once

#include "../../base/tensor.h"
#include "input.h"
#include "kernel.h"
#include "row_kernels.h"

namespace bitloom {

// Sizes of the packed activations of m rows. Independent of N.
struct ActivationsPlan {
  int64_t m, stride;
  uint64_t values_bytes, halves_bytes, codes_bytes, scales_bytes, sums_bytes, signs_bytes, row_bytes;
  int64_t tasks;  // the packing's, each with two rows of its own to convert into

  ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, const Input& input);
  uint64_t total() const;
};

// How rows become codes where it is not the kernel's own way: 8 bits and a scale per 32.
struct Rounding {
  float levels;  // 127, or 7 for codes of 4 bits
  bool scale_per_row;
  bool own;  // none of the above asked for
};
Rounding rounding_of(const bl_matmul_args& args);

// Packs the rows of `input` into `memory` (plan.total() bytes, aligned to 64). *bad_row is set to a row of
// codes with one of -128, else left as it is.
Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run, const Input& input, const Rounding& rounding, uint8_t* memory,
                             int64_t* bad_row);

// Quantizes x [count] to codes with one scale: scale = largest / levels, code = x * (levels / largest) to
// nearest even; scale NaN and codes 0 if a value is not finite. For 32 values and 127 levels the same as a
// kernel's pack.
float quantize_group(const RowKernels& rows, const float* x, int64_t count, float levels, int8_t* codes);

}  // namespace bitloom
