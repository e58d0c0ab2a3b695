// grouped_matmul: a product per expert, of the rows that its offsets name.
#include <new>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../include/bitloom_block_sparse.h"
#include "dense.h"

namespace bitloom {

namespace {

constexpr const char* kOp = "grouped_matmul";

bl_status validate_shapes(const bl_grouped_matmul_args& args, bl_error* error) {
  const bool outer = args.kind == BL_GROUPED_outer;
  const int weights = 3, rows = 2;
  BL_RETURN_IF_ERROR(check_tensor({kOp, "a"}, args.a, kFloatTypes, rows, rows, error));
  BL_RETURN_IF_ERROR(
      check_tensor({kOp, "b"}, args.b, kFloatTypes, outer ? rows : weights, outer ? rows : weights, error));
  BL_RETURN_IF_ERROR(
      check_output({kOp, "c"}, args.c, kFloatTypes, outer ? weights : rows, outer ? weights : rows, error));
  BL_RETURN_IF_ERROR(check_tensor({kOp, "offsets"}, args.offsets, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  BL_CHECK(is_contiguous(args.offsets), invalid_shape, "%s: offsets.strides[0] is %lld, expected 1", kOp,
           static_cast<long long>(args.offsets.strides[0]));
  BL_CHECK(args.offsets.shape[0] >= 1, invalid_shape, "%s: offsets.shape[0] is 0, expected at least 1", kOp);
  const int64_t experts = args.offsets.shape[0] - 1;
  if (outer) {
    BL_RETURN_IF_ERROR(check_dim({kOp, "b"}, args.b, 0, args.a.shape[0], "a.shape[0]", error));
    BL_RETURN_IF_ERROR(check_dim({kOp, "c"}, args.c, 0, experts, "offsets.shape[0] - 1", error));
    BL_RETURN_IF_ERROR(check_dim({kOp, "c"}, args.c, 1, args.a.shape[1], "a.shape[1]", error));
    return check_dim({kOp, "c"}, args.c, 2, args.b.shape[1], "b.shape[1]", error);
  }
  const int k_axis = args.transpose_b != 0 ? 1 : 2;
  BL_RETURN_IF_ERROR(check_dim({kOp, "b"}, args.b, 0, experts, "offsets.shape[0] - 1", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "b"}, args.b, k_axis, args.a.shape[1], "a.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "c"}, args.c, 0, args.a.shape[0], "a.shape[0]", error));
  return check_dim({kOp, "c"}, args.c, 1, args.b.shape[3 - k_axis], k_axis == 2 ? "b.shape[1]" : "b.shape[2]",
                   error);
}

bl_status validate(const bl_grouped_matmul_args& args, bl_error* error) {
  BL_CHECK(args.kind >= BL_GROUPED_rows && args.kind <= BL_GROUPED_outer, invalid_argument,
           "%s: kind is %d, expected 0 or 1", kOp, args.kind);
  BL_CHECK(args.transpose_b == 0 || (args.transpose_b == 1 && args.kind == BL_GROUPED_rows), invalid_argument,
           "%s: transpose_b is %d, expected 0%s", kOp, args.transpose_b,
           args.kind == BL_GROUPED_rows ? " or 1" : "");
  BL_RETURN_IF_ERROR(validate_shapes(args, error));
  BL_RETURN_IF_ERROR(
      check_apart({kOp, "c"}, args.c, "offsets", args.offsets.data, args.offsets.bytes, error));
  return check_product(kOp, args.a, args.b, args.c, args.compute, error);
}

bl_status read_offsets(const bl_grouped_matmul_args& args, std::vector<int64_t>* offsets, bl_error* error) {
  const uint8_t* data = static_cast<const uint8_t*>(args.offsets.data);
  const int64_t rows = args.a.shape[0];
  int64_t least = 0;
  for (int64_t e = 0; e < args.offsets.shape[0]; ++e) {
    const int64_t offset = load_as<int32_t>(data + 4 * e);
    BL_CHECK(offset >= least && offset <= rows, out_of_range,
             "%s: offsets[%lld] is %lld, expected %lld to %lld", kOp, static_cast<long long>(e),
             static_cast<long long>(offset), static_cast<long long>(least), static_cast<long long>(rows));
    offsets->push_back(offset);
    least = offset;
  }
  return BL_STATUS_ok;
}

// Zeros in rows [begin, end) of c.
void add_zeros(const Dense& c, int64_t begin, int64_t end, Products* products) {
  if (begin == end) return;
  Product product{end - begin, c.columns, 0, {}, {}, {}};
  product.c = products->whole(c.at(begin, 0), c.row_stride, c.column_stride, product.m, product.n);
  products->list.push_back(product);
}

void plan_rows(const bl_grouped_matmul_args& args, const std::vector<int64_t>& offsets, Products* products) {
  const Dense a(args.a, false), b(args.b, args.transpose_b != 0), c(args.c, false);
  const int64_t step = args.b.strides[0] * dtype_bytes(b.dtype);
  add_zeros(c, 0, offsets.front(), products);
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    const int64_t begin = offsets[e];
    Product product{offsets[e + 1] - begin, c.columns, a.columns, {}, {}, {}};
    if (product.m == 0) continue;
    product.a = products->whole(a.at(begin, 0), a.row_stride, a.column_stride, product.m, product.k);
    uint8_t* weights = b.data == nullptr ? nullptr : b.data + static_cast<int64_t>(e) * step;
    product.b = products->whole(weights, b.row_stride, b.column_stride, product.n, product.k);
    product.c = products->whole(c.at(begin, 0), c.row_stride, c.column_stride, product.m, product.n);
    products->list.push_back(product);
  }
  add_zeros(c, offsets.back(), c.rows, products);
}

void plan_outer(const bl_grouped_matmul_args& args, const std::vector<int64_t>& offsets, Products* products) {
  const Dense a(args.a, true), b(args.b, true), c(args.c, false);
  const int64_t step = args.c.strides[0] * dtype_bytes(c.dtype);
  for (size_t e = 0; e + 1 < offsets.size(); ++e) {
    const int64_t begin = offsets[e];
    Product product{c.rows, c.columns, offsets[e + 1] - begin, {}, {}, {}};
    product.a = products->whole(a.at(0, begin), a.row_stride, a.column_stride, product.m, product.k);
    product.b = products->whole(b.at(0, begin), b.row_stride, b.column_stride, product.n, product.k);
    uint8_t* gradient = c.data == nullptr ? nullptr : c.data + static_cast<int64_t>(e) * step;
    product.c = products->whole(gradient, c.row_stride, c.column_stride, product.m, product.n);
    products->list.push_back(product);
  }
}

bl_status run_grouped(const bl_grouped_matmul_args& args, bl_error* error) {
  std::vector<int64_t> offsets;
  BL_RETURN_IF_ERROR(read_offsets(args, &offsets, error));
  Products products{args.a.dtype, args.b.dtype, args.c.dtype, args.compute};
  (args.kind == BL_GROUPED_rows ? plan_rows : plan_outer)(args, offsets, &products);
  return run_products(kOp, args.run, products, error);
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_grouped_matmul(const bl_grouped_matmul_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_grouped_matmul_args, "grouped_matmul", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(grouped_matmul, checked);
  try {
    return run_grouped(checked, error);
  } catch (const std::bad_alloc&) {
    return fail(error, BL_STATUS_out_of_memory, "%s: cannot allocate the list of products", kOp);
  }
}
