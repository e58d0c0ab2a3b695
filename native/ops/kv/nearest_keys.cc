// nearest_keys: validate, check every row number; a task is some rows of one head, against the candidates of
// the head, which are brought to unit length once.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "kernel.h"

namespace bitloom {

namespace {

using ll = long long;

// Multiply-adds below which waking other threads costs more than it brings: some 10 microseconds.
constexpr int64_t kSerialProducts = int64_t{1} << 19;
// Rows of a task: as many as make the packed candidates worth reading.
constexpr int64_t kTaskRows = 32;

struct NearestCall {
  bl_tensor keys, rows, candidates, index, similarity;
  int64_t tokens, heads, dim, floats;

  // A number of `list`, -1 where it is no token: it was checked, but may be shared memory that has changed
  // since.
  int64_t token(const bl_tensor& list, int64_t i, int64_t head) const {
    const int64_t at = i * list.strides[0] + head * list.strides[1];
    const int32_t value = load_as<int32_t>(static_cast<const uint8_t*>(list.data) + at * 4);
    return value >= 0 && value < tokens ? value : -1;
  }

  // The key of a token at unit length, with zeros up to `floats`; zeros where its length is 0.
  void load_unit(int64_t token_index, int64_t head, float* row) const {
    std::fill(row, row + floats, 0.0f);
    if (token_index < 0) return;
    const int64_t at = token_index * keys.strides[0] + head * keys.strides[1];
    const uint8_t* from = static_cast<const uint8_t*>(keys.data) + at * dtype_bytes(keys.dtype);
    load_values(keys.dtype, from, keys.strides[2], dim, row);
    double squares = 0;
    for (int64_t c = 0; c < dim; ++c) squares += static_cast<double>(row[c]) * row[c];
    const double inverse = squares > 0 ? 1 / std::sqrt(squares) : squares == 0 ? 0 : squares;
    for (int64_t c = 0; c < dim; ++c) row[c] = static_cast<float>(row[c] * inverse);
  }

