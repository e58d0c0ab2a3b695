// The contract of kv_append, kv_gather and nearest_keys kernels.
#pragma once

#include <cstdint>

#include "../../formats/kv_page.h"
#include "../../include/bitloom_attention.h"

namespace bitloom {

// Floats of a token's row in scratch: whole vectors, so that kernels have no tails.
constexpr int64_t kv_row_floats(int64_t dim) { return (dim + 15) / 16 * 16; }

// Three functions for tokens, each the same as the specification (native/formats/kv_page.h) bit for bit. A
// row is kv_row_floats(dim) floats; those beyond dim are zero in what an encoder gets, and of no meaning in
// what a decoder writes. Rows have room for kMaxKvDim floats. Pure: no allocation, no threads, no errors.
// Pages are aligned to 4 bytes, rows to 64.

// encode_kv of one token; not for keys of KvScale::channel. May change the row.
using KvEncodeToken = void (*)(const KvPage& layout, uint8_t* page, int64_t token, float* row);
// encode_kv of a whole page of keys of KvScale::channel: rows [page_size].
using KvEncodePage = void (*)(const KvPage& layout, uint8_t* page, const float* rows);
// decode_kv of one token.
using KvDecodeToken = void (*)(const KvPage& layout, const uint8_t* page, int64_t token, float* row);

// The first of `count` rows [count][floats] whose product with `query` [floats] is largest, 0 where none is a
// number; *best is that product, -infinity where none is. floats is a multiple of 16. Products are sums in
// f32 (scalar: in double), so that rows whose products differ by less than (floats / 16 + 8) * 2^-24 * sum |q
// r| may change places.
using KvNearestRow = int64_t (*)(const float* query, const float* rows, int64_t count, int64_t floats,
                                 float* best);

struct KvKernel {
  const char* name;
  int32_t isa;
  KvEncodeToken encode_token;
  KvEncodePage encode_page;
  KvDecodeToken decode_token;
  KvNearestRow nearest_row;
};

// The best kernel of the call's ISA level.
const KvKernel& choose_kv_kernel(const char* op, const bl_run& run);

#define BL_KV_KERNEL(isa)                                                                                    \
  namespace isa {                                                                                            \
  void kv_encode_token(const KvPage& layout, uint8_t* page, int64_t token, float* row);                      \
  void kv_encode_page(const KvPage& layout, uint8_t* page, const float* rows);                               \
  void kv_decode_token(const KvPage& layout, const uint8_t* page, int64_t token, float* row);                \
  int64_t kv_nearest_row(const float* query, const float* rows, int64_t count, int64_t floats, float* best); \
  }
#include "kernels.inc"
#undef BL_KV_KERNEL

}  // namespace bitloom
