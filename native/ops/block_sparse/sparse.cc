// sdd, dsd, dds: products with a block-sparse matrix. Lines of blocks that are alike (in a mixture of experts
// all row blocks of an expert) are one product: its operands are gathered from pieces, and each is read once.
#include <cstring>
#include <new>

#include "../../base/backend.h"
#include "../../base/thread_pool.h"
#include "dense.h"
#include "topology.h"

namespace bitloom {

namespace {

// The values of blocks.
struct Values {
  uint8_t* data;
  int64_t block, row, column;  // strides in bytes, elements, elements
  Values(const bl_tensor& tensor, bool transpose)
      : data(static_cast<uint8_t*>(tensor.data)),
        block(tensor.strides[0] * dtype_bytes(tensor.dtype)),
        row(tensor.strides[transpose ? 2 : 1]),
        column(tensor.strides[transpose ? 1 : 2]) {}
};

// Lines [begin, end) that are alike.
struct Strip {
  const Lines& lines;
  const Lines& others;
  int64_t begin, end;

  int64_t start() const { return lines.starts[static_cast<size_t>(begin)]; }
  int64_t extent() const { return lines.starts[static_cast<size_t>(end)] - start(); }
  int64_t blocks() const {
    return lines.offsets[static_cast<size_t>(begin + 1)] - lines.offsets[static_cast<size_t>(begin)];
  }
  // The i-th line of the other direction that a line of the strip meets, and the block there.
  int64_t other(int64_t i) const {
    return lines.others[static_cast<size_t>(lines.offsets[static_cast<size_t>(begin)] + i)];
  }
  int64_t block(int64_t line, int64_t i) const {
    return lines.blocks[static_cast<size_t>(lines.offsets[static_cast<size_t>(line)] + i)];
  }
  // Of all those lines together.
  int64_t other_extent() const {
    int64_t sum = 0;
    for (int64_t i = 0; i < blocks(); ++i) sum += others.size(other(i));
    return sum;
  }
};

// body(strip) for the strips of `lines` in order.
template <typename Body>
void for_each_strip(const Lines& lines, const Lines& others, const Body& body) {
  for (int64_t line = 0; line < lines.count();) {
    const Strip strip{lines, others, line, lines.strip_end(line)};
    body(strip);
    line = strip.end;
  }
}

// The blocks of a strip as a matrix whose rows are those of its lines.
Matrix gather_blocks(const Strip& strip, const Values& values, Products* products) {
  products->begin();
  for (int64_t line = strip.begin, row = 0; line < strip.end; row += strip.lines.size(line++)) {
    for (int64_t i = 0, column = 0; i < strip.blocks(); column += strip.others.size(strip.other(i++))) {
      products->add({values.data + strip.block(line, i) * values.block, values.row, values.column, row,
                     column, strip.lines.size(line), strip.others.size(strip.other(i))});
    }
  }
  return products->end();
}

// All `size` rows of a matrix [size, ...], and of its columns those that the strip meets; element [i, j] at
// data + i * row_stride + j * column_stride. `by_rows`: the roles of both exchanged. Neighbours become one
// piece.
Matrix gather_dense(const Strip& strip, const Dense& dense, int64_t size, bool by_rows, Products* products) {
  products->begin();
  int64_t place = 0;
  for (int64_t i = 0; i < strip.blocks() && size > 0;) {
    const int64_t start = strip.others.starts[static_cast<size_t>(strip.other(i))];
    int64_t length = strip.others.size(strip.other(i++));
    while (i < strip.blocks() && strip.others.starts[static_cast<size_t>(strip.other(i))] == start + length) {
      length += strip.others.size(strip.other(i++));
    }
    if (length == 0) continue;
    if (by_rows) {
      products->add({dense.at(start, 0), dense.row_stride, dense.column_stride, place, 0, length, size});
    } else {
      products->add({dense.at(0, start), dense.row_stride, dense.column_stride, 0, place, size, length});
    }
    place += length;
  }
  return products->end();
}

// c [m, n] is sparse.
void plan_sdd(const bl_block_sparse_args& args, const Topology& t, Products* products) {
  const Dense a(args.a, args.transpose_a != 0), b(args.b, args.transpose_b == 0);  // b [n, k]
  const Values values(args.c, false);
  for_each_strip(t.rows, t.columns, [&](const Strip& strip) {
    Product product{strip.extent(), strip.other_extent(), a.columns, {}, {}, {}};
    if (product.m == 0 || product.n == 0) return;
    product.a = products->whole(a.at(strip.start(), 0), a.row_stride, a.column_stride, product.m, product.k);
    product.b = gather_dense(strip, b, product.k, true, products);
    product.c = gather_blocks(strip, values, products);
    products->list.push_back(product);
  });
}

// Zeros where no strip stands.
void add_zeros(const Dense& c, int64_t row, int64_t column, Products* products) {
  Product product{c.rows - row, c.columns - column, 0, {}, {}, {}};
  if (product.m == 0 || product.n == 0) return;
  product.c = products->whole(c.at(row, column), c.row_stride, c.column_stride, product.m, product.n);
  products->list.push_back(product);
}

void plan_dsd(const bl_block_sparse_args& args, const Topology& t, Products* products) {
  const bool across = args.transpose_a != 0;
  const Values values(args.a, across);
  const Dense b(args.b, args.transpose_b == 0), c(args.c, false);
  const Lines &lines = across ? t.columns : t.rows, &others = across ? t.rows : t.columns;
  for_each_strip(lines, others, [&](const Strip& strip) {
    Product product{strip.extent(), c.columns, strip.other_extent(), {}, {}, {}};
    if (product.m == 0) return;
    product.a = gather_blocks(strip, values, products);
    product.b = gather_dense(strip, b, product.n, false, products);
    product.c = products->whole(c.at(strip.start(), 0), c.row_stride, c.column_stride, product.m, product.n);
    products->list.push_back(product);
  });
  add_zeros(c, lines.extent(), 0, products);
}

void plan_dds(const bl_block_sparse_args& args, const Topology& t, Products* products) {
  const bool across = args.transpose_b == 0;  // the columns of op(b) are lines
  const Values values(args.b, across);
  const Dense a(args.a, args.transpose_a != 0), c(args.c, false);
  const Lines &lines = across ? t.columns : t.rows, &others = across ? t.rows : t.columns;
  for_each_strip(lines, others, [&](const Strip& strip) {
    Product product{c.rows, strip.extent(), strip.other_extent(), {}, {}, {}};
    if (product.n == 0) return;
    product.a = gather_dense(strip, a, product.m, false, products);
    product.b = gather_blocks(strip, values, products);
    product.c = products->whole(c.at(0, strip.start()), c.row_stride, c.column_stride, product.m, product.n);
    products->list.push_back(product);
  });
  add_zeros(c, 0, lines.extent(), products);
}

enum class Kind { sdd, dsd, dds };
constexpr const char* kNames[] = {"sdd", "dsd", "dds"};

bl_status validate(Kind kind, const bl_block_sparse_args& args, bl_error* error) {
  const char* op = kNames[static_cast<int>(kind)];
  const auto rank = [kind](Kind sparse) { return kind == sparse ? 3 : 2; };
  BL_RETURN_IF_ERROR(check_tensor({op, "a"}, args.a, kFloatTypes, rank(Kind::dsd), rank(Kind::dsd), error));
  BL_RETURN_IF_ERROR(check_tensor({op, "b"}, args.b, kFloatTypes, rank(Kind::dds), rank(Kind::dds), error));
  BL_RETURN_IF_ERROR(check_output({op, "c"}, args.c, kFloatTypes, rank(Kind::sdd), rank(Kind::sdd), error));
  for (const int32_t flag : {args.transpose_a, args.transpose_b}) {
    BL_CHECK(flag == 0 || flag == 1, invalid_argument, "%s: transpose is %d, expected 0 or 1", op, flag);
  }
  const bl_topology& t = args.topology;
  const bl_tensor* indices[] = {&t.row_starts,  &t.column_starts,     &t.offsets,          &t.column_indices,
                                &t.row_indices, &t.transpose_offsets, &t.transpose_indices};
  for (const bl_tensor* tensor : indices) {
    BL_RETURN_IF_ERROR(check_apart({op, "c"}, args.c, "topology", tensor->data, tensor->bytes, error));
  }
  return check_product(op, args.a, args.b, args.c, args.compute, error);
}

bl_status check_extent(const char* op, const char* name, int axis, int64_t size, int64_t least,
                       const char* what, bl_error* error) {
  BL_CHECK(size >= least, invalid_shape, "%s: %s.shape[%d] is %lld, expected at least %lld (%s of topology)",
           op, name, axis, static_cast<long long>(size), static_cast<long long>(least), what);
  return BL_STATUS_ok;
}
bl_status check_equal(const char* op, const char* name, int axis, int64_t size, int64_t expected,
                      const char* other, int other_axis, bl_error* error) {
  BL_CHECK(size == expected, invalid_shape, "%s: %s.shape[%d] is %lld, expected %lld (= %s.shape[%d])", op,
           name, axis, static_cast<long long>(size), static_cast<long long>(expected), other, other_axis);
  return BL_STATUS_ok;
}

// Dense matrices may be larger than the topology: there the sparse one has nothing.
bl_status check_extents(Kind kind, const bl_block_sparse_args& args, const Topology& t, bl_error* error) {
  const char* op = kNames[static_cast<int>(kind)];
  const int a0 = args.transpose_a != 0 ? 1 : 0, a1 = 1 - a0, b0 = args.transpose_b != 0 ? 1 : 0, b1 = 1 - b0;
  const int64_t rows = t.rows.extent(), columns = t.columns.extent();
  if (kind == Kind::sdd) {
    BL_RETURN_IF_ERROR(check_extent(op, "a", a0, args.a.shape[a0], rows, "rows", error));
    BL_RETURN_IF_ERROR(check_extent(op, "b", b1, args.b.shape[b1], columns, "columns", error));
    return check_equal(op, "b", b0, args.b.shape[b0], args.a.shape[a1], "a", a1, error);
  }
  if (kind == Kind::dsd) {
    const bool across = args.transpose_a != 0;
    BL_RETURN_IF_ERROR(check_extent(op, "b", b0, args.b.shape[b0], across ? rows : columns,
                                    across ? "rows" : "columns", error));
    BL_RETURN_IF_ERROR(check_extent(op, "c", 0, args.c.shape[0], across ? columns : rows,
                                    across ? "columns" : "rows", error));
    return check_equal(op, "c", 1, args.c.shape[1], args.b.shape[b1], "b", b1, error);
  }
  const bool across = args.transpose_b != 0;
  BL_RETURN_IF_ERROR(check_extent(op, "a", a1, args.a.shape[a1], across ? columns : rows,
                                  across ? "columns" : "rows", error));
  BL_RETURN_IF_ERROR(
      check_extent(op, "c", 1, args.c.shape[1], across ? rows : columns, across ? "rows" : "columns", error));
  return check_equal(op, "c", 0, args.c.shape[0], args.a.shape[a0], "a", a0, error);
}

// Blocks that their rows and columns do not fill.
void zero_ragged(const bl_tensor& values, const Topology& t) {
  const int64_t bytes = dtype_bytes(values.dtype);
  for (int64_t r = 0; r < t.rows.count(); ++r) {
    for (int32_t i = t.rows.offsets[static_cast<size_t>(r)]; i < t.rows.offsets[static_cast<size_t>(r + 1)];
         ++i) {
      if (t.rows.size(r) == t.block_size &&
          t.columns.size(t.rows.others[static_cast<size_t>(i)]) == t.block_size) {
        continue;
      }
      uint8_t* block = static_cast<uint8_t*>(values.data) + i * values.strides[0] * bytes;
      for (int64_t row = 0; row < t.block_size; ++row) {
        for (int64_t column = 0; column < t.block_size; ++column) {
          std::memset(block + (row * values.strides[1] + column * values.strides[2]) * bytes, 0,
                      static_cast<size_t>(bytes));
        }
      }
    }
  }
}

bl_status run_sparse(Kind kind, const bl_block_sparse_args& args, bl_error* error) {
  const bl_tensor& values = kind == Kind::sdd ? args.c : kind == Kind::dsd ? args.a : args.b;
  const char* op = kNames[static_cast<int>(kind)];
  const char* name = kind == Kind::sdd ? "c" : "values";
  Topology t;
  BL_RETURN_IF_ERROR(read_topology(op, args.topology, name, values, &t, error));
  BL_RETURN_IF_ERROR(check_extents(kind, args, t, error));
  Products products{args.a.dtype, args.b.dtype, args.c.dtype, args.compute};
  (kind == Kind::sdd ? plan_sdd : kind == Kind::dsd ? plan_dsd : plan_dds)(args, t, &products);
  if (kind == Kind::sdd) zero_ragged(values, t);
  return run_products(op, args.run, products, error);
}

bl_status run_checked(Kind kind, const bl_block_sparse_args& args, bl_error* error) {
  try {
    return run_sparse(kind, args, error);
  } catch (const std::bad_alloc&) {
    return fail(error, BL_STATUS_out_of_memory, "%s: cannot allocate the list of blocks",
                kNames[static_cast<int>(kind)]);
  }
}

}  // namespace

}  // namespace bitloom

// An entry of the C ABI: each names its own argument struct, which all three share.
#define BL_ENTRY(name)                                      \
  using namespace bitloom;                                  \
  BL_READ_ARGS(bl_##name##_args, #name, checked);           \
  BL_RETURN_IF_ERROR(validate(Kind::name, checked, error)); \
  BL_RUN_ON_DEVICE(name, checked);                          \
  return run_checked(Kind::name, checked, error)

extern "C" bl_status bl_sdd(const bl_sdd_args* args, bl_error* error) { BL_ENTRY(sdd); }
extern "C" bl_status bl_dsd(const bl_dsd_args* args, bl_error* error) { BL_ENTRY(dsd); }
extern "C" bl_status bl_dds(const bl_dds_args* args, bl_error* error) { BL_ENTRY(dds); }
#undef BL_ENTRY
