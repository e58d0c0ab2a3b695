// Host side: tensors of one shape as rows for kernels (tile/view.h).
#pragma once

#include <cstdint>
#include <initializer_list>

#include "../../native/base/error.h"
#include "../../native/base/tensor.h"
#include "../driver/queue.h"
#include "../tile/view.h"

namespace bitloom::cuda {

// Blocks are at most so many in y and z.
constexpr int64_t kMaxGridY = 65535;

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Elements at multiples of their size: what a GPU can load. Other views are for the CPU only.
bl_status check_element_alignment(const char* op, const char* name, const bl_tensor& tensor, bl_error* error);

// An operand of a call: `view` has the shape of all others (repeated axes have stride 0).
struct NamedView {
  const char* name;
  bl_tensor view;
};

// Joins neighbouring axes that lie behind one another in all views; with `whole` the last one too, so that
// contiguous tensors become one row, else the last axis stays the row. A view without data becomes an empty
// operand. rank 0 is one row of one element. Rows must be fewer than 2^31, and every view's elements at
// multiples of their size, else BL_STATUS_unsupported.
bl_status plan_rows(const char* op, const NamedView* views, int count, bool whole, RowSpace* rows,
                    Operand* operands, bl_error* error);

// A vector [length], contiguous or data null, that every row uses.
Operand vector_operand(const bl_tensor& vector);
// Whether a kernel may load 8 elements at once from any multiple of 8.
bool is_wide(const Operand& operand, int32_t outer_rank);

}  // namespace bitloom::cuda
