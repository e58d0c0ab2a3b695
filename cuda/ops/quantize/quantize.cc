// Host side of quantize and dequantize. quantize waits for the device once, before it writes: an input that
// is not finite is an error.
#include <algorithm>
#include <cmath>

#include "../../backend.h"
#include "../rows.h"
#include "../weights.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages quantize_module;

namespace {

LaunchShape over(const RowSpace& rows, int64_t pieces) {
  LaunchShape shape;
  shape.block.x = static_cast<uint32_t>(std::min<int64_t>(kQuantizeThreads, ceil_div(pieces, 32) * 32));
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(ceil_div(pieces, shape.block.x), 1024));
  shape.grid.y = static_cast<uint32_t>(std::min(rows.count, kMaxGridY));
  return shape;
}

// The two axes of a matrix as they are: row i of the tensor is row i of the weights.
bl_status plan_matrix(const char* op, const char* name, const bl_tensor& matrix, RowSpace* rows,
                      Operand* operand, bl_error* error) {
  const NamedView views[] = {{name, matrix}};
  return plan_rows(op, views, 1, false, rows, operand, error);
}

bl_status check_format(const bl_quantize_args& args, bl_error* error) {
  const bl_format_info& info = *bl_get_format_info(args.output.format);
  const bool integers = info.bits > 1 && (info.kind == BL_KIND_unsigned_int ||
                                          info.kind == BL_KIND_signed_int || info.kind == BL_KIND_ternary);
  BL_CHECK(integers || args.output.format == BL_FORMAT_q8_0 || args.output.format == BL_FORMAT_q4_0,
           unsupported,
           "quantize: output.format is %s, expected an integer format of 2 bits and more, t2, q8_0 or q4_0 "
           "on device",
           info.name);
  return BL_STATUS_ok;
}

bl_status check_finite(Queue& queue, const bl_quantize_args& args, const QuantizeParams& params,
                       bl_error* error) {
  BL_RETURN_IF_ERROR(queue.fill_zero(params.non_finite, sizeof(uint64_t), error));
  BL_RETURN_IF_ERROR(
      queue.launch(quantize_module, "quantize_check", over(params.rows, params.rows.length), params, error));
  uint64_t mark = 0;
  BL_RETURN_IF_ERROR(queue.download(&mark, params.non_finite, sizeof(mark), error));
  if (mark == 0) return BL_STATUS_ok;
  const int64_t index = static_cast<int64_t>(~mark);
  const int64_t row = index / params.rows.length, col = index % params.rows.length;
  const int64_t offset = row * args.input.strides[0] + col * args.input.strides[1];
  const int64_t bytes = dtype_bytes(args.input.dtype);
  uint8_t element[4] = {};
  BL_RETURN_IF_ERROR(queue.download(element, static_cast<const uint8_t*>(args.input.data) + offset * bytes,
                                    static_cast<uint64_t>(bytes), error));
  float value = 0;
  load_values(args.input.dtype, element, 1, 1, &value);
  return fail(error, BL_STATUS_non_finite, "quantize: input[%lld, %lld] is %s, expected a finite number",
              static_cast<long long>(row), static_cast<long long>(col),
              std::isnan(value) ? "NaN"
              : value < 0       ? "-Infinity"
                                : "Infinity");
}

}  // namespace

bl_status quantize(Queue& queue, const bl_quantize_args& args, bl_error* error) {
  if (args.output.rows == 0 || args.output.cols == 0) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_format(args, error));
  QuantizeParams params{};
  BL_RETURN_IF_ERROR(plan_matrix("quantize", "input", args.input, &params.rows, &params.input, error));
  Scratch table(queue), mark(queue);
  BL_RETURN_IF_ERROR(weights_params("quantize", "output", args.output, table, &params.output, error));
  params.data = static_cast<uint8_t*>(args.output.data);
  params.groups = ceil_div(params.rows.length, params.output.block_elements);
  BL_RETURN_IF_ERROR(mark.allocate(sizeof(uint64_t), error));
  params.non_finite = mark.as<uint64_t>();
  BL_RETURN_IF_ERROR(check_finite(queue, args, params, error));
  const char* kernel = args.method == BL_QUANTIZE_mse ? "quantize_mse" : "quantize";
  return queue.launch(quantize_module, kernel, over(params.rows, params.groups), params, error);
}

bl_status dequantize(Queue& queue, const bl_dequantize_args& args, bl_error* error) {
  if (args.input.rows == 0 || args.input.cols == 0) return BL_STATUS_ok;
  DequantizeParams params{};
  BL_RETURN_IF_ERROR(plan_matrix("dequantize", "output", args.output, &params.rows, &params.output, error));
  Scratch table(queue);
  BL_RETURN_IF_ERROR(weights_params("dequantize", "input", args.input, table, &params.input, error));
  return queue.launch(quantize_module, "dequantize", over(params.rows, params.rows.length), params, error);
}

}  // namespace bitloom::cuda
