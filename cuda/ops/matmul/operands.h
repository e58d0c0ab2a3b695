// Host side: the tensors of a call as kernels take them.
#pragma once

#include "../../../native/base/error.h"
#include "../../../native/base/tensor.h"
#include "config.h"

namespace bitloom::cuda::gemm {

// A tensor as rows of its last axis, those of one matrix of a stack.
struct Matrix {
  void* data = nullptr;
  int64_t rows = 1, columns = 1;
  int64_t row = 0, column = 0;  // strides in elements
  int32_t dtype = 0;
};

// The `batch`-th matrix of a stack (axis 0 of the tensor, where batches is above 0), else the whole tensor.
// Unsupported if its leading axes do not lie behind one another, or elements not at multiples of their size.
bl_status read_matrix(const char* name, const bl_tensor& tensor, int64_t batches, int64_t batch, Matrix* out,
                      bl_error* error);

// Columns of a tensor of scales that has one per row ([..., M]) or several.
bl_status read_scales(const char* name, const bl_tensor& tensor, int32_t rank_of_rows, int64_t batches,
                      int64_t batch, Matrix* out, bl_error* error);

// A low-rank matrix of the `batch`-th product, or of the first adapter where rows choose theirs: the next
// begins `stride` elements on.
bl_status read_adapters(const char* name, const bl_tensor& tensor, const bl_matmul_args& args, int64_t batch,
                        Matrix* out, int64_t* stride, bl_error* error);

// How m rows of a become rows of k columns, as b has them: everything of `out` but what is written.
bl_status plan_rows(const bl_matmul_args& args, int64_t batch, const Matrix& a, int32_t m, int32_t k,
                    PrepareParams* out, bl_error* error);

inline bool is_gated(const bl_matmul_args& args) {
  return args.activation == BL_ACTIVATION_swiglu || args.activation == BL_ACTIVATION_geglu;
}

// What products of these arguments cannot do yet, before anything is written. integers: they are of int8.
bl_status check_supported(const bl_matmul_args& args, bool integers, bl_error* error);

// The epilogue of a matrix of the stack; n: rows of b in it. `low`, `row_factors` and `header` are left null.
bl_status plan_epilogue(const bl_matmul_args& args, int64_t batch, int64_t n, Epilogue* out, bl_error* error);

// Whether an output needs more than its own product, or a group of outputs.
bool needs_finish(const bl_matmul_args& args);

}  // namespace bitloom::cuda::gemm
