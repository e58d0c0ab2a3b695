// A dense operand of a product.
#pragma once

#include <cstdint>
#include <utility>

#include "../../base/tensor.h"
#include "product.h"

namespace bitloom {

// op(tensor) of a matrix.
struct Dense {
  uint8_t* data;
  int32_t dtype;
  int64_t rows, columns;
  int64_t row_stride, column_stride;

  Dense(const bl_tensor& tensor, bool transpose)
      : data(static_cast<uint8_t*>(tensor.data)),
        dtype(tensor.dtype),
        rows(tensor.shape[tensor.rank - 2]),
        columns(tensor.shape[tensor.rank - 1]),
        row_stride(tensor.strides[tensor.rank - 2]),
        column_stride(tensor.strides[tensor.rank - 1]) {
    if (transpose) {
      std::swap(rows, columns);
      std::swap(row_stride, column_stride);
    }
  }
  uint8_t* at(int64_t row, int64_t column) const {
    // No address is made of a tensor without elements: its data may be null.
    if (data == nullptr) return nullptr;
    return data + (row * row_stride + column * column_stride) * dtype_bytes(dtype);
  }
};

// Checks that all products share: compute, and that c lies apart from a and b.
inline bl_status check_product(const char* op, const bl_tensor& a, const bl_tensor& b, const bl_tensor& c,
                               int32_t compute, bl_error* error) {
  BL_CHECK(compute == BL_COMPUTE_f32 || compute == BL_COMPUTE_bf16, invalid_argument,
           "%s: compute is %d, expected f32 or bf16", op, compute);
  BL_RETURN_IF_ERROR(check_apart({op, "c"}, c, "a", a.data, a.bytes, error));
  return check_apart({op, "c"}, c, "b", b.data, b.bytes, error);
}

}  // namespace bitloom
