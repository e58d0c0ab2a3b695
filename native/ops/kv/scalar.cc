// kv_append, kv_gather and nearest_keys at level scalar: the specification itself.
#include <limits>

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

int64_t kv_nearest_row(const float* query, const float* rows, int64_t count, int64_t floats, float* best) {
  int64_t nearest = 0;
  double largest = -std::numeric_limits<double>::infinity();
  for (int64_t i = 0; i < count; ++i) {
    double product = 0;
    for (int64_t c = 0; c < floats; ++c) product += static_cast<double>(query[c]) * rows[i * floats + c];
    if (product > largest) {
      largest = product;
      nearest = i;
    }
  }
  *best = static_cast<float>(largest);
  return nearest;
}

}  // namespace bitloom::scalar
