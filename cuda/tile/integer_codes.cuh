// A lane's words of a unit in layout fragments to bytes, the first operand of an mma of int8 with 32 columns: a[0], a[2]
// are the lane's 8 weights of row g in half a unit, a[1], a[3] those of row g + 8. In which order the 8 stand does not
// matter to a sum of integers, as long as the activations stand in the same one (code_places of config_i8.h), so
// decoders take the order that costs least.
#pragma once

#include "../ptx/mma.cuh"
#include "decode.cuh"

namespace bitloom::cuda {

// Integers of 4 or 8 bits whose zero is in the middle: signed bytes, those of 4 bits times 16.
template <int kBits>
struct CentredBytes {
  static_assert(kBits == 4 || kBits == 8);
  static constexpr int kWords = kBits;
  using Product = int32_t;  // of the mma
  static constexpr bool kCentred = true;
  static constexpr bool kByteScales = false;  // kCentred, but of a byte
  static constexpr int kTimes = kBits == 4 ? 4 : 0;  // log2 of what codes are multiplied with

  __device__ static void operand(const uint32_t (&words)[kBits], int half, int, uint32_t (&a)[4]) {
    if constexpr (kBits == 8) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = words[4 * half + i] ^ 0x80808080u;
    } else {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const uint32_t both = ptx::permute(words[2 * half], words[2 * half + 1], side == 0 ? 0x6420 : 0x7531);
        a[side] = ptx::and_xor(both << 4, 0xf0f0f0f0u, 0x80808080u);
        a[side + 2] = ptx::and_xor(both, 0xf0f0f0f0u, 0x80808080u);
      }
    }
  }
  __device__ static void multiply(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                  const int32_t (&c)[4]) {
    ptx::mma_m16n8k32_s8(d, a, b0, b1, c);
  }
};

// Codes of any width as they are: unsigned bytes.
template <int kBits>
struct PlainBytes {
  using Product = int32_t;
  static constexpr int kWords = kBits;
  static constexpr bool kCentred = false;
  static constexpr bool kByteScales = false;
  static constexpr int kTimes = 0;

  __device__ static void operand(const uint32_t (&words)[kBits], int half, int value_shift, uint32_t (&a)[4]) {
    if constexpr (kBits == 8) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = words[4 * half + i];
    } else if constexpr (kBits == 4) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const uint32_t both = ptx::permute(words[2 * half], words[2 * half + 1], side == 0 ? 0x6420 : 0x7531);
        a[side] = both & 0x0f0f0f0fu;
        a[side + 2] = both >> 4 & 0x0f0f0f0fu;
      }
    } else if constexpr (kBits == 2) {
#pragma unroll
      for (int pair = 0; pair < 4; ++pair) a[pair / 2 + pair % 2 * 2] = words[half] >> 2 * pair & 0x03030303u;
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int step = 2 * half + i / 2, pair = i % 2 * 2;
        const uint32_t low = gather_pair<kBits>(words, step, pair, 0, 0);
        a[i] = gather_pair<kBits>(words, step, pair + 1, 8, low);
        if (kBits == 1) a[i] <<= value_shift;
      }
    }
  }
  __device__ static void multiply(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1,
                                  const int32_t (&c)[4]) {
    ptx::mma_m16n8k32_u8_s8(d, a, b0, b1, c);
  }
};

}  // namespace bitloom::cuda
