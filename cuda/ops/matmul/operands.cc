#include "operands.h"

namespace bitloom::cuda::gemm {
namespace {

using ll = long long;

bl_status check_alignment(const char* name, const void* data, int32_t dtype, bl_error* error) {
  const int64_t bytes = dtype_bytes(dtype);
  BL_CHECK(reinterpret_cast<uintptr_t>(data) % static_cast<uintptr_t>(bytes) == 0, unsupported,
           "matmul: %s.data is not at a multiple of %lld bytes, which it must be on device", name,
           static_cast<ll>(bytes));
  return BL_STATUS_ok;
}

template <typename T>
const T* part(const bl_tensor& tensor, int64_t offset) {
  return tensor.data == nullptr ? nullptr : static_cast<const T*>(tensor.data) + offset;
}

}  // namespace

bl_status read_matrix(const char* name, const bl_tensor& tensor, int64_t batches, int64_t batch, Matrix* out,
                      bl_error* error) {
  if (tensor.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_alignment(name, tensor.data, tensor.dtype, error));
  const int first = batches > 0 ? 1 : 0;  // the stack's axis is taken apart
  out->dtype = tensor.dtype;
  out->columns = tensor.shape[tensor.rank - 1];
  out->column = tensor.strides[tensor.rank - 1];
  out->rows = 1;
  out->row = 0;
  for (int axis = tensor.rank - 2; axis >= first; --axis) {
    const int64_t size = tensor.shape[axis], stride = tensor.strides[axis];
    if (size == 1) continue;
    BL_CHECK(out->rows == 1 || stride == out->rows * out->row, unsupported,
             "matmul: %s.strides[%d] is %lld on device, expected %lld: leading axes behind one another", name,
             axis, static_cast<ll>(stride), static_cast<ll>(out->rows * out->row));
    if (out->rows == 1) out->row = stride;
    out->rows *= size;
  }
  const int64_t offset = batches > 0 ? batch * tensor.strides[0] : 0;
  out->data = static_cast<char*>(tensor.data) + offset * dtype_bytes(tensor.dtype);
  return BL_STATUS_ok;
}

bl_status read_scales(const char* name, const bl_tensor& tensor, int32_t rank_of_rows, int64_t batches,
                      int64_t batch, Matrix* out, bl_error* error) {
  bl_tensor scales = tensor;
  if (tensor.data != nullptr && tensor.rank + 1 == rank_of_rows) {
    scales.shape[scales.rank] = 1;
    scales.strides[scales.rank++] = 0;
  }
  return read_matrix(name, scales, batches, batch, out, error);
}

bl_status read_adapters(const char* name, const bl_tensor& tensor, const bl_matmul_args& args, int64_t batch,
                        Matrix* out, int64_t* stride, bl_error* error) {
  *stride = 0;
  if (args.low_rank_ids.data == nullptr) return read_matrix(name, tensor, args.batch, batch, out, error);
  const bool several = tensor.rank == 3;
  if (several) *stride = tensor.strides[0];
  return read_matrix(name, tensor, several ? tensor.shape[0] : 0, 0, out, error);
}

bl_status plan_rows(const bl_matmul_args& args, int64_t batch, const Matrix& a, int32_t m, int32_t k,
                    PrepareParams* out, bl_error* error) {
  Matrix scales;
  BL_RETURN_IF_ERROR(read_scales("a_scales", args.a_scales, args.a.rank, args.batch, batch, &scales, error));
  out->a = a.data;
  out->a_row = a.row;
  out->a_column = a.column;
  out->a_dtype = a.dtype;
  out->a_columns = static_cast<int32_t>(a.columns);
  out->m = m;
  out->k = k;
  out->a_scales = static_cast<const float*>(scales.data);
  out->scales_row = scales.row;
  out->scales_column = scales.column;
  out->scale_columns = args.a_scales.rank == args.a.rank ? 32 : 0;
  out->column_scale = static_cast<const float*>(args.column_scale.data);
  out->column_order = static_cast<const int32_t*>(args.column_order.data);
  return BL_STATUS_ok;
}

bl_status check_supported(const bl_matmul_args& args, bool integers, bl_error* error) {
  BL_CHECK(args.b.layout == BL_LAYOUT_fragments, unsupported,
           "matmul: b.layout is %d on device, expected 2 (fragments)", args.b.layout);
  BL_CHECK(args.prepared == nullptr, unsupported,
           "matmul: prepared is given on device, expected the activations");
  BL_CHECK(args.compute != BL_COMPUTE_i1, unsupported,
           "matmul: compute is 3 (i1), which is not there on device");
  const bool groups = integers || args.compute == BL_COMPUTE_e4m3;
  BL_CHECK(groups || (args.activation_bits != 4 && args.activation_group == 0), unsupported,
           "matmul: activation_bits and activation_group are given, which are not there on device for this "
           "format");
  BL_CHECK(args.algorithm == BL_ALGORITHM_auto || args.algorithm == BL_ALGORITHM_dequant, unsupported,
           "matmul: algorithm is %d on device, expected 0 (auto) or 2 (dequant)", args.algorithm);
  BL_CHECK(args.outlier_row_offsets.data == nullptr || args.a.dtype != BL_DTYPE_i8, unsupported,
           "matmul: outliers are given with a of i8, which is not there on device");
  const int64_t limit = int64_t{1} << 30;
  BL_CHECK(args.b.rows < limit && args.b.cols < limit && element_count(args.c) < (int64_t{1} << 40),
           unsupported, "matmul: b is %lld x %lld, too large for a call on device",
           static_cast<ll>(args.b.rows), static_cast<ll>(args.b.cols));
  BL_CHECK(reinterpret_cast<uintptr_t>(args.b.data) % 16 == 0, unsupported,
           "matmul: b.data is not at a multiple of 16 bytes, which it must be on device");
  return BL_STATUS_ok;
}

bool needs_finish(const bl_matmul_args& args) {
  return is_gated(args) || args.c.dtype == BL_DTYPE_i8 || args.low_rank_down.data != nullptr ||
         args.outlier_row_offsets.data != nullptr;
}

namespace {

void set(const Matrix& from, const void** data, int64_t* row, int64_t* column, int32_t* dtype) {
  *data = from.data;
  *row = from.row;
  *column = from.column;
  *dtype = from.dtype;
}

bl_status plan_additions(const bl_matmul_args& args, int64_t batch, int64_t n, Epilogue* out,
                         bl_error* error) {
  if (args.low_rank_down.data != nullptr) {
    bl_tensor up = args.low_rank_up;
    Matrix rows;
    BL_RETURN_IF_ERROR(
        check_alignment("low_rank_ids", args.low_rank_ids.data, args.low_rank_ids.dtype, error));
    BL_RETURN_IF_ERROR(read_adapters("low_rank_up", up, args, batch, &rows, &out->up_adapter, error));
    set(rows, &out->up, &out->up_row, &out->up_column, &out->up_dtype);
    out->low_ids = static_cast<const int32_t*>(args.low_rank_ids.data);
    out->adapters = out->low_ids != nullptr && up.rank == 3 ? static_cast<int32_t>(up.shape[0]) : 1;
    out->rank = static_cast<int32_t>(rows.columns);
    out->low_scale = args.low_rank_scale;
  }
  if (args.outlier_row_offsets.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_alignment("outlier_row_offsets", args.outlier_row_offsets.data, BL_DTYPE_i32, error));
    BL_RETURN_IF_ERROR(check_alignment("outlier_columns", args.outlier_columns.data, BL_DTYPE_i32, error));
    BL_RETURN_IF_ERROR(
        check_alignment("outlier_values", args.outlier_values.data, args.outlier_values.dtype, error));
    out->row_offsets = part<int32_t>(args.outlier_row_offsets, batch * n);
    out->columns = static_cast<const int32_t*>(args.outlier_columns.data);
    out->values = args.outlier_values.data;
    out->values_dtype = args.outlier_values.dtype;
    Matrix a;
    BL_RETURN_IF_ERROR(read_matrix("a", args.a, args.batch, batch, &a, error));
    set(a, &out->a, &out->a_row, &out->a_column, &out->a_dtype);
    out->a_columns = static_cast<int32_t>(a.columns);
    out->outliers = static_cast<int32_t>(args.outlier_values.shape[0]);
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status plan_epilogue(const bl_matmul_args& args, int64_t batch, int64_t n, Epilogue* out,
                        bl_error* error) {
  Matrix c, c_scales, addend, residual;
  BL_RETURN_IF_ERROR(read_matrix("c", args.c, args.batch, batch, &c, error));
  BL_RETURN_IF_ERROR(read_matrix("c_scales", args.c_scales, args.batch, batch, &c_scales, error));
  BL_RETURN_IF_ERROR(read_matrix("addend", args.addend, args.batch, batch, &addend, error));
  BL_RETURN_IF_ERROR(read_matrix("residual", args.residual, args.batch, batch, &residual, error));
  BL_RETURN_IF_ERROR(check_alignment("bias", args.bias.data, BL_DTYPE_f32, error));
  BL_RETURN_IF_ERROR(check_alignment("row_scale", args.row_scale.data, BL_DTYPE_f32, error));
  out->c = c.data;
  out->c_row = c.row;
  out->c_column = c.column;
  out->c_dtype = c.dtype;
  out->c_scales = c_scales.data;
  out->c_scales_row = c_scales.row;
  out->c_scales_column = c_scales.column;
  set(addend, &out->addend, &out->addend_row, &out->addend_column, &out->addend_dtype);
  set(residual, &out->residual, &out->residual_row, &out->residual_column, &out->residual_dtype);
  out->bias = part<float>(args.bias, batch * n);
  out->row_scale = part<float>(args.row_scale, batch * n);
  out->activation = args.activation;
  out->scale = (args.scale == 0 ? 1 : args.scale) * (args.b.tensor_scale == 0 ? 1 : args.b.tensor_scale);
  out->code_scale = args.c_scale != 0 ? 1.0f / args.c_scale : 0;
  out->gated_columns = is_gated(args) ? static_cast<int32_t>(n / 2) : 0;
  return plan_additions(args, batch, n, out, error);
}

}  // namespace bitloom::cuda::gemm
