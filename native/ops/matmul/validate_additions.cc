// The checks of what matmul adds to its products: low-rank terms, adapters, outliers.
#include <algorithm>
#include <cmath>

#include "../../base/float16.h"
#include "validate.h"

namespace bitloom {
namespace {

using ll = long long;

constexpr uint32_t kI32 = dtype_bit(BL_DTYPE_i32);

int64_t batches_of(const bl_matmul_args& args) { return std::max<int64_t>(args.batch, 1); }

bl_status check_low_rank(const bl_matmul_args& args, bl_error* error) {
  const bl_tensor &down = args.low_rank_down, &up = args.low_rank_up, &ids = args.low_rank_ids;
  if (down.data == nullptr && up.data == nullptr && ids.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "low_rank_down"}, down, kFloatTypes, 2, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "low_rank_up"}, up, kFloatTypes, down.rank, down.rank, error));
  const int first = down.rank - 2;
  const int64_t adapters = first == 0 ? 1 : down.shape[0];
  if (first == 1)
    BL_RETURN_IF_ERROR(
        check_dim({"matmul", "low_rank_up"}, up, 0, adapters, "low_rank_down.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({"matmul", "low_rank_down"}, down, first + 1, args.a.shape[args.a.rank - 1],
                               "a's columns", error));
  BL_RETURN_IF_ERROR(check_dim({"matmul", "low_rank_up"}, up, first, args.b.rows / batches_of(args),
                               args.batch > 0 ? "b.rows / batch" : "b.rows", error));
  BL_RETURN_IF_ERROR(check_dim({"matmul", "low_rank_up"}, up, first + 1, down.shape[first],
                               "the rank of low_rank_down", error));
  BL_CHECK(std::isfinite(args.low_rank_scale), non_finite,
           "matmul: low_rank_scale is %g, expected a finite number",
           static_cast<double>(args.low_rank_scale));
  if (ids.data != nullptr) {
    BL_CHECK(args.batch == 0, unsupported,
             "matmul: low_rank_ids is given with batch, where each matrix has its adapter");
    BL_RETURN_IF_ERROR(
        check_optional_vector({"matmul", "low_rank_ids"}, ids, kI32, Rows(args.a).count, "a's rows", error));
    if (args.run.device != 0) return BL_STATUS_ok;
    return check_indices("low_rank_ids", ids, -1, std::max<int64_t>(adapters, 0), error);
  }
  BL_CHECK(adapters == batches_of(args), invalid_shape,
           "matmul: low_rank_down.shape[0] is %lld, expected %lld (%s), or low_rank_ids",
           static_cast<ll>(adapters), static_cast<ll>(batches_of(args)),
           args.batch > 0 ? "= batch" : "one adapter");
  return BL_STATUS_ok;
}

bl_status check_outliers(const bl_matmul_args& args, bl_error* error) {
  const bl_tensor &offsets = args.outlier_row_offsets, &columns = args.outlier_columns,
                  &values = args.outlier_values;
  if (offsets.data == nullptr && columns.data == nullptr && values.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "outlier_row_offsets"}, offsets, kI32, 1, 1, error));
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "outlier_columns"}, columns, kI32, 1, 1, error));
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "outlier_values"}, values, kFloatTypes, 1, 1, error));
  BL_RETURN_IF_ERROR(check_optional_vector({"matmul", "outlier_row_offsets"}, offsets, kI32, args.b.rows + 1,
                                           "b.rows + 1", error));
  const int64_t nnz = values.shape[0];
  BL_CHECK(is_contiguous(values), invalid_shape, "matmul: outlier_values is not contiguous");
  if (nnz > 0) {
    BL_RETURN_IF_ERROR(check_optional_vector({"matmul", "outlier_columns"}, columns, kI32, nnz,
                                             "outlier_values.shape[0]", error));
  } else {
    BL_RETURN_IF_ERROR(
        check_dim({"matmul", "outlier_columns"}, columns, 0, 0, "outlier_values.shape[0]", error));
  }
  if (args.run.device != 0) return BL_STATUS_ok;  // a device's memory cannot be read here
  int32_t before = 0;
  for (int64_t n = 0; n <= args.b.rows; ++n) {
    const int32_t offset = load_as<int32_t>(static_cast<const uint8_t*>(offsets.data) + 4 * n);
    BL_CHECK(n == 0 ? offset == 0 : offset >= before, out_of_range,
             "matmul: outlier_row_offsets[%lld] is %d, expected %s%d", static_cast<ll>(n), offset,
             n == 0 ? "" : "at least ", before);
    before = offset;
  }
  BL_CHECK(before == nnz, out_of_range,
           "matmul: outlier_row_offsets[%lld] is %d, expected %lld (= outlier_values.shape[0])",
           static_cast<ll>(args.b.rows), before, static_cast<ll>(nnz));
  return check_indices("outlier_columns", columns, 0, args.a.shape[args.a.rank - 1], error);
}

}  // namespace

// Every index of a contiguous i32 vector in [least, limit).
bl_status check_indices(const char* name, const bl_tensor& tensor, int64_t least, int64_t limit,
                        bl_error* error) {
  const uint8_t* data = static_cast<const uint8_t*>(tensor.data);
  const int64_t count = element_count(tensor);
  int32_t smallest = 0, largest = static_cast<int32_t>(least);
  for (int64_t i = 0; i < count; ++i) {
    const int32_t index = load_as<int32_t>(data + 4 * i);
    smallest = std::min(smallest, index);
    largest = std::max(largest, index);
  }
  if (count == 0 || (smallest >= least && largest < limit && limit > 0)) return BL_STATUS_ok;
  int64_t bad = 0;
  while (bad + 1 < count && load_as<int32_t>(data + 4 * bad) >= least &&
         load_as<int32_t>(data + 4 * bad) < limit)
    ++bad;
  return fail(error, BL_STATUS_out_of_range, "matmul: %s[%lld] is %d, expected %lld to %lld", name,
              static_cast<ll>(bad), load_as<int32_t>(data + 4 * bad), static_cast<ll>(least),
              static_cast<ll>(limit) - 1);
}

bl_status check_additions(const bl_matmul_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_low_rank(args, error));
  return check_outliers(args, error);
}

}  // namespace bitloom
