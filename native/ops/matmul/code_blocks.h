// 256 weights of a GGUF block format taken apart for the SIMD kernels:
// weight i = scales[i / 16] * codes[i] + mins[i / 16].
#pragma once

#include <cstdint>

#include "../../formats/formats.h"

namespace bitloom {

constexpr int64_t kCodeBlock = 256;

struct CodeBlock {
  alignas(64) int8_t codes[kCodeBlock];
  alignas(64) float scales[kCodeBlock / 16];
  alignas(64) float mins[kCodeBlock / 16];
};

// Formats that CodeBlock holds: the quantized GGUF types but q8_0 and q4_0, which have kernels of their own.
inline bool is_code_block_format(const bl_format_info& info) {
  switch (info.gguf_type) {
    case 3:
    case 6:
    case 7:  // q4_1, q5_0, q5_1
    case 10:
    case 11:
    case 12:
    case 13:
    case 14:  // q2_k to q6_k
    case 20:
    case 34:
    case 35:  // iq4_nl, tq1_0, tq2_0
      return true;
    default:
      return false;
  }
}

// True if any weight has a minimum added: q4_1, q5_1, q2_k, q4_k, q5_k.
inline bool has_mins(const bl_format_info& info) {
  const int32_t type = info.gguf_type;
  return type == 3 || type == 7 || type == 10 || type == 12 || type == 13;
}

}  // namespace bitloom
