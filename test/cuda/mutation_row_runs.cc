// Calls of operators over rows.
#include "cuda/backend.h"
#include "cuda/ops/copy/copy.h"
#include "mutation_runs.h"
#include "tensors.h"

namespace bitloom::cuda::testing {
namespace {

// Eight elements between one row and the next, and between rows of outer axes.
std::vector<int64_t> apart(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  for (size_t axis = shape.size() - 1; axis > 0; --axis) strides[axis - 1] = shape[axis] * strides[axis] + 8;
  return strides;
}

bl_status call(TestQueue& queue, RowOp op, const Tensor& x, const Tensor& right, const Tensor& weight,
               const Tensor& output, bl_error* error) {
  const bl_binary_args binary{sizeof(binary), {}, x.device(), right.device(), output.device()};
  const bl_silu_args unary{sizeof(unary), {}, x.device(), output.device()};
  bl_rms_norm_args rms{};
  rms.size = sizeof(rms), rms.x = x.device(), rms.weight = weight.device(), rms.output = output.device();
  rms.epsilon = 1e-5f;
  bl_layer_norm_args layer{};
  layer.size = sizeof(layer), layer.x = x.device(), layer.weight = weight.device();
  layer.bias = weight.device(), layer.output = output.device(), layer.epsilon = 1e-5f;
  switch (op) {
    case RowOp::copy:
      return copy(queue, {x.device(), output.device()}, error);
    case RowOp::silu:
      return silu(queue, unary, error);
    case RowOp::swiglu:
      return swiglu(queue, binary, error);
    case RowOp::rms_norm:
      return rms_norm(queue, rms, error);
    case RowOp::layer_norm:
      return layer_norm(queue, layer, error);
    default:
      return softmax(queue, {sizeof(bl_softmax_args), {}, x.device(), output.device(), 1}, error);
  }
}

}  // namespace

Run over_rows(RowOp op, Rows rows) {
  return [=](TestQueue& queue) {
    const std::vector<int64_t> strides = apart(rows.shape);
    Tensor x(queue, rows.from, rows.shape, strides), right(queue, rows.from, rows.shape, strides);
    Tensor weight(queue, BL_DTYPE_f32, {rows.shape.back()}), output(queue, rows.to, rows.shape, strides);
    x.fill([&](int64_t i) {
      const float value = static_cast<float>(i * 97 % 801 - 400);
      const bool is_norm = op == RowOp::rms_norm || op == RowOp::layer_norm;
      return op == RowOp::copy                       ? value
             : is_norm && i / rows.shape.back() == 1 ? 1e30f * value
                                                     : 0.01f * value;
    });
    right.uniform(2);
    weight.uniform(3);
    bl_error error{};
    check_ok(call(queue, op, x, right, weight, output, &error), error, "rows");
  };
}

std::vector<Run> views(RowOp op, int64_t length, int32_t from, int32_t to) {
  std::vector<Run> runs;
  std::vector<int64_t> shape = {length};
  for (int64_t outer : {3, 2, 2}) {
    runs.push_back(over_rows(op, {shape, from, to}));
    shape.insert(shape.begin(), outer);
  }
  runs.push_back(over_rows(op, {shape, from, to}));
  return runs;
}

std::vector<Run> turns(RowOp op, int64_t length, int32_t from, int32_t to) {
  std::vector<Run> runs;
  for (const std::vector<int64_t>& shape :
       {std::vector<int64_t>{length}, std::vector<int64_t>{2, length}, std::vector<int64_t>{2, 2, length}})
    runs.insert(runs.end(), 2, over_rows(op, {shape, from, to}));
  return runs;
}

Run rotated(int64_t tokens, int64_t pairs, int32_t type, int32_t mode) {
  return [=](TestQueue& queue) {
    Tensor x(queue, type, {tokens, 2, 2 * pairs}), output(queue, type, {tokens, 2, 2 * pairs});
    Tensor positions(queue, BL_DTYPE_i32, {tokens});
    x.uniform(1);
    std::vector<int32_t> at;
    for (int64_t token = 0; token < tokens; ++token) at.push_back(static_cast<int32_t>(3 * token + 1));
    positions.integers(at);
    bl_rope_args args{};
    args.size = sizeof(args);
    args.theta = 10000;
    args.mode = mode;
    args.x = x.device(), args.positions = positions.device(), args.output = output.device();
    bl_error error{};
    check_ok(rope(queue, args, &error), error, "rope");
  };
}

Run quantized(int32_t format, int64_t columns, int32_t from) {
  return [=](TestQueue& queue) {
    constexpr int64_t kRows = 3;
    Tensor input(queue, from, {kRows, columns}, {columns + 8, 1});
    input.uniform(static_cast<uint64_t>(format) + 1);
    bl_quantize_args args{};
    args.size = sizeof(args);
    args.input = input.device();
    args.output.bytes = bl_weights_bytes(format, kRows, columns);
    args.output.data = queue.allocate(args.output.bytes);
    args.output.format = format, args.output.rows = kRows, args.output.cols = columns;
    bl_error error{};
    check_ok(quantize(queue, args, &error), error, "quantize");
  };
}

}  // namespace bitloom::cuda::testing
