#include "pages.h"

#include <cstdio>
#include <iterator>

#include "../../isa/isa.h"
#include "kernel.h"

namespace bitloom {

namespace {

const KvKernel kKernels[] = {
#define BL_KV_KERNEL(isa)                                           \
  {"kv_" #isa,          BL_ISA_##isa,         isa::kv_encode_token, \
   isa::kv_encode_page, isa::kv_decode_token, isa::kv_nearest_row},
#include "kernels.inc"
#undef BL_KV_KERNEL
};

long long ll(int64_t value) { return static_cast<long long>(value); }

bl_status check_pages(Argument argument, const bl_kv_pages& pages, bool values, KvPage* layout,
                      bl_error* error) {
  const char* op = argument.op;
  const char* name = argument.name;
  BL_CHECK(bl_kv_format_name(pages.format) != nullptr, invalid_format,
           "%s: %s.format is %d, expected 0 to %d", op, name, pages.format, BL_KV_FORMAT_count - 1);
  BL_CHECK(pages.page_size >= 8 && pages.page_size <= kMaxKvPageSize && pages.page_size % 8 == 0,
           invalid_shape, "%s: %s.page_size is %d, expected a multiple of 8 from 8 to %d", op, name,
           pages.page_size, kMaxKvPageSize);
  BL_CHECK(pages.dim >= 1 && pages.dim <= kMaxKvDim, invalid_shape, "%s: %s.dim is %d, expected 1 to %d", op,
           name, pages.dim, kMaxKvDim);
  BL_CHECK(pages.num_heads >= 1, invalid_shape, "%s: %s.num_heads is %d, expected at least 1", op, name,
           pages.num_heads);
  BL_CHECK(pages.num_pages >= 0 && pages.num_pages <= INT32_MAX, invalid_shape,
           "%s: %s.num_pages is %lld, expected 0 to 2^31 - 1", op, name, ll(pages.num_pages));
  kv_page(pages.format, values, pages.page_size, pages.dim, layout);
  // Below 2^31 pages of 2^31 heads of 2^21 bytes.
  const auto needed = static_cast<unsigned __int128>(pages.num_pages) *
                      static_cast<unsigned>(pages.num_heads) * static_cast<uint64_t>(layout->bytes);
  BL_CHECK(needed <= pages.bytes, buffer_too_small,
           "%s: %s.bytes is %llu, expected at least %llu (%lld pages)", op, name,
           static_cast<unsigned long long>(pages.bytes), static_cast<unsigned long long>(needed),
           ll(pages.num_pages));
  BL_CHECK(reinterpret_cast<uintptr_t>(pages.data) % 4 == 0, invalid_argument,
           "%s: %s.data is not aligned to 4 bytes", op, name);
  return BL_STATUS_ok;
}

// k or v against its pages.
bl_status check_rows(Argument argument, const bl_tensor& rows, const char* pages_name,
                     const bl_kv_pages& pages, bool written, bl_error* error) {
  BL_RETURN_IF_ERROR(written ? check_output(argument, rows, kFloatTypes, 3, 3, error)
                             : check_tensor(argument, rows, kFloatTypes, 3, 3, error));
  char name[32];
  std::snprintf(name, sizeof(name), "%s.dim", pages_name);
  return check_dim(argument, rows, 2, pages.dim, name, error);
}

bl_status check_values(KvCall* call, bool written, bl_error* error) {
  const char* op = call->op;
  if (call->values.data == nullptr) {
    BL_CHECK(call->v.data == nullptr, invalid_argument,
             "%s: v is given, expected none (the pages have no values)", op);
    return BL_STATUS_ok;
  }
  BL_CHECK(call->v.data != nullptr || call->v.rank != 0, invalid_argument,
           "%s: v is missing, expected a tensor (the pages have values)", op);
  BL_RETURN_IF_ERROR(check_pages({op, "values"}, call->values, true, &call->value_page, error));
  BL_CHECK(call->values.page_size == call->keys.page_size, invalid_shape,
           "%s: values.page_size is %d, expected %d (= keys.page_size)", op, call->values.page_size,
           call->keys.page_size);
  BL_CHECK(call->values.num_heads == call->keys.num_heads, invalid_shape,
           "%s: values.num_heads is %d, expected %d (= keys.num_heads)", op, call->values.num_heads,
           call->keys.num_heads);
  BL_CHECK(call->values.num_pages == call->keys.num_pages, invalid_shape,
           "%s: values.num_pages is %lld, expected %lld (= keys.num_pages)", op, ll(call->values.num_pages),
           ll(call->keys.num_pages));
  BL_RETURN_IF_ERROR(check_rows({op, "v"}, call->v, "values", call->values, written, error));
  BL_RETURN_IF_ERROR(check_dim({op, "v"}, call->v, 0, call->tokens, "k.shape[0]", error));
  return check_dim({op, "v"}, call->v, 1, call->heads, "k.shape[1]", error);
}

bl_status check_heads(const KvCall& call, bl_error* error) {
  const char* op = call.op;
  BL_RETURN_IF_ERROR(check_tensor({op, "slots"}, call.slots, dtype_bit(BL_DTYPE_i32), 1, 2, error));
  BL_RETURN_IF_ERROR(check_dim({op, "slots"}, call.slots, 0, call.tokens, "k.shape[0]", error));
  if (call.slots.rank == 2) {
    BL_RETURN_IF_ERROR(check_dim({op, "slots"}, call.slots, 1, call.heads, "k.shape[1]", error));
    BL_CHECK(call.keys.num_heads == 1 || call.keys.num_heads == call.heads, invalid_shape,
             "%s: keys.num_heads is %d, expected 1 or %lld (= k.shape[1])", op, call.keys.num_heads,
             ll(call.heads));
  } else {
    BL_CHECK(call.keys.num_heads == call.heads, invalid_shape,
             "%s: k.shape[1] is %lld, expected %d (= keys.num_heads) with slots of rank 1", op,
             ll(call.heads), call.keys.num_heads);
  }
  if (call.key_mean.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor({op, "key_mean"}, call.key_mean, dtype_bit(BL_DTYPE_f32), 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim({op, "key_mean"}, call.key_mean, 0, call.heads, "k.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({op, "key_mean"}, call.key_mean, 1, call.keys.dim, "keys.dim", error));
  BL_CHECK(call.keys.dim == 1 || call.key_mean.strides[1] == 1, invalid_shape,
           "%s: key_mean.strides[1] is %lld, expected 1", op, ll(call.key_mean.strides[1]));
  BL_CHECK(reinterpret_cast<uintptr_t>(call.key_mean.data) % alignof(float) == 0, invalid_argument,
           "%s: key_mean.data is not aligned to 4 bytes", op);
  return BL_STATUS_ok;
}

// What is written lies apart from all else.
bl_status check_memory(const KvCall& call, bool written, bl_error* error) {
  struct Memory {
    const char* name;
    const void* data;
    uint64_t bytes;
    bool written;
  };
  const auto pages_of = [&](const char* name, const bl_kv_pages& pages, const KvPage& layout) {
    const int64_t bytes = pages.data == nullptr ? 0 : pages.num_pages * pages.num_heads * layout.bytes;
    return Memory{name, pages.data, static_cast<uint64_t>(bytes), !written};
  };
  const auto tensor_of = [](const char* name, const bl_tensor& tensor, bool is_written) {
    uint64_t elements = tensor.data == nullptr ? 0 : 1;
    for (int axis = 0; axis < tensor.rank && elements != 0; ++axis) {
      if (tensor.shape[axis] == 0) elements = 0;
      if (tensor.shape[axis] != 0)
        elements += static_cast<uint64_t>((tensor.shape[axis] - 1) * tensor.strides[axis]);
    }
    return Memory{name, tensor.data, elements * static_cast<uint64_t>(dtype_bytes(tensor.dtype)), is_written};
  };
  const Memory all[] = {pages_of("keys", call.keys, call.key_page),
                        pages_of("values", call.values, call.value_page),
                        tensor_of("k", call.k, written),
                        tensor_of("v", call.v, written),
                        tensor_of("slots", call.slots, false),
                        tensor_of("key_mean", call.key_mean, false)};
  for (const Memory& a : all) {
    for (const Memory& b : all) {
      BL_CHECK(&a == &b || !a.written || !overlaps(a.data, a.bytes, b.data, b.bytes), invalid_argument,
               "%s: %s overlaps %s, expected separate memory", call.op, a.name, b.name);
    }
  }
  return BL_STATUS_ok;
}

}  // namespace

const KvKernel& choose_kv_kernel(const char* op, const bl_run& run) {
  const int32_t isa = isa_of(run);
  for (const KvKernel& row : kKernels) {
    const bool taken = row.isa <= isa;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: %s: %s: %s\n", op, row.name, taken ? "taken" : "ISA level");
    }
    if (taken) return row;
  }
  return kKernels[std::size(kKernels) - 1];  // not reached: the scalar row needs nothing
}

bl_status check_kv_call(const char* op, const bl_kv_pages& keys, const bl_kv_pages& values,
                        const bl_tensor& k, const bl_tensor& v, const bl_tensor& slots,
                        const bl_tensor& key_mean, bool written, KvCall* call, bl_error* error) {
  *call = {op, keys, values, {}, {}, k, v, slots, key_mean, 0, 0};
  BL_RETURN_IF_ERROR(check_pages({op, "keys"}, keys, false, &call->key_page, error));
  BL_CHECK(keys.data != nullptr || keys.num_pages == 0, invalid_argument, "%s: keys.data is null", op);
  BL_RETURN_IF_ERROR(check_rows({op, "k"}, k, "keys", keys, written, error));
  call->tokens = k.shape[0];
  call->heads = k.shape[1];
  BL_RETURN_IF_ERROR(check_values(call, written, error));
  BL_RETURN_IF_ERROR(check_heads(*call, error));
  return check_memory(*call, written, error);
}

bl_status check_slots(const KvCall& call, bl_error* error) {
  const int64_t end = call.keys.num_pages * call.keys.page_size;
  const int64_t heads = call.slots.rank == 2 ? call.heads : 1;
  const uint8_t* data = static_cast<const uint8_t*>(call.slots.data);
  for (int64_t t = 0; t < call.tokens; ++t) {
    for (int64_t h = 0; h < heads; ++h) {
      const int64_t index =
          t * call.slots.strides[0] + (call.slots.rank == 2 ? h * call.slots.strides[1] : 0);
      const int32_t slot = load_as<int32_t>(data + index * 4);
      BL_CHECK(slot >= -1 && slot < end, out_of_range,
               "%s: slots[%lld] is %d, expected -1 to %lld (= num_pages * page_size - 1)", call.op,
               ll(t * heads + h), slot, ll(end - 1));
    }
  }
  return BL_STATUS_ok;
}

}  // namespace bitloom