  void store(int64_t row, int64_t head, int64_t nearest, float best) const {
    const float infinity = std::numeric_limits<float>::infinity();
    const float value = best == -infinity ? std::numeric_limits<float>::quiet_NaN() : best;
    const int32_t number = static_cast<int32_t>(nearest);
    std::memcpy(static_cast<uint8_t*>(index.data) + (row * index.strides[0] + head * index.strides[1]) * 4,
                &number, sizeof(number));
    std::memcpy(static_cast<uint8_t*>(similarity.data) +
                    (row * similarity.strides[0] + head * similarity.strides[1]) * 4,
                &value, sizeof(value));
  }
};

bl_status check_numbers(const char* name, const NearestCall& call, const bl_tensor& list, bl_error* error) {
  for (int64_t i = 0; i < list.shape[0]; ++i) {
    for (int64_t h = 0; h < call.heads; ++h) {
      const int64_t at = i * list.strides[0] + h * list.strides[1];
      const int32_t value = load_as<int32_t>(static_cast<const uint8_t*>(list.data) + at * 4);
      BL_CHECK(value >= 0 && value < call.tokens, out_of_range,
               "nearest_keys: %s[%lld] is %d, expected 0 to %lld (= keys.shape[0] - 1)", name,
               static_cast<ll>(i * call.heads + h), value, static_cast<ll>(call.tokens - 1));
    }
  }
  return BL_STATUS_ok;
}

bl_status check_written(const NearestCall& call, const char* name, const bl_tensor& output, bl_error* error) {
  const Argument argument{"nearest_keys", name};
  BL_RETURN_IF_ERROR(check_dim(argument, output, 0, call.rows.shape[0], "rows.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim(argument, output, 1, call.heads, "keys.shape[1]", error));
  const auto apart = [&](const char* input, const bl_tensor& tensor) {
    return check_apart(argument, output, input, tensor.data, tensor.bytes, error);
  };
  BL_RETURN_IF_ERROR(apart("keys", call.keys));
  BL_RETURN_IF_ERROR(apart("rows", call.rows));
  return apart("candidates", call.candidates);
}

bl_status check_call(NearestCall* call, bl_error* error) {
  const char* op = "nearest_keys";
  const uint32_t ints = dtype_bit(BL_DTYPE_i32);
  BL_RETURN_IF_ERROR(check_tensor({op, "keys"}, call->keys, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({op, "rows"}, call->rows, ints, 2, 2, error));
  BL_RETURN_IF_ERROR(check_tensor({op, "candidates"}, call->candidates, ints, 2, 2, error));
  BL_RETURN_IF_ERROR(check_output({op, "index"}, call->index, ints, 2, 2, error));
  BL_RETURN_IF_ERROR(
      check_output({op, "similarity"}, call->similarity, dtype_bit(BL_DTYPE_f32), 2, 2, error));
  call->tokens = call->keys.shape[0];
  call->heads = call->keys.shape[1];
  call->dim = call->keys.shape[2];
  call->floats = kv_row_floats(call->dim);
  BL_CHECK(call->dim >= 1 && call->dim <= kMaxKvDim, invalid_shape,
           "nearest_keys: keys.shape[2] is %lld, expected 1 to %d", static_cast<ll>(call->dim), kMaxKvDim);
  BL_RETURN_IF_ERROR(check_dim({op, "rows"}, call->rows, 1, call->heads, "keys.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({op, "candidates"}, call->candidates, 1, call->heads, "keys.shape[1]", error));
  BL_CHECK(call->candidates.shape[0] >= 1, invalid_shape,
           "nearest_keys: candidates.shape[0] is 0, expected at least 1");
  BL_RETURN_IF_ERROR(check_written(*call, "index", call->index, error));
  BL_RETURN_IF_ERROR(check_written(*call, "similarity", call->similarity, error));
  return check_apart({op, "index"}, call->index, "similarity", call->similarity.data, call->similarity.bytes,
                     error);
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_nearest_keys(const bl_nearest_keys_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_nearest_keys_args, "nearest_keys", checked);
  NearestCall call{
      checked.keys, checked.rows, checked.candidates, checked.index, checked.similarity, 0, 0, 0, 0};
  BL_RETURN_IF_ERROR(check_call(&call, error));
  BL_RUN_ON_DEVICE(nearest_keys, checked);
  BL_RETURN_IF_ERROR(check_numbers("rows", call, call.rows, error));
  BL_RETURN_IF_ERROR(check_numbers("candidates", call, call.candidates, error));
  const int64_t rows = call.rows.shape[0];
  const int64_t count = call.candidates.shape[0];
  if (rows == 0 || call.heads == 0) return BL_STATUS_ok;
  const KvKernel& kernel = choose_kv_kernel("nearest_keys", checked.run);
  const int64_t head_floats = count * call.floats;
  const uint64_t bytes = static_cast<uint64_t>(call.heads * head_floats) * sizeof(float);
  const Scratch scratch(bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "nearest_keys: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(bytes));
  float* units = reinterpret_cast<float*>(scratch.data());  // [heads][candidates][floats]
  const auto pack = [&](int64_t head) {
    for (int64_t c = 0; c < count; ++c) {
      call.load_unit(call.token(call.candidates, c, head), head,
                     units + head * head_floats + c * call.floats);
    }
  };
  const int64_t blocks = (rows + kTaskRows - 1) / kTaskRows;
  const auto body = [&](int64_t task) {
    alignas(64) float query[kMaxKvDim];
    const int64_t head = task / blocks;
    const int64_t begin = task % blocks * kTaskRows;
    for (int64_t r = begin; r < std::min(begin + kTaskRows, rows); ++r) {
      call.load_unit(call.token(call.rows, r, head), head, query);
      float best;
      const int64_t nearest =
          kernel.nearest_row(query, units + head * head_floats, count, call.floats, &best);
      call.store(r, head, nearest, best);
    }
  };
  if (rows * call.heads * head_floats < kSerialProducts) {
    for (int64_t head = 0; head < call.heads; ++head) pack(head);
    for (int64_t task = 0; task < call.heads * blocks; ++task) body(task);
  } else {
    parallel_for(checked.run, call.heads, pack);
    parallel_for(checked.run, call.heads * blocks, body);
  }
  return BL_STATUS_ok;
}
