// merge_states: attention over parts of the keys joined into attention over all. In double at every level: it
// reads each value once, and what it computes is a few operations beside that.
#include <cmath>
#include <limits>

#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "kernel.h"

namespace bitloom {

namespace {

constexpr int64_t kRowsPerTask = 16;
constexpr int64_t kChannels = 64;  // summed at a time

bl_status validate(const bl_merge_states_args& args, bl_error* error) {
  const char* op = "merge_states";
  BL_RETURN_IF_ERROR(check_tensor({op, "outputs"}, args.outputs, kFloatTypes, 4, 4, error));
  BL_RETURN_IF_ERROR(check_tensor({op, "lses"}, args.lses, dtype_bit(BL_DTYPE_f32), 3, 3, error));
  BL_RETURN_IF_ERROR(check_output({op, "output"}, args.output, kFloatTypes, 3, 3, error));
  const int64_t* shape = args.outputs.shape;
  BL_CHECK(shape[0] >= 1, invalid_shape, "merge_states: outputs.shape[0] is 0, expected at least 1 part");
  for (int axis = 0; axis < 3; ++axis) {
    BL_RETURN_IF_ERROR(check_dim({op, "lses"}, args.lses, axis, shape[axis], "that of outputs", error));
    BL_RETURN_IF_ERROR(
        check_dim({op, "output"}, args.output, axis, shape[axis + 1], "that of a part", error));
  }
  if (args.lse.data != nullptr) {
    BL_RETURN_IF_ERROR(check_output({op, "lse"}, args.lse, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_dim({op, "lse"}, args.lse, 0, shape[1], "outputs.shape[1]", error));
    BL_RETURN_IF_ERROR(check_dim({op, "lse"}, args.lse, 1, shape[2], "outputs.shape[2]", error));
    BL_RETURN_IF_ERROR(
        check_apart({op, "lse"}, args.lse, "outputs", args.outputs.data, args.outputs.bytes, error));
    BL_RETURN_IF_ERROR(check_apart({op, "lse"}, args.lse, "lses", args.lses.data, args.lses.bytes, error));
    BL_RETURN_IF_ERROR(
        check_apart({op, "lse"}, args.lse, "output", args.output.data, args.output.bytes, error));
  }
  BL_RETURN_IF_ERROR(
      check_apart({op, "output"}, args.output, "outputs", args.outputs.data, args.outputs.bytes, error));
  return check_apart({op, "output"}, args.output, "lses", args.lses.data, args.lses.bytes, error);
}

const uint8_t* at(const bl_tensor& tensor, int64_t offset) {
  return static_cast<const uint8_t*>(tensor.data) + offset * dtype_bytes(tensor.dtype);
}

void merge(const bl_merge_states_args& args, int64_t row, int64_t head) {
  const bl_tensor& outputs = args.outputs;
  const int64_t parts = outputs.shape[0], dim = outputs.shape[3];
  constexpr double kNone = -std::numeric_limits<double>::infinity();
  const auto lse_of = [&](int64_t part) {
    const int64_t* strides = args.lses.strides;
    float lse = 0;
    load_values(BL_DTYPE_f32, at(args.lses, part * strides[0] + row * strides[1] + head * strides[2]), 1, 1,
                &lse);
    return static_cast<double>(lse);
  };
  double largest = kNone, total = 0;
  for (int64_t part = 0; part < parts; ++part) {
    const double lse = lse_of(part);
    if (lse > largest || std::isnan(lse)) largest = lse;
    if (std::isnan(largest)) break;
  }
  for (int64_t part = 0; part < parts; ++part) {
    if (largest != kNone) total += std::exp(lse_of(part) - largest);
  }
  for (int64_t begin = 0; begin < dim; begin += kChannels) {
    const int64_t count = std::min(dim - begin, kChannels);
    double sums[kChannels] = {};
    float values[kChannels];
    for (int64_t part = 0; part < parts; ++part) {
      const double lse = lse_of(part);
      if (lse == kNone) continue;  // nothing was seen there, whatever its output says
      const double weight = std::exp(lse - largest);
      const int64_t* strides = outputs.strides;
      const int64_t offset = part * strides[0] + row * strides[1] + head * strides[2] + begin * strides[3];
      load_values(outputs.dtype, at(outputs, offset), strides[3], count, values);
      for (int64_t i = 0; i < count; ++i) sums[i] += weight * static_cast<double>(values[i]);
    }
    for (int64_t i = 0; i < count; ++i)
      values[i] = largest == kNone ? 0 : static_cast<float>(sums[i] / total);
    const int64_t* strides = args.output.strides;
    const int64_t offset = row * strides[0] + head * strides[1] + begin * strides[2];
    store_values(args.output.dtype, const_cast<uint8_t*>(at(args.output, offset)), strides[2], count, values);
  }
  if (args.lse.data == nullptr) return;
  const float lse = largest == kNone ? -__builtin_inff() : static_cast<float>(largest + std::log(total));
  store_values(BL_DTYPE_f32,
               const_cast<uint8_t*>(at(args.lse, row * args.lse.strides[0] + head * args.lse.strides[1])), 1,
               1, &lse);
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_merge_states(const bl_merge_states_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_merge_states_args, "merge_states", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(merge_states, checked);
  const int64_t rows = checked.output.shape[0] * checked.output.shape[1];
  parallel_for(checked.run, (rows + kRowsPerTask - 1) / kRowsPerTask, [&](int64_t task) {
    const int64_t end = std::min((task + 1) * kRowsPerTask, rows);
    for (int64_t i = task * kRowsPerTask; i < end; ++i) {
      merge(checked, i / checked.output.shape[1], i % checked.output.shape[1]);
    }
  });
  return BL_STATUS_ok;
}
