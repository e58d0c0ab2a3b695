// The block types of GGUF files, byte for byte (layouts as published with ggml, ggml-common.h).
//
// All numbers are little endian; `scale`, `min`, `super_scale` and `super_min` are binary16 bits. In the
// pictures `lo(a..b)` is the low four bits of bytes a to b and `hi(a..b)` the high four.
#pragma once

#include <cstdint>

namespace bitloom {

#pragma pack(push, 1)

// | scale: 2 | codes: 32 x int8 |                                   w[i] = scale * codes[i]
struct BlockQ8_0 {
  uint16_t scale;
  int8_t codes[32];
};
static_assert(sizeof(BlockQ8_0) == 34);

// | scale: 2 | codes: 16 |                        w[0..16) = lo, w[16..32) = hi; scale * (code - 8)
struct BlockQ4_0 {
  uint16_t scale;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ4_0) == 18);

// | scale: 2 | min: 2 | codes: 16 |                                 as q4_0, scale * code + min
struct BlockQ4_1 {
  uint16_t scale;
  uint16_t min;
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ4_1) == 20);

// | scale: 2 | high_bits: 4 | codes: 16 |   codes as q4_0; bit i of high_bits (a 32-bit word) is the
//                                           fifth bit of code i; scale * (code - 16)
struct BlockQ5_0 {
  uint16_t scale;
  uint8_t high_bits[4];
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ5_0) == 22);

// | scale: 2 | min: 2 | high_bits: 4 | codes: 16 |                  as q5_0, scale * code + min
struct BlockQ5_1 {
  uint16_t scale;
  uint16_t min;
  uint8_t high_bits[4];
  uint8_t codes[16];
};
static_assert(sizeof(BlockQ5_1) == 24);

// K types: 256 weights in sub-blocks with small integer scales (and mins) of their own.
//   w[i] = super_scale * scale[s] * code - super_min * min[s], s the sub-block of weight i.

// | scales_and_mins: 16 | codes: 64 | super_scale: 2 | super_min: 2 |   16 sub-blocks of 16
//   byte s of scales_and_mins: scale in lo, min in hi.
//   codes, 2 bits: weight 128h + 32p + l is at bits [2p, 2p+2) of codes[32h + l].
struct BlockQ2K {
  uint8_t scales_and_mins[16];
  uint8_t codes[64];
  uint16_t super_scale;
  uint16_t super_min;
};
static_assert(sizeof(BlockQ2K) == 84);

// | high_bits: 32 | codes: 64 | scales: 12 | super_scale: 2 |           16 sub-blocks of 16, no mins
//   codes as q2_k; the third bit of weight 32p + l (p 0 to 7) is bit p of high_bits[l]; w has code - 4.
//   scales, 6 bits, minus 32: the low four of scale s are lo(s) for s < 8 and hi(s - 8) for the others,
//   the high two are bits [2(s/4), 2(s/4)+2) of scales[8 + s%4].
struct BlockQ3K {
  uint8_t high_bits[32];
  uint8_t codes[64];
  uint8_t scales[12];
  uint16_t super_scale;
};
static_assert(sizeof(BlockQ3K) == 110);

// | super_scale: 2 | super_min: 2 | scales: 12 | codes: 128 |           8 sub-blocks of 32
//   scales, 6 bits: for s < 4 scale = scales[s] & 63, min = scales[s+4] & 63; for s >= 4
//   scale = lo(s+4) | scales[s-4]>>6<<4, min = hi(s+4) | scales[s]>>6<<4.
//   codes, 4 bits: weight 64h + l is lo(32h + l), weight 64h + 32 + l is hi(32h + l).
struct BlockQ4K {
  uint16_t super_scale;
  uint16_t super_min;
  uint8_t scales[12];
  uint8_t codes[128];
};
static_assert(sizeof(BlockQ4K) == 144);

