// embedding: validate, check every id, partition the ids, decode a table row for each. Decoding is
// native/formats' decode_row, so there is no kernel list.
#include <algorithm>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../formats/formats.h"

namespace bitloom {

namespace {

// Weights below which waking other threads costs more than it brings: about 10 microseconds of decoding.
constexpr int64_t kSerialWeights = int64_t{1} << 14;
constexpr int64_t kTaskWeights = int64_t{1} << 13;
// Weights decoded at a time on their way to f16, bf16 or strided rows; a multiple of every block size.
constexpr int64_t kChunk = 1024;

int32_t id_at(const bl_embedding_args& args, const Rows& ids, int64_t index) {
  return load_as<int32_t>(ids.at(index / ids.length) +
                          index % ids.length * ids.stride * dtype_bytes(args.ids.dtype));
}

bl_status validate(const bl_embedding_args& args, bl_error* error) {
  const Argument output{"embedding", "output"};
  BL_RETURN_IF_ERROR(check_weights({"embedding", "table"}, args.table, error));
  BL_RETURN_IF_ERROR(
      check_tensor({"embedding", "ids"}, args.ids, dtype_bit(BL_DTYPE_i32), 0, BL_MAX_RANK - 1, error));
  BL_RETURN_IF_ERROR(check_output(output, args.output, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_CHECK(args.output.rank == args.ids.rank + 1, invalid_shape,
           "embedding: output.rank is %d, expected %d (= ids.rank + 1)", args.output.rank, args.ids.rank + 1);
  for (int axis = 0; axis < args.ids.rank; ++axis) {
    BL_CHECK(args.output.shape[axis] == args.ids.shape[axis], invalid_shape,
             "embedding: output.shape[%d] is %lld, expected %lld (= ids.shape[%d])", axis,
             static_cast<long long>(args.output.shape[axis]), static_cast<long long>(args.ids.shape[axis]),
             axis);
  }
  BL_RETURN_IF_ERROR(check_dim(output, args.output, args.ids.rank, args.table.cols, "table.cols", error));
  BL_RETURN_IF_ERROR(check_apart(
      output, args.output, "table", args.table.data,
      bl_layout_bytes(args.table.format, args.table.layout, args.table.rows, args.table.cols), error));
  BL_RETURN_IF_ERROR(check_apart(output, args.output, "ids", args.ids.data, args.ids.bytes, error));
  if (args.run.device != 0) return BL_STATUS_ok;  // values are checked on the device
  const Rows ids(args.ids);
  for (int64_t i = 0; i < ids.count * ids.length; ++i) {
    const int32_t id = id_at(args, ids, i);
    BL_CHECK(id >= 0 && id < args.table.rows, out_of_range,
             "embedding: ids[%lld] is %d, expected 0 to %lld (= table.rows - 1)", static_cast<long long>(i),
             id, static_cast<long long>(args.table.rows - 1));
  }
  return BL_STATUS_ok;
}

// Decodes table row `id` to row `index` of the output.
void copy_row(const WeightsView& table, int32_t id, const Rows& output, int64_t index) {
  if (float* row = output.direct(index)) {
    decode_row(table, id, 0, table.cols, row);
    return;
  }
  float values[kChunk];
  const int64_t step = output.stride * dtype_bytes(output.tensor.dtype);
  for (int64_t first = 0; first < table.cols; first += kChunk) {
    const int64_t count = std::min(kChunk, table.cols - first);
    decode_row(table, id, first, count, values);
    store_values(output.tensor.dtype, output.at(index) + first * step, output.stride, count, values);
  }
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_embedding(const bl_embedding_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_embedding_args, "embedding", call);
  BL_RETURN_IF_ERROR(validate(call, error));
  BL_RUN_ON_DEVICE(embedding, call);
  const Rows ids(call.ids);
  const Rows output(call.output);
  const WeightsView table(call.table);
  const int64_t count = ids.count * ids.length;
  if (count == 0 || table.cols == 0) return BL_STATUS_ok;
  const int64_t per_task = std::max<int64_t>(1, kTaskWeights / table.cols);
  const auto body = [&](int64_t task) {
    for (int64_t i = task * per_task; i < std::min((task + 1) * per_task, count); ++i) {
      const int32_t id = id_at(call, ids, i);
      // Checked before, but ids may be shared memory that another thread has changed since.
      if (id >= 0 && id < table.rows) copy_row(table, id, output, i);
    }
  };
  const int64_t tasks = (count + per_task - 1) / per_task;
  if (count * table.cols < kSerialWeights) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    parallel_for(call.run, tasks, body);
  }
  return BL_STATUS_ok;
}
