// Host side: products of int8 activations and integer weights (compute i8), and those of e4m3 (compute e4m3)
// where a device has them.
#pragma once

#include "../../driver/queue.h"
#include "config_i8.h"
#include "operands.h"
#include "weights.h"

namespace bitloom::cuda::gemm {

// A call's products in int8 or e4m3: which numbers, which kernels.
struct IntegerPlan {
  const char*
      codes;  // "c4": a row of kernels_i8.inc; "fp8_c4": of kernels_fp8.inc; null: there are no such products
  bool fp8;
  bool centred;  // of the kernel's codes
  Steps steps;
  bool scale_per_row;
  float levels, zero;
  int32_t value_shift, bits;
  float factor;  // of scales
};

IntegerPlan plan_integers(const bl_matmul_args& args);
IntegerPlan plan_fp8(const Queue& queue, const bl_matmul_args& args);

// Launches them for one matrix of the stack. `weights`: its own. Of `epilogue`, header and row_factors are
// set here. On return partial sums of `splits` are in `partial`, if it was allocated, for the finish kernel.
bl_status run_integers(Queue& queue, const bl_matmul_args& args, const IntegerPlan& plan, int64_t batch,
                       const Matrix& a, const FragmentWeights& weights, bool finishes, ProductParams* product,
                       Scratch& partial, Scratch& rows, Scratch& sides, bl_error* error);

}  // namespace bitloom::cuda::gemm
