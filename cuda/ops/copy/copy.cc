// Host side of copy.
#include "copy.h"

#include <algorithm>

#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages copy_module;

namespace {

constexpr uint32_t kConverted = kFloatTypes | dtype_bit(BL_DTYPE_i8) | dtype_bit(BL_DTYPE_i32);

bl_status check(const CopyArgs& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_same_shape({"copy", "output"}, args.output, "input", args.input, error));
  if (args.input.dtype == args.output.dtype) return BL_STATUS_ok;
  for (const bl_tensor* tensor : {&args.input, &args.output}) {
    BL_CHECK((kConverted & dtype_bit(tensor->dtype)) != 0, unsupported,
             "copy: from %s to %s, expected one type, or f32, f16, bf16, i8 or i32 on device",
             dtype_name(args.input.dtype), dtype_name(args.output.dtype));
  }
  return BL_STATUS_ok;
}

// Rows as pieces of 16 bytes, if both sides allow it.
bool make_wide(int64_t bytes, CopyParams& params) {
  const int64_t in_piece = 16 / bytes;
  bool wide = params.rows.length % in_piece == 0;
  for (Operand* operand : {&params.input, &params.output}) {
    wide = wide && operand->stride == 1 && reinterpret_cast<uint64_t>(operand->data) % 16 == 0;
    for (int32_t axis = 0; axis < params.rows.outer_rank; ++axis) {
      wide = wide && operand->outer_strides[axis] % in_piece == 0;
    }
  }
  if (!wide) return false;
  params.rows.length /= in_piece;
  for (Operand* operand : {&params.input, &params.output}) {
    for (int64_t& stride : operand->outer_strides) stride /= in_piece;
  }
  return true;
}

}  // namespace

bl_status copy(Queue& queue, const CopyArgs& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check(args, error));
  if (element_count(args.output) == 0) return BL_STATUS_ok;
  const NamedView views[] = {{"output", args.output}, {"input", args.input}};
  Operand operands[2];
  CopyParams params{};
  BL_RETURN_IF_ERROR(plan_rows("copy", views, 2, true, &params.rows, operands, error));
  params.output = operands[0];
  params.input = operands[1];
  params.element_bytes = static_cast<int32_t>(dtype_bytes(args.output.dtype));
  const char* name = "copy_convert";
  if (args.input.dtype == args.output.dtype) {
    name = make_wide(params.element_bytes, params) ? "copy_wide" : "copy_plain";
  }
  LaunchShape shape;
  shape.block.x =
      static_cast<uint32_t>(std::min<int64_t>(kCopyThreads, ceil_div(params.rows.length, 32) * 32));
  const int64_t most = int64_t{queue.limits().multiprocessors} * 16;
  shape.grid.x = static_cast<uint32_t>(std::min(ceil_div(params.rows.length, shape.block.x), most));
  shape.grid.y = static_cast<uint32_t>(std::min(params.rows.count, kMaxGridY));
  return queue.launch(copy_module, name, shape, params, error);
}

}  // namespace bitloom::cuda
