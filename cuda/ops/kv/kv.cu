// kv_write: keys[slots[t]] = k[t], values[slots[t]] = v[t]. Blocks along x are tokens; along y they share the channels of one,
// those of all heads' keys, then of all heads' values. A token whose slot is outside is left out: nobody has checked it.
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {
namespace {

__device__ __forceinline__ void copy_channel(const KvRows& from, int64_t token, const KvRows& to, int64_t slot,
                                             uint32_t head, uint32_t channel) {
  const float value = load_element(from.dtype, from.data,
                                   token * from.strides[0] + head * from.strides[1] + channel * from.strides[2]);
  store_element(to.dtype, to.data, slot * to.strides[0] + head * to.strides[1] + channel * to.strides[2], value);
}

}  // namespace
}  // namespace bitloom::cuda

extern "C" __global__ void __launch_bounds__(bitloom::cuda::kKvThreads)
    kv_write(const __grid_constant__ bitloom::cuda::KvWriteParams p) {
  using namespace bitloom::cuda;
  const uint32_t key_dim = static_cast<uint32_t>(p.key_dim), value_dim = static_cast<uint32_t>(p.value_dim);
  const uint32_t keys = static_cast<uint32_t>(p.heads) * key_dim;
  const uint32_t channels = keys + static_cast<uint32_t>(p.heads) * value_dim;
  const uint32_t i = blockIdx.y * blockDim.x + threadIdx.x;
  const int64_t token = blockIdx.x, slot = p.slots[token * p.slot_stride];
  if (i >= channels || slot < 0 || slot >= p.capacity) return;
  if (i < keys) {
    copy_channel(p.k, token, p.keys, slot, i / key_dim, i % key_dim);
  } else {
    copy_channel(p.v, token, p.values, slot, (i - keys) / value_dim, (i - keys) % value_dim);
  }
}
