// A lane's words of a unit in layout fragments to e4m3 bytes, the first operand of an mma of fp8 with 32 columns: as
// integer_codes.cuh, in its order of columns. Each byte is the weight over its group's scale, exactly, but for a power
// of two of the kernel's codes, which is in FragmentWeights::factor.
#pragma once

#include "integer_codes.cuh"

namespace bitloom::cuda {

struct Fp8Products {
  using Product = float;  // of the mma
  static constexpr bool kCentred = true;  // a scale is all that a group has
  static constexpr int kTimes = 0;
  __device__ static void multiply(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1, const float (&c)[4]) {
    ptx::mma_m16n8k32_e4m3(d, a, b0, b1, c);
  }
};

// 4-bit integers less 8. Numbers up to 15 * 2^-9 are even spaced in e4m3, subnormal or not: the bits of n * 2^-9 are n.
struct CentredFp8 : Fp8Products {
  static constexpr int kWords = 4;
  static constexpr bool kByteScales = false;

  __device__ static void operand(const uint32_t (&words)[4], int half, int, uint32_t (&a)[4]) {
    const auto signed_bytes = [](uint32_t codes, uint32_t top) {  // top: bit 7 is the code's highest
      return ptx::difference_u8x4(codes, 0x08080808u) | (~top & 0x80808080u);
    };
#pragma unroll
    for (int side = 0; side < 2; ++side) {
      const uint32_t both = ptx::permute(words[2 * half], words[2 * half + 1], side == 0 ? 0x6420 : 0x7531);
      a[side] = signed_bytes(both & 0x0f0f0f0fu, both << 4);
      a[side + 2] = signed_bytes(both >> 4 & 0x0f0f0f0fu, both);
    }
  }
};

// The elements of OCP Microscaling but e5m2. Their exponents have another bias than e4m3's, which subnormal numbers
// share: the same bits further up are the number times a power of two.
template <int kBits>
struct ElementsFp8 : Fp8Products {
  static_assert(kBits == 4 || kBits == 6 || kBits == 8);
  static constexpr int kWords = kBits;
  static constexpr bool kByteScales = true;

  // shift, of e3m2: 1; of e2m3: 0.
  __device__ static void operand(const uint32_t (&words)[kBits], int half, int shift, uint32_t (&a)[4]) {
    if constexpr (kBits == 8) {
#pragma unroll
      for (int i = 0; i < 4; ++i) a[i] = words[4 * half + i];
    } else if constexpr (kBits == 4) {
#pragma unroll
      for (int side = 0; side < 2; ++side) {
        const uint32_t both = ptx::permute(words[2 * half], words[2 * half + 1], side == 0 ? 0x6420 : 0x7531);
        a[side] = ptx::and_or(both << 2, 0x1c1c1c1cu, both << 4 & 0x80808080u);
        a[side + 2] = ptx::and_or(both >> 2, 0x1c1c1c1cu, both & 0x80808080u);
      }
    } else {
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int step = 2 * half + i / 2, pair = i % 2 * 2;
        const uint32_t low = gather_pair<kBits>(words, step, pair, 0, 0);
        const uint32_t codes = gather_pair<kBits>(words, step, pair + 1, 8, low);
        a[i] = ptx::and_or(codes << 2, 0x80808080u, (codes & 0x1f1f1f1fu) << shift);
      }
    }
  }
};

}  // namespace bitloom::cuda
