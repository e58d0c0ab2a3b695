// kv_write: validate, check every slot, copy the rows of a head after one another. Conversion is base's, so
// that there is no kernel list.
#include <algorithm>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"

namespace bitloom {

namespace {

// Values below which waking other threads costs more than it brings.
constexpr int64_t kSerialValues = int64_t{1} << 15;
// Values on their way at a time.
constexpr int64_t kChunk = 1024;

int32_t slot_of(const bl_kv_write_args& args, int64_t token) {
  return load_as<int32_t>(static_cast<const uint8_t*>(args.slots.data) + token * args.slots.strides[0] * 4);
}

// k against keys, or v against values.
bl_status check_rows(const bl_kv_write_args& args, bool is_values, bl_error* error) {
  const bl_tensor& rows = is_values ? args.v : args.k;
  const bl_tensor& cache = is_values ? args.values : args.keys;
  const Argument from{"kv_write", is_values ? "v" : "k"}, to{"kv_write", is_values ? "values" : "keys"};
  BL_RETURN_IF_ERROR(check_tensor(from, rows, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_output(to, cache, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_dim(to, cache, 1, rows.shape[1], is_values ? "v.shape[1]" : "k.shape[1]", error));
  return check_dim(to, cache, 2, rows.shape[2], is_values ? "v.shape[2]" : "k.shape[2]", error);
}

bl_status validate(const bl_kv_write_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_rows(args, false, error));
  BL_RETURN_IF_ERROR(check_rows(args, true, error));
  BL_RETURN_IF_ERROR(check_dim({"kv_write", "v"}, args.v, 0, args.k.shape[0], "k.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({"kv_write", "v"}, args.v, 1, args.k.shape[1], "k.shape[1]", error));
  BL_RETURN_IF_ERROR(
      check_dim({"kv_write", "values"}, args.values, 0, args.keys.shape[0], "keys.shape[0]", error));
  BL_RETURN_IF_ERROR(check_tensor({"kv_write", "slots"}, args.slots, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  BL_RETURN_IF_ERROR(check_dim({"kv_write", "slots"}, args.slots, 0, args.k.shape[0], "k.shape[0]", error));
  const struct {
    const char* name;
    const bl_tensor& tensor;
  } all[] = {{"k", args.k}, {"v", args.v}, {"slots", args.slots}, {"values", args.values}};
  for (const auto& [name, tensor] : all) {
    BL_RETURN_IF_ERROR(check_apart({"kv_write", "keys"}, args.keys, name, tensor.data, tensor.bytes, error));
    if (&tensor == &args.values) continue;
    BL_RETURN_IF_ERROR(
        check_apart({"kv_write", "values"}, args.values, name, tensor.data, tensor.bytes, error));
  }
  if (args.run.device != 0) return BL_STATUS_ok;  // slots are read there
  for (int64_t token = 0; token < args.k.shape[0]; ++token) {
    const int32_t slot = slot_of(args, token);
    BL_CHECK(slot >= -1 && slot < args.keys.shape[0], out_of_range,
             "kv_write: slots[%lld] is %d, expected -1 to %lld (= keys.shape[0] - 1)",
             static_cast<long long>(token), slot, static_cast<long long>(args.keys.shape[0] - 1));
  }
  return BL_STATUS_ok;
}

uint8_t* row_at(const bl_tensor& tensor, int64_t token, int64_t head) {
  return static_cast<uint8_t*>(tensor.data) +
         (token * tensor.strides[0] + head * tensor.strides[1]) * dtype_bytes(tensor.dtype);
}

void copy_row(const bl_tensor& from, int64_t token, const bl_tensor& to, int64_t slot, int64_t head) {
  float values[kChunk];
  for (int64_t first = 0; first < from.shape[2]; first += kChunk) {
    const int64_t count = std::min(kChunk, from.shape[2] - first);
    const int64_t read = first * from.strides[2] * dtype_bytes(from.dtype);
    const int64_t written = first * to.strides[2] * dtype_bytes(to.dtype);
    load_values(from.dtype, row_at(from, token, head) + read, from.strides[2], count, values);
    store_values(to.dtype, row_at(to, slot, head) + written, to.strides[2], count, values);
  }
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_kv_write(const bl_kv_write_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_kv_write_args, "kv_write", call);
  BL_RETURN_IF_ERROR(validate(call, error));
  BL_RUN_ON_DEVICE(kv_write, call);
  const int64_t tokens = call.k.shape[0], heads = call.k.shape[1];
  if (tokens == 0) return BL_STATUS_ok;
  // A head belongs to one task: of tokens with the same slot one stays whole.
  const auto body = [&](int64_t head) {
    for (int64_t token = 0; token < tokens; ++token) {
      const int32_t slot = slot_of(call, token);
      // Checked before, but slots may be shared memory that another thread has changed since.
      if (slot < 0 || slot >= call.keys.shape[0]) continue;
      copy_row(call.k, token, call.keys, slot, head);
      copy_row(call.v, token, call.values, slot, head);
    }
  };
  if (tokens * heads * (call.k.shape[2] + call.v.shape[2]) < kSerialValues) {
    for (int64_t head = 0; head < heads; ++head) body(head);
  } else {
    parallel_for(call.run, heads, body);
  }
  return BL_STATUS_ok;
}