// | super_scale: 2 | super_min: 2 | scales: 12 | high_bits: 32 | codes: 128 |
//   as q4_k; the fifth bit of weight 32p + l (p 0 to 7) is bit p of high_bits[l].
struct BlockQ5K {
  uint16_t super_scale;
  uint16_t super_min;
  uint8_t scales[12];
  uint8_t high_bits[32];
  uint8_t codes[128];
};
static_assert(sizeof(BlockQ5K) == 176);

// | codes: 128 | high_bits: 64 | scales: 16 x int8 | super_scale: 2 |   16 sub-blocks of 16, no mins
//   weight 128h + 32p + l: low four bits at lo (p 0, 1) or hi (p 2, 3) of codes[64h + 32(p%2) + l],
//   high two at bits [2p, 2p+2) of high_bits[32h + l]; w has code - 32.
struct BlockQ6K {
  uint8_t codes[128];
  uint8_t high_bits[64];
  int8_t scales[16];
  uint16_t super_scale;
};
static_assert(sizeof(BlockQ6K) == 210);

// | codes: 48 | tail_codes: 4 | scale: 2 |                              w = scale * (trit - 1)
//   A byte holds five trits as the fraction ceil(t / 3^5 * 256), t = t0*81 + t1*27 + t2*9 + t3*3 + t4:
//   trit n is the whole part of 3 * frac(byte * 3^n / 256). Trit n of codes[m], m < 32, is weight
//   32n + m; of codes[32 + m], weight 160 + 16n + m; of tail_codes[m] (n < 4), weight 240 + 4n + m.
struct BlockTQ1_0 {
  uint8_t codes[48];
  uint8_t tail_codes[4];
  uint16_t scale;
};
static_assert(sizeof(BlockTQ1_0) == 54);

// | codes: 64 | scale: 2 |                                              w = scale * (code - 1)
//   weight 128h + 32p + l is at bits [2p, 2p+2) of codes[32h + l].
struct BlockTQ2_0 {
  uint8_t codes[64];
  uint16_t scale;
};
static_assert(sizeof(BlockTQ2_0) == 66);

// | scale: 2 | codes: 16 |                                              as q4_0, scale * kIq4Nl[code]
struct BlockIQ4NL {
  uint16_t scale;
  uint8_t codes[16];
};
static_assert(sizeof(BlockIQ4NL) == 18);

// | exponent: 1 | codes: 16 |                        as q4_0, 2^(exponent - 127) * kE2m1[code]; 255: NaN
//   (OCP MXFP4; ggml's tables hold doubled elements and halve the scale)
struct BlockMXFP4 {
  uint8_t exponent;
  uint8_t codes[16];
};
static_assert(sizeof(BlockMXFP4) == 17);

// | scales: 4 | codes: 32 |              4 sub-blocks of 16, UE4M3 scales: scale[s] * kE2m1[code]
//   weight 16s + l is lo(8s + l) for l < 8, hi(8s + l - 8) for the others.
struct BlockNVFP4 {
  uint8_t scales[4];
  uint8_t codes[32];
};
static_assert(sizeof(BlockNVFP4) == 36);

#pragma pack(pop)

// iq4_nl's levels: denser around zero, where weights are.
inline constexpr int8_t kIq4Nl[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                      1,    13,   25,  38,  53,  69,  89,  113};

// Scale and min of sub-block `s` (0 to 7) of q4_k and q5_k from their 12 packed bytes.
struct ScaleAndMin {
  int scale;
  int min;
};
inline ScaleAndMin unpack_scale_and_min(const uint8_t* scales, int s) {
  if (s < 4) return {scales[s] & 63, scales[s + 4] & 63};
  return {(scales[s + 4] & 15) | (scales[s - 4] >> 6 << 4), (scales[s + 4] >> 4) | (scales[s] >> 6 << 4)};
}

// Scale of sub-block `s` (0 to 15) of q3_k, -32 to 31.
inline int unpack_q3_k_scale(const uint8_t* scales, int s) {
  const int low = s < 8 ? scales[s] & 15 : scales[s - 8] >> 4;
  const int high = (scales[8 + s % 4] >> (2 * (s / 4))) & 3;
  return (low | high << 4) - 32;
}

}  // namespace bitloom
