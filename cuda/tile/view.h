// Tensors as kernels get them: rows along the last axis, the axes before it counted together. Shared by host
// and device; plain C++17.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

constexpr int kMaxOuterAxes = 5;  // BL_MAX_RANK - 1

// The rows that all operands of a call have in common.
struct RowSpace {
  int64_t count;   // rows
  int64_t length;  // elements of a row
  int32_t outer_rank;
  int32_t wide;  // 1: every operand's rows are contiguous, at multiples of 16 bytes and a multiple of 8 long
  int64_t outer_shape[kMaxOuterAxes];
};

struct Operand {
  void* data;                            // device memory, or null: not given
  int64_t stride;                        // within a row, in elements
  int64_t outer_strides[kMaxOuterAxes];  // in elements; 0 where the operand repeats
  int32_t dtype;                         // bl_dtype
  int32_t reserved;
};

}  // namespace bitloom::cuda
