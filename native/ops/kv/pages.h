// What kv_append and kv_gather share: checked pages and slots.
#pragma once

#include <cstdint>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../formats/kv_page.h"
#include "kernel.h"

namespace bitloom {

// A checked call: tokens, heads and where their pages lie. The two operators differ in the direction only.
struct KvCall {
  const char* op;
  bl_kv_pages keys, values;  // values.data null: there are none
  KvPage key_page, value_page;
  bl_tensor k, v;      // [tokens, heads, dim]
  bl_tensor slots;     // [tokens] or [tokens, heads] i32
  bl_tensor key_mean;  // [heads, key_dim] f32, or data null
  int64_t tokens, heads;

  // The slot of a token's head, -1 also where it is not in the pages: it was checked before, but may be
  // shared memory that another thread has changed since.
  int64_t slot(int64_t token, int64_t head) const {
    const int64_t index = token * slots.strides[0] + (slots.rank == 2 ? head * slots.strides[1] : 0);
    const int64_t value = load_as<int32_t>(static_cast<const uint8_t*>(slots.data) + index * 4);
    return value < keys.num_pages * keys.page_size ? value : -1;
  }
  // The memory of a head in a page.
  uint8_t* page(const bl_kv_pages& pages, const KvPage& layout, int64_t index, int64_t head) const {
    return static_cast<uint8_t*>(pages.data) +
           (index * pages.num_heads + (pages.num_heads == 1 ? 0 : head)) * layout.bytes;
  }
  // The row of a token's head in k or v.
  static uint8_t* row(const bl_tensor& tensor, int64_t token, int64_t head) {
    return static_cast<uint8_t*>(tensor.data) +
           (token * tensor.strides[0] + head * tensor.strides[1]) * dtype_bytes(tensor.dtype);
  }
  // The row itself where a kernel can take it as it is, else null: f32, contiguous, whole vectors of 16.
  static float* direct(const bl_tensor& tensor, int64_t token, int64_t head) {
    uint8_t* data = row(tensor, token, head);
    const bool fits = tensor.dtype == BL_DTYPE_f32 && tensor.strides[2] == 1 && tensor.shape[2] % 16 == 0 &&
                      reinterpret_cast<uintptr_t>(data) % alignof(float) == 0;
    return fits ? reinterpret_cast<float*>(data) : nullptr;
  }
  // Mean of a head's keys, [key_dim], or null.
  const float* mean(int64_t head) const {
    return key_mean.data == nullptr ? nullptr
                                    : static_cast<const float*>(key_mean.data) + head * key_mean.strides[0];
  }
};

// Checks everything but the values of slots, and fills `call`. k and v are written: outputs.
bl_status check_kv_call(const char* op, const bl_kv_pages& keys, const bl_kv_pages& values,
                        const bl_tensor& k, const bl_tensor& v, const bl_tensor& slots,
                        const bl_tensor& key_mean, bool written, KvCall* call, bl_error* error);
// Every slot is -1 or in the pages. Reads their memory.
bl_status check_slots(const KvCall& call, bl_error* error);

}  // namespace bitloom
