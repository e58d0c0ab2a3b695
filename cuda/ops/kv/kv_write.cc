// Host side of kv_write.
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
  const int64_t tokens = args.k.shape[0], heads = args.k.shape[1];
  const int64_t key_dim = args.k.shape[2], value_dim = args.v.shape[2];
  // Of one token; each factor is below 2^60.
  const __int128 channels = static_cast<__int128>(heads) * (key_dim + value_dim);
  if (tokens == 0 || channels == 0) return BL_STATUS_ok;
  constexpr int64_t kMostChannels = kMaxGridY * kKvThreads;
  BL_CHECK(
      tokens <= INT32_MAX && channels <= kMostChannels, unsupported,
      "kv_write: %lld tokens of %lld heads with %lld and %lld channels, expected fewer than 2^31, and at "
      "most %lld channels of all heads on device",
      static_cast<long long>(tokens), static_cast<long long>(heads), static_cast<long long>(key_dim),
      static_cast<long long>(value_dim), static_cast<long long>(kMostChannels));
  KvWriteParams params{};
  params.k = rows_of(args.k);
  params.v = rows_of(args.v);
  params.keys = rows_of(args.keys);
  params.values = rows_of(args.values);
  params.slots = static_cast<const int32_t*>(args.slots.data);
  params.slot_stride = args.slots.strides[0];
  params.capacity = args.keys.shape[0];
  params.heads = static_cast<int32_t>(heads);
  params.key_dim = static_cast<int32_t>(key_dim);
  params.value_dim = static_cast<int32_t>(value_dim);
  LaunchShape shape;
  shape.block.x = kKvThreads;
  shape.grid.x = static_cast<uint32_t>(tokens);
  shape.grid.y = static_cast<uint32_t>(ceil_div(static_cast<int64_t>(channels), kKvThreads));
  return queue.launch(kv_module, "kv_write", shape, params, error);
}

}  // namespace bitloom::cuda
