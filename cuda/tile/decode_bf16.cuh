// As decode.cuh, to bf16 pairs, each the weight itself: for activations of bf16 as they lie. A code less its zero has at most
// 8 bits and so is a bf16; its scale multiplies the sum over the group, in f32. The elements of OCP Microscaling have 2 to
// 4 bits, their scales 1 (powers of two) or 4 (e4m3): the product is a bf16.
#pragma once

#include "decode.cuh"

namespace bitloom::cuda {

struct Bf16Products {
  static constexpr bool kBf16 = true;
  static constexpr bool kTable = false;
  static constexpr bool kPlainScale = true;
};

// bf16 bits of 2^e twice, -126 <= e <= 127.
BL_HOST_DEVICE constexpr uint32_t brain2_power(int e) { return static_cast<uint32_t>((e + 127) << 7) * 0x00010001u; }

// Codes of 4 bits with one zero for the matrix, an integer; of 8 bits with the zero 128. 128 + code is bf16 0x4300 | code
// up to 7 bits.
template <int kBits>
struct CentredBf16 : Bf16Products {
  static_assert(kBits == 4 || kBits == 8);
  static constexpr bool kScalesSums = true;
  static constexpr bool kByteScales = false;
  static constexpr int kWords = kBits;
  uint32_t back;  // 4 bits: -(128 + zero)

  __device__ __forceinline__ CentredBf16(const FragmentWeights& b) { back = ptx::bf16x2_of(-128 - b.zero, -128 - b.zero); }
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i, const GroupScale&) const {
    constexpr uint32_t kOne = brain2_power(0);
    if constexpr (kBits == 4) {
      return ptx::fma_bf16x2(gather_pair<4>(words, step, i, 0, 0x43004300), kOne, back);
    } else {
      // The lower 7 bits over 128, less 128 where the top bit is set, else 256: 0xc380 with bit 7 taken away or not.
      const PairPlace place = pair_place(8, 8, step, i);
      const uint32_t code = shifted(words[place.word], place.bit);
      return ptx::fma_bf16x2(ptx::and_or(code, 0x007f007f, 0x43004300), kOne, ptx::and_xor(code, 0x00800080, 0xc380c380));
    }
  }
};

// Small floats with scales of a byte: sign and magnitude go where bf16 has them. Its exponents begin at 2^-126, theirs at
// 2^(1 - bias): a multiplication by 2^(127 - bias) comes first, which with the scale in one number could be too large.
template <int kBits>
struct ElementsBf16 : Bf16Products {
  static constexpr bool kScalesSums = false;
  static constexpr bool kByteScales = true;
  static constexpr int kWords = kBits;
  int shift;       // of the magnitude: 6 at 4 bits, else 4 or 5
  uint32_t power;  // 2^(127 - bias)

  __device__ __forceinline__ ElementsBf16(const FragmentWeights& b) {  // into f16's places: 10 - mantissa bits
    shift = b.exponent_shift - 3;
    const int exponent_bits = kBits - 1 - (10 - b.exponent_shift);
    power = static_cast<uint32_t>(254 - ((1 << (exponent_bits - 1)) - 1)) * 0x00800080u;
  }
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i, const GroupScale& g) const {
    uint32_t x;
    if constexpr (kBits == 4) {
      const uint32_t sign = shifted(words[step], 4 * i - 12) & 0x80008000u;
      x = ptx::and_or(shifted(words[step], 4 * i - 6), 0x01c001c0u, sign);
    } else {
      constexpr uint32_t kMagnitude = ((1u << (kBits - 1)) - 1) * 0x00010001u;
      const uint32_t code = gather_pair<kBits>(words, step, i, 0, 0);
      x = ptx::and_or(code << shift, kMagnitude << shift, (code << (16 - kBits)) & 0x80008000u);
    }
    constexpr uint32_t kMinusZero = 0x80008000u;  // the sum with it keeps the sign of a product that is zero
    return ptx::fma_bf16x2(ptx::fma_bf16x2(x, power, kMinusZero), g.scale, kMinusZero);
  }
};

// bf16 weights as they are.
struct HalvesBf16 : Halves {
  static constexpr bool kBf16 = true;
  static constexpr bool kPlainScale = true;
  __device__ __forceinline__ HalvesBf16(const FragmentWeights& b) : Halves(b) {}
};

}  // namespace bitloom::cuda
