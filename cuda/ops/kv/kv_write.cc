// Host side of kv_write.
#include <algorithm>

#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages kv_module;

namespace {

KvRows rows_of(const bl_tensor& tensor) {
  return {tensor.data, {tensor.strides[0], tensor.strides[1], tensor.strides[2]}, tensor.dtype, 0};
}

}  // namespace

bl_status kv_write(Queue& queue, const bl_kv_write_args& args, bl_error* error) {
  const struct {
    const char* name;
    const bl_tensor& tensor;
  } all[] = {
      {"k", args.k}, {"v", args.v}, {"slots", args.slots}, {"keys", args.keys}, {"values", args.values}};
  for (const auto& [name, tensor] : all) {
    BL_RETURN_IF_ERROR(check_element_alignment("kv_write", name, tensor, error));
  }
  const int64_t heads = args.k.shape[1], key_dim = args.k.shape[2], value_dim = args.v.shape[2];
  // Of one token; each factor is below 2^60.
  const __int128 channels = static_cast<__int128>(heads) * (key_dim + value_dim);
  if (args.k.shape[0] == 0 || channels == 0) return BL_STATUS_ok;
  BL_CHECK(channels <= INT32_MAX / 2, unsupported,
           "kv_write: %lld heads of %lld and %lld channels, expected fewer than 2^30 in all on device",
           static_cast<long long>(heads), static_cast<long long>(key_dim), static_cast<long long>(value_dim));
  KvWriteParams params{};
  params.k = rows_of(args.k);
  params.v = rows_of(args.v);
  params.keys = rows_of(args.keys);
  params.values = rows_of(args.values);
  params.slots = static_cast<const int32_t*>(args.slots.data);
  params.slot_stride = args.slots.strides[0];
  params.tokens = args.k.shape[0];
  params.capacity = args.keys.shape[0];
  params.heads = static_cast<int32_t>(heads);
  params.key_dim = static_cast<int32_t>(key_dim);
  params.value_dim = static_cast<int32_t>(value_dim);
  LaunchShape shape;
  shape.block.x = kKvThreads;
  shape.grid.x =
      static_cast<uint32_t>(std::min<int64_t>(ceil_div(static_cast<int64_t>(channels), kKvThreads), 64));
  shape.grid.y = static_cast<uint32_t>(std::min(params.tokens, kMaxGridY));
  return queue.launch(kv_module, "kv_write", shape, params, error);
}

}  // namespace bitloom::cuda
