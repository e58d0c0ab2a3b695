// Pages of a paged cache: one head's keys or values of page_size tokens.
//
// Tokens stand in units of 16 (a page of 8 uses half of one). A dword holds the n = 32 / bits elements that
// one multiply-add instruction takes together, so that a vector is 16 dwords side by side:
//
//   keys     header | unit 0: [ceil(dim / n)][16 tokens] dwords | unit 1 ...     n channels of a token in a
//   dword values   header | unit 0: [16 / n][lanes] dwords           | unit 1 ...     n tokens of a channel
//   in a dword
//
// lanes is dim rounded up to 16. Element j of a dword (channel n i + j; token n i + j of the unit):
//
//   32, 16 and 8 bits   j-th part of the dword, the lowest first
//   4 bits              nibble j / 4 (0: the low one) of byte j % 4
//   2 bits              bits 2 (j / 4) and 2 (j / 4) + 1 of byte j % 4
//
// so that one mask and shift turns a vector of dwords into 4 codes in bytes for each lane. What stands beyond
// dim or page_size is 0: encoding a token writes zeros beyond dim; tokens never written are as the memory was
// handed over, which is all zero.
//
// header, by the format's scale (kv_formats.inc), padded to 64 bytes:
//   none      nothing
//   token     float scale[units * 16]                    value = code * scale, code -127 to 127
//   channel   keys:   f16 scale[dim], f16 offset[dim]    value = code * scale + offset, code from 0
//             values: f16 [units * 16][ceil(dim / 32)][2]: scale and offset of a token and 32 channels
//   block     keys and values: uint8 exponent[units * 16][ceil(dim / 16)]: value = code * 2^(exponent - 127),
//   code in
//             two's complement, -(2^(bits - 1) - 1) to 2^(bits - 1) - 1
#pragma once

#include <cstdint>

#include "../base/float16.h"
#include "../include/bitloom_attention.h"
#include "kv_scales.h"

namespace bitloom {

enum class KvScale { none, token, channel, block };

constexpr int64_t kKvUnit = 16;          // tokens
constexpr int64_t kKvValueGroup = 32;    // channels that share a scale: values of KvScale::channel
constexpr int64_t kKvBlock = 16;         // channels that share an exponent
constexpr int32_t kMaxKvPageSize = 256;  // tokens
constexpr int32_t kMaxKvDim = 1024;

// What a page of a format looks like; for keys or for values.
struct KvPage {
  int32_t format;  // bl_kv_format
  int32_t bits;
  KvScale scale;
  bool values;
  int32_t page_size, dim;
  int32_t per_dword;  // n
  int64_t units;      // ceil(page_size / 16)
  int64_t lanes;      // values: dim rounded up to 16
  int64_t rows;       // of 16 or `lanes` dwords in a unit
  int64_t groups;     // channel groups of a token's scales (values of `channel`, `block`), else 0
  int64_t header_bytes;
  int64_t unit_bytes;
  int64_t bytes;  // of the page: a multiple of 64

  const uint8_t* unit(const uint8_t* page, int64_t index) const {
    return page + header_bytes + index * unit_bytes;
  }
};

// Where an element stands in a page: `shift` bits up in the dword at `offset` bytes.
struct KvPlace {
  int64_t offset;
  int32_t shift;
};

inline KvPlace kv_place(const KvPage& layout, int64_t token, int64_t channel) {
  const int64_t n = layout.per_dword;
  const int64_t t = token % kKvUnit;
  const int64_t dword = layout.values ? t / n * layout.lanes + channel : channel / n * kKvUnit + t;
  const int32_t j = static_cast<int32_t>((layout.values ? t : channel) % n);
  const int32_t shift = layout.bits >= 8 ? j * layout.bits : j % 4 * 8 + j / 4 * layout.bits;
  return {layout.header_bytes + token / kKvUnit * layout.unit_bytes + dword * 4, shift};
}

// The scale and offset of an element, KvScale::channel.
inline KvAffine kv_affine(const KvPage& layout, const uint8_t* page, int64_t token, int64_t channel) {
  if (!layout.values) {
    return {load_as<uint16_t>(page + 2 * channel), load_as<uint16_t>(page + 2 * (layout.dim + channel))};
  }
  return load_as<KvAffine>(page + 4 * (token * layout.groups + channel / kKvValueGroup));
}

// False if there is no such page.
bool kv_page(int32_t format, bool values, int32_t page_size, int32_t dim, KvPage* page);

// Decodes tokens [begin, begin + count) of a page to output [count][dim]. The specification of what a page
// means.
void decode_kv(const KvPage& layout, const uint8_t* page, int64_t begin, int64_t count, float* output);

// Encodes `count` tokens, input [count][dim] with `stride` floats from row to row (0: dim), as tokens [begin,
// begin + count). Where scales are per channel (keys of KvScale::channel) it must be the whole page: begin 0,
// count page_size. Everything else in the page stays as it is. Rounding is to nearest even; f8e4m3 saturates
// at 448. A NaN or infinity: float formats keep it (f8e4m3: infinity becomes NaN); in the others the token's
// group is NaN as a whole (scale NaN, codes 0; block: exponent 255, which stands for NaN), so that it is not
// lost. Scales: kv_scales.h.
void encode_kv(const KvPage& layout, uint8_t* page, int64_t begin, int64_t count, const float* input,
               int64_t stride = 0);

}  // namespace bitloom
