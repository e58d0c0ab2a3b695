// moe_permute, moe_unpermute: rows of tokens to their experts and back. Memory-bound; the order is found
// serially (two passes over the routes), the rows are moved by all threads.
#include <algorithm>
#include <cstring>
#include <limits>
#include <new>
#include <vector>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../include/bitloom_block_sparse.h"

namespace bitloom {

namespace {

// Elements below which waking other threads costs more than it brings, and of a task.
constexpr int64_t kSerialElements = int64_t{1} << 15;
constexpr int64_t kTaskElements = int64_t{1} << 13;
constexpr int64_t kMaxBlock = 1 << 16;

int32_t integer_at(const bl_tensor& tensor, int64_t row, int64_t column) {
  return load_as<int32_t>(static_cast<const uint8_t*>(tensor.data) +
                          4 * (row * tensor.strides[0] + column * tensor.strides[1]));
}
void set_integer(const bl_tensor& tensor, int64_t row, int64_t column, int32_t value) {
  std::memcpy(static_cast<uint8_t*>(tensor.data) + 4 * (row * tensor.strides[0] + column * tensor.strides[1]),
              &value, 4);
}
float weight_at(const bl_tensor& weights, int64_t row, int64_t column) {
  return load_as<float>(static_cast<const uint8_t*>(weights.data) +
                        4 * (row * weights.strides[0] + column * weights.strides[1]));
}

// Calls body(first, last) for pieces of `rows` rows of `length` elements.
template <typename Body>
void for_rows(const bl_run& run_in, int64_t rows, int64_t length, const Body& body) {
  const int64_t elements = rows * length;
  bl_run run = run_in;
  if (elements < kSerialElements) run.threads = 1;
  const int64_t tasks = std::min(rows, (elements + kTaskElements - 1) / kTaskElements);
  if (length == 0) return;
  parallel_for(run, tasks, [&](int64_t task) { body(rows * task / tasks, rows * (task + 1) / tasks); });
}

bl_status check_vector(Argument argument, const bl_tensor& tensor, bl_error* error) {
  BL_RETURN_IF_ERROR(check_output(argument, tensor, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  BL_CHECK(is_contiguous(tensor), invalid_shape, "%s: %s.strides[0] is %lld, expected 1", argument.op,
           argument.name, static_cast<long long>(tensor.strides[0]));
  return BL_STATUS_ok;
}

// Each of outputs[0, count) lies apart from the ones before it and from the inputs.
struct Named {
  const char* name;
  const bl_tensor* tensor;
};
bl_status check_all_apart(const char* op, const Named* outputs, int count, const Named* inputs,
                          int input_count, bl_error* error) {
  for (int i = 0; i < count; ++i) {
    const Argument output{op, outputs[i].name};
    for (int j = 0; j < input_count + i; ++j) {
      const Named& other = j < input_count ? inputs[j] : outputs[j - input_count];
      if (other.tensor->data == nullptr) continue;
      BL_RETURN_IF_ERROR(check_apart(output, *outputs[i].tensor, other.name, other.tensor->data,
                                     other.tensor->bytes, error));
    }
  }
  return BL_STATUS_ok;
}

bl_status validate(const bl_moe_permute_args& args, bl_error* error) {
  const char* op = "moe_permute";
  const uint32_t integers = dtype_bit(BL_DTYPE_i32);
  BL_RETURN_IF_ERROR(check_tensor({op, "x"}, args.x, kFloatTypes, 2, 2, error));
  BL_RETURN_IF_ERROR(check_tensor({op, "indices"}, args.indices, integers, 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim({op, "indices"}, args.indices, 0, args.x.shape[0], "x.shape[0]", error));
  if (args.weights.data != nullptr) {
    BL_RETURN_IF_ERROR(check_tensor({op, "weights"}, args.weights, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_same_shape({op, "weights"}, args.weights, "indices", args.indices, error));
  }
  BL_RETURN_IF_ERROR(check_output({op, "rows"}, args.rows, dtype_bit(args.x.dtype), 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim({op, "rows"}, args.rows, 1, args.x.shape[1], "x.shape[1]", error));
  BL_RETURN_IF_ERROR(check_vector({op, "offsets"}, args.offsets, error));
  BL_CHECK(args.offsets.shape[0] >= 1, invalid_shape, "%s: offsets.shape[0] is 0, expected at least 1", op);
  BL_RETURN_IF_ERROR(check_vector({op, "order"}, args.order, error));
  BL_RETURN_IF_ERROR(check_dim({op, "order"}, args.order, 0, args.rows.shape[0], "rows.shape[0]", error));
  BL_RETURN_IF_ERROR(check_output({op, "inverse"}, args.inverse, integers, 2, 2, error));
  BL_RETURN_IF_ERROR(check_same_shape({op, "inverse"}, args.inverse, "indices", args.indices, error));
  BL_CHECK(args.block_size >= 0 && args.block_size <= kMaxBlock, out_of_range,
           "%s: block_size is %d, expected 1 to %lld", op, args.block_size,
           static_cast<long long>(kMaxBlock));
  const int64_t routes = args.indices.shape[0] * args.indices.shape[1];
  BL_CHECK(std::max(routes, args.rows.shape[0]) <= std::numeric_limits<int32_t>::max(), out_of_range,
           "%s: there are %lld routes, expected at most 2147483647", op, static_cast<long long>(routes));
  const Named outputs[] = {
      {"rows", &args.rows}, {"offsets", &args.offsets}, {"order", &args.order}, {"inverse", &args.inverse}};
  const Named inputs[] = {{"x", &args.x}, {"indices", &args.indices}, {"weights", &args.weights}};
  return check_all_apart(op, outputs, 4, inputs, 3, error);
}

// Where the rows of each expert begin: [experts + 1]. Indices are copied, so that they can not change
// meanwhile.
bl_status count_routes(const bl_moe_permute_args& args, std::vector<int32_t>* indices,
                       std::vector<int64_t>* offsets, bl_error* error) {
  const int64_t experts = args.offsets.shape[0] - 1, top_k = args.indices.shape[1];
  offsets->assign(static_cast<size_t>(experts + 1), 0);
  indices->reserve(static_cast<size_t>(args.indices.shape[0] * top_k));
  for (int64_t t = 0; t < args.indices.shape[0]; ++t) {
    for (int64_t s = 0; s < top_k; ++s) {
      const int32_t e = integer_at(args.indices, t, s);
      BL_CHECK(e >= -1 && e < experts, out_of_range,
               "moe_permute: indices[%lld, %lld] is %d, expected -1 to %lld (experts - 1)",
               static_cast<long long>(t), static_cast<long long>(s), e, static_cast<long long>(experts - 1));
      indices->push_back(e);
      if (e >= 0) ++(*offsets)[static_cast<size_t>(e) + 1];
    }
  }
  const int64_t block = std::max(args.block_size, 1);
  for (size_t e = 1; e < offsets->size(); ++e) {
    (*offsets)[e] = (*offsets)[e - 1] + ((*offsets)[e] + block - 1) / block * block;
  }
  BL_CHECK(offsets->back() <= args.rows.shape[0], invalid_shape,
           "moe_permute: rows.shape[0] is %lld, expected at least %lld (routes%s)",
           static_cast<long long>(args.rows.shape[0]), static_cast<long long>(offsets->back()),
           block > 1 ? " in blocks" : "");
  return BL_STATUS_ok;
}

// Row `row` of the result: the token of a route, or zeros.
void fill_row(const bl_moe_permute_args& args, int64_t row, int32_t route) {
  const int64_t length = args.x.shape[1], bytes = dtype_bytes(args.x.dtype);
  uint8_t* to = static_cast<uint8_t*>(args.rows.data) + row * args.rows.strides[0] * bytes;
  const int64_t to_step = args.rows.strides[1] * bytes;
  const int64_t top_k = args.indices.shape[1];
  if (route < 0) {
    for (int64_t i = 0; i < length; ++i) std::memset(to + i * to_step, 0, static_cast<size_t>(bytes));
    return;
  }
  const int64_t token = route / top_k;
  const uint8_t* from = static_cast<const uint8_t*>(args.x.data) + token * args.x.strides[0] * bytes;
  const int64_t from_step = args.x.strides[1] * bytes;
  if (args.weights.data == nullptr) {
    if (to_step == bytes && from_step == bytes) {
      std::memcpy(to, from, static_cast<size_t>(length * bytes));
      return;
    }
    for (int64_t i = 0; i < length; ++i) {
      std::memcpy(to + i * to_step, from + i * from_step, static_cast<size_t>(bytes));
    }
    return;
  }
  const float weight = weight_at(args.weights, token, route % top_k);
  constexpr int64_t kPiece = 512;
  float values[kPiece];
  for (int64_t begin = 0; begin < length; begin += kPiece) {
    const int64_t count = std::min(kPiece, length - begin);
    load_values(args.x.dtype, from + begin * from_step, args.x.strides[1], count, values);
    for (int64_t i = 0; i < count; ++i) values[i] *= weight;
    store_values(args.x.dtype, to + begin * to_step, args.rows.strides[1], count, values);
  }
}

bl_status permute(const bl_moe_permute_args& args, bl_error* error) {
  std::vector<int32_t> indices;
  std::vector<int64_t> offsets;
  BL_RETURN_IF_ERROR(count_routes(args, &indices, &offsets, error));
  std::vector<int32_t> order(static_cast<size_t>(args.rows.shape[0]), -1);
  int32_t* offsets_out = static_cast<int32_t*>(args.offsets.data);
  for (size_t e = 0; e < offsets.size(); ++e) {
    const int32_t offset = static_cast<int32_t>(offsets[e]);
    std::memcpy(offsets_out + e, &offset, 4);
  }
  const int64_t top_k = args.indices.shape[1];
  for (size_t route = 0; route < indices.size(); ++route) {
    const int64_t token = static_cast<int64_t>(route) / top_k, slot = static_cast<int64_t>(route) % top_k;
    int32_t row = -1;
    if (indices[route] >= 0) {
      row = static_cast<int32_t>(offsets[static_cast<size_t>(indices[route])]++);
      order[static_cast<size_t>(row)] = static_cast<int32_t>(route);
    }
    set_integer(args.inverse, token, slot, row);
  }
  if (!order.empty()) std::memcpy(args.order.data, order.data(), order.size() * 4);
  for_rows(args.run, args.rows.shape[0], args.x.shape[1], [&](int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) fill_row(args, row, order[static_cast<size_t>(row)]);
  });
  return BL_STATUS_ok;
}

bl_status validate(const bl_moe_unpermute_args& args, bl_error* error) {
  const char* op = "moe_unpermute";
  BL_RETURN_IF_ERROR(check_tensor({op, "rows"}, args.rows, kFloatTypes, 2, 2, error));
  BL_RETURN_IF_ERROR(check_tensor({op, "inverse"}, args.inverse, dtype_bit(BL_DTYPE_i32), 2, 2, error));
  if (args.weights.data != nullptr) {
    BL_RETURN_IF_ERROR(check_tensor({op, "weights"}, args.weights, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_same_shape({op, "weights"}, args.weights, "inverse", args.inverse, error));
  }
  BL_RETURN_IF_ERROR(check_output({op, "output"}, args.output, kFloatTypes, 2, 2, error));
  BL_RETURN_IF_ERROR(
      check_dim({op, "output"}, args.output, 0, args.inverse.shape[0], "inverse.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({op, "output"}, args.output, 1, args.rows.shape[1], "rows.shape[1]", error));
  const Named outputs[] = {{"output", &args.output}};
  const Named inputs[] = {{"rows", &args.rows}, {"inverse", &args.inverse}, {"weights", &args.weights}};
  return check_all_apart(op, outputs, 1, inputs, 3, error);
}

// sum += weight * row, both of `count`. Meanwhile the lines of `next`, which is as long, are asked for: rows
// stand anywhere, and processors see a stream only after some of its lines.
void add_row(float* sum, const float* row, float weight, int64_t count, const uint8_t* next) {
  constexpr int64_t kLine = 16;
  int64_t i = 0;
  for (; i + kLine <= count; i += kLine) {
    if (next != nullptr) __builtin_prefetch(next + i * 4);
    for (int64_t j = i; j < i + kLine; ++j) sum[j] += weight * row[j];
  }
  for (; i < count; ++i) sum[i] += weight * row[i];
}

// Token t: a piece of the hidden axis at a time, in L1, its rows in order.
void sum_rows(const bl_moe_unpermute_args& args, const int32_t* inverse, int64_t token) {
  // Long enough that rows are read as streams; the sum stays in L1.
  constexpr int64_t kPiece = 2048;
  float sum[kPiece], copy[kPiece];
  const int64_t length = args.rows.shape[1], top_k = args.inverse.shape[1];
  const int64_t row_bytes = dtype_bytes(args.rows.dtype), out_bytes = dtype_bytes(args.output.dtype);
  const bool is_f32 = args.rows.dtype == BL_DTYPE_f32 && args.rows.strides[1] == 1;
  for (int64_t begin = 0; begin < length; begin += kPiece) {
    const int64_t count = std::min(kPiece, length - begin);
    const auto piece_of = [&](int64_t row) {
      const int64_t at = row * args.rows.strides[0] + begin * args.rows.strides[1];
      return static_cast<const uint8_t*>(args.rows.data) + at * row_bytes;
    };
    std::fill_n(sum, count, 0.0f);
    for (int64_t s = 0; s < top_k; ++s) {
      const int64_t from = inverse[token * top_k + s];
      if (from < 0) continue;
      const int64_t after = s + 1 < top_k ? inverse[token * top_k + s + 1] : -1;
      const uint8_t* data = piece_of(from);
      const float* row = reinterpret_cast<const float*>(data);
      if (!is_f32 || reinterpret_cast<uintptr_t>(data) % alignof(float) != 0) {
        load_values(args.rows.dtype, data, args.rows.strides[1], count, copy);
        row = copy;
      }
      const float weight = args.weights.data == nullptr ? 1.0f : weight_at(args.weights, token, s);
      add_row(sum, row, weight, count, is_f32 && after >= 0 ? piece_of(after) : nullptr);
    }
    const int64_t to = token * args.output.strides[0] + begin * args.output.strides[1];
    store_values(args.output.dtype, static_cast<uint8_t*>(args.output.data) + to * out_bytes,
                 args.output.strides[1], count, sum);
  }
}

bl_status unpermute(const bl_moe_unpermute_args& args, bl_error* error) {
  const int64_t tokens = args.inverse.shape[0], top_k = args.inverse.shape[1], rows = args.rows.shape[0];
  std::vector<int32_t> inverse;
  inverse.reserve(static_cast<size_t>(tokens * top_k));
  for (int64_t t = 0; t < tokens; ++t) {
    for (int64_t s = 0; s < top_k; ++s) {
      const int32_t row = integer_at(args.inverse, t, s);
      BL_CHECK(row >= -1 && row < rows, out_of_range,
               "moe_unpermute: inverse[%lld, %lld] is %d, expected -1 to %lld (rows.shape[0] - 1)",
               static_cast<long long>(t), static_cast<long long>(s), row, static_cast<long long>(rows - 1));
      inverse.push_back(row);
    }
  }
  for_rows(args.run, tokens, args.rows.shape[1], [&](int64_t first, int64_t last) {
    for (int64_t token = first; token < last; ++token) sum_rows(args, inverse.data(), token);
  });
  return BL_STATUS_ok;
}

// Calls work(args), whose lists may not fit in memory.
template <typename Args>
bl_status run_listed(const char* op, bl_status (*work)(const Args&, bl_error*), const Args& args,
                     bl_error* error) {
  try {
    return work(args, error);
  } catch (const std::bad_alloc&) {
    return fail(error, BL_STATUS_out_of_memory, "%s: cannot allocate the list of routes", op);
  }
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_moe_permute(const bl_moe_permute_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_moe_permute_args, "moe_permute", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(moe_permute, checked);
  return run_listed("moe_permute", permute, checked, error);
}

extern "C" bl_status bl_moe_unpermute(const bl_moe_unpermute_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_moe_unpermute_args, "moe_unpermute", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(moe_unpermute, checked);
  return run_listed("moe_unpermute", unpermute, checked, error);
}
