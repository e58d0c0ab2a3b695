// Parameters of the kernel of kv_write, shared by host and device.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

struct KvRows {
  void* data;
  int64_t strides[3];  // of token or slot, head, channel; in elements
  int32_t dtype;
  int32_t reserved;
};

struct KvWriteParams {
  KvRows k, v, keys, values;
  const int32_t* slots;
  int64_t slot_stride;
  int64_t capacity;
  int32_t heads, key_dim, value_dim;
};

constexpr uint32_t kKvThreads = 256;

}  // namespace bitloom::cuda
