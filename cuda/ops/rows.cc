#include "rows.h"

namespace bitloom::cuda {

bl_status check_element_alignment(const char* op, const char* name, const bl_tensor& tensor,
                                  bl_error* error) {
  const uint64_t bytes = static_cast<uint64_t>(dtype_bytes(tensor.dtype));
  BL_CHECK(bytes == 0 || reinterpret_cast<uint64_t>(tensor.data) % bytes == 0, unsupported,
           "%s: %s begins at no multiple of %llu bytes (= a %s), expected one on device", op, name,
           static_cast<unsigned long long>(bytes), dtype_name(tensor.dtype));
  return BL_STATUS_ok;
}

bool is_wide(const Operand& operand, int32_t outer_rank) {
  if (operand.data == nullptr) return true;
  const int64_t bytes = dtype_bytes(operand.dtype);
  bool wide = operand.stride == 1 && reinterpret_cast<uint64_t>(operand.data) % 16 == 0;
  for (int32_t axis = 0; axis < outer_rank; ++axis)
    wide = wide && operand.outer_strides[axis] * bytes % 16 == 0;
  return wide;
}

bl_status plan_rows(const char* op, const NamedView* views, int count, bool whole, RowSpace* planned,
                    Operand* operands, bl_error* error) {
  for (int v = 0; v < count; ++v) {
    BL_RETURN_IF_ERROR(check_element_alignment(op, views[v].name, views[v].view, error));
  }
  constexpr int kMaxViews = 4;
  const bl_tensor& shape = views[0].view;
  const int32_t rank = shape.rank;
  int64_t sizes[BL_MAX_RANK + 1];
  int64_t strides[kMaxViews][BL_MAX_RANK + 1];
  int32_t joined = 0;
  for (int32_t axis = 0; axis < rank; ++axis) {
    const bool last = axis == rank - 1;
    if (shape.shape[axis] == 1 && !(last && !whole)) continue;
    bool joins = joined > 0 && !(last && !whole);
    for (int v = 0; joins && v < count; ++v) {
      if (views[v].view.data == nullptr) continue;
      joins = strides[v][joined - 1] == views[v].view.strides[axis] * shape.shape[axis];
    }
    if (!joins) ++joined;
    sizes[joined - 1] = joins ? sizes[joined - 1] * shape.shape[axis] : shape.shape[axis];
    for (int v = 0; v < count; ++v) strides[v][joined - 1] = views[v].view.strides[axis];
  }
  if (joined == 0) {
    sizes[0] = 1;
    for (int v = 0; v < count; ++v) strides[v][0] = 1;
    joined = 1;
  }
  RowSpace rows{};
  rows.length = sizes[joined - 1];
  rows.count = 1;
  rows.outer_rank = joined - 1;
  for (int32_t axis = 0; axis < joined - 1; ++axis) {
    rows.outer_shape[axis] = sizes[axis];
    rows.count *= sizes[axis];
  }
  rows.wide = rows.length % 8 == 0 ? 1 : 0;
  for (int v = 0; v < count; ++v) {
    Operand operand{};
    operand.data = views[v].view.data;
    operand.dtype = views[v].view.dtype;
    if (operand.data != nullptr) {
      operand.stride = strides[v][joined - 1];
      for (int32_t axis = 0; axis < joined - 1; ++axis) operand.outer_strides[axis] = strides[v][axis];
    }
    if (!is_wide(operand, rows.outer_rank)) rows.wide = 0;
    operands[v] = operand;
  }
  BL_CHECK(rows.count <= INT32_MAX, unsupported, "%s: %s has %lld rows, expected fewer than 2^31 on device",
           op, views[0].name, static_cast<long long>(rows.count));
  *planned = rows;
  return BL_STATUS_ok;
}

Operand vector_operand(const bl_tensor& vector) {
  Operand operand{};
  operand.data = vector.data;
  operand.dtype = vector.dtype;
  operand.stride = 1;
  return operand;
}

}  // namespace bitloom::cuda
