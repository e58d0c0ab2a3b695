// kv_append and kv_gather at level scalar: the specification itself.
#include "kernel.h"

namespace bitloom::scalar {

void kv_encode_token(const KvPage& layout, uint8_t* page, int64_t token, const float* row) {
  encode_kv(layout, page, token, 1, row);
}

void kv_encode_page(const KvPage& layout, uint8_t* page, const float* rows, int64_t stride) {
  encode_kv(layout, page, 0, layout.page_size, rows, stride);
}

void kv_decode_token(const KvPage& layout, const uint8_t* page, int64_t token, float* row) {
  decode_kv(layout, page, token, 1, row);
}

}  // namespace bitloom::scalar
