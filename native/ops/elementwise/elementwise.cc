// What the elementwise operators share: validate, choose a kernel, partition, run.
#include <algorithm>
#include <cstring>

#include "../choose.h"
#include "../rows.h"
#include "kernel.h"

namespace bitloom {

namespace {

const KernelRow<Elementwise, ElementwiseKernel> kKernels[] = {
#define BL_ELEMENTWISE_KERNEL(op, isa) {Elementwise::op, #op "_f32_" #isa, BL_ISA_##isa, isa::op##_f32},
#include "kernels.inc"
#undef BL_ELEMENTWISE_KERNEL
};

// Elements a kernel gets at a time: what is not contiguous f32 goes through buffers of this size on the
// stack.
constexpr int64_t kChunk = 2048;

// Drops axes of size 1 and joins neighbours that lie behind one another in all views, so that contiguous
// tensors become one row. All views have the same shape; rank >= 1 afterwards.
void join_axes(bl_tensor* const* views, int count) {
  const bl_tensor shape = *views[0];
  int rank = 0;
  for (int axis = 0; axis < shape.rank; ++axis) {
    if (shape.shape[axis] == 1) continue;
    bool joins = rank > 0;
    for (int v = 0; joins && v < count; ++v) {
      joins = views[v]->strides[rank - 1] == views[v]->strides[axis] * shape.shape[axis];
    }
    if (!joins) ++rank;
    for (int v = 0; v < count; ++v) {
      views[v]->shape[rank - 1] = joins ? views[v]->shape[rank - 1] * shape.shape[axis] : shape.shape[axis];
      views[v]->strides[rank - 1] = views[v]->strides[axis];
    }
  }
  for (int v = 0; v < count; ++v) {
    if (rank == 0) views[v]->shape[0] = views[v]->strides[0] = 1;
    views[v]->rank = std::max(rank, 1);
  }
}

// `count` elements from `first` on of a row, as they lie when contiguous f32, else null.
float* direct(const Rows& rows, int64_t row, int64_t first) {
  float* address = rows.direct(row);
  return address == nullptr ? nullptr : address + first;
}

uint8_t* address(const Rows& rows, int64_t row, int64_t first) {
  return rows.at(row) + first * rows.stride * dtype_bytes(rows.tensor.dtype);
}

const float* load(const Rows& rows, int64_t row, int64_t first, int64_t count, float* buffer) {
  if (rows.tensor.data == nullptr) return nullptr;
  if (const float* values = direct(rows, row, first)) return values;
  load_values(rows.tensor.dtype, address(rows, row, first), rows.stride, count, buffer);
  return buffer;
}

}  // namespace

ElementwiseKernel elementwise_kernel(Elementwise op, int32_t isa) {
  for (const auto& row : kKernels) {
    if (row.op == op && row.isa <= isa) return row.run;
  }
  return nullptr;  // not reached: scalar rows need nothing
}

void run_elementwise(const ElementwiseCall& call) {
  bl_tensor left_view = call.left;
  bl_tensor right_view = call.right;
  bl_tensor output_view = call.output;
  if (element_count(output_view) == 0) return;
  bl_tensor* const views[] = {&output_view, &left_view, &right_view};
  join_axes(views, right_view.data == nullptr ? 2 : 3);
  const Rows left(left_view);
  const Rows right(right_view);
  const Rows output(output_view);
  const ElementwiseKernel kernel =
      choose(kKernels, call.op, call.name, call.run, output.count, output.length).run;
  // Pieces: chunks of rows, counted through.
  const int64_t chunks = (output.length + kChunk - 1) / kChunk;
  const int64_t per_task = std::max<int64_t>(1, kTaskElements / std::min(output.length, kChunk));
  const int64_t pieces = output.count * chunks;
  const auto body = [&](int64_t task) {
    alignas(kScratchAlignment) float buffers[3][kChunk];
    for (int64_t piece = task * per_task; piece < std::min((task + 1) * per_task, pieces); ++piece) {
      const int64_t row = piece / chunks;
      const int64_t first = piece % chunks * kChunk;
      const int64_t count = std::min(kChunk, output.length - first);
      float* in_place = direct(output, row, first);
      float* out = in_place != nullptr ? in_place : buffers[2];
      kernel(load(left, row, first, count, buffers[0]), load(right, row, first, count, buffers[1]), out,
             count);
      if (in_place == nullptr) {
        store_values(output.tensor.dtype, address(output, row, first), output.stride, count, out);
      }
    }
  };
  const int64_t tasks = (pieces + per_task - 1) / per_task;
  if (output.count * output.length < kSerialElements) {
    for (int64_t task = 0; task < tasks; ++task) body(task);
  } else {
    parallel_for(call.run, tasks, body);
  }
}

bl_status check_unary(const char* name, const bl_tensor& x, const bl_tensor& output, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({name, "x"}, x, kFloatTypes, 0, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_output({name, "output"}, output, kFloatTypes, 0, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_same_shape({name, "output"}, output, "x", x, error));
  return check_alias({name, "output"}, output, "x", x, error);
}

bl_status check_binary(const char* name, bool repeat, const bl_binary_args& args, bl_error* error) {
  const bl_tensor& left = args.left;
  const bl_tensor& right = args.right;
  BL_RETURN_IF_ERROR(check_tensor({name, "left"}, left, kFloatTypes, 0, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_tensor({name, "right"}, right, kFloatTypes, 0, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_output({name, "output"}, args.output, kFloatTypes, 0, BL_MAX_RANK, error));
  if (!repeat) BL_RETURN_IF_ERROR(check_same_shape({name, "right"}, right, "left", left, error));
  BL_CHECK(right.rank <= left.rank, invalid_shape, "%s: right.rank is %d, expected at most %d (= left.rank)",
           name, right.rank, left.rank);
  const int repeated = left.rank - right.rank;
  for (int axis = 0; axis < right.rank; ++axis) {
    BL_CHECK(right.shape[axis] == left.shape[repeated + axis], invalid_shape,
             "%s: right.shape[%d] is %lld, expected %lld (= left.shape[%d])", name, axis,
             static_cast<long long>(right.shape[axis]), static_cast<long long>(left.shape[repeated + axis]),
             repeated + axis);
  }
  BL_RETURN_IF_ERROR(check_same_shape({name, "output"}, args.output, "left", left, error));
  BL_RETURN_IF_ERROR(check_alias({name, "output"}, args.output, "left", left, error));
  return check_alias({name, "output"}, args.output, "right", right, error);
}

void run_binary(Elementwise op, const char* name, const bl_binary_args& args) {
  const bl_tensor& left = args.left;
  const bl_tensor& right = args.right;
  const int repeated = left.rank - right.rank;
  bl_tensor view = right;
  view.rank = left.rank;
  for (int axis = left.rank - 1; axis >= 0; --axis) {
    view.shape[axis] = left.shape[axis];
    view.strides[axis] = axis < repeated ? 0 : right.strides[axis - repeated];
  }
  run_elementwise({op, name, args.run, left, view, args.output});
}

}  // namespace bitloom
