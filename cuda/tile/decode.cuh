// A lane's words of a unit in layout fragments to f16 pairs, the first operand of mma: its 16 rows are rows of b. One class per kind of code; the
// layout (native/formats/fragments_place.h) is such that a pair is in place after a mask, or a shift and a mask.
#pragma once

#include <cstdint>

#include "../../native/formats/fragments_place.h"
#include "../ops/matmul/config.h"
#include "../ptx/bits.cuh"
#include "../ptx/copy.cuh"
#include "table_layout.h"

namespace bitloom::cuda {

using gemm::FragmentWeights;

// What the weights of a lane share in a column: f16, twice. weight = fma(value - zero, scale, offset). Tables: offset
// is where the group's pair table begins in shared memory, in bytes, with the lane's own copy.
struct GroupScale {
  uint32_t scale, offset, zero;
};

// How load_words reads: shared memory, or weights that go from global memory to registers.
struct LoadPlain {
  static __device__ __forceinline__ uint4 load_16(const char* at) { return *reinterpret_cast<const uint4*>(at); }
  static __device__ __forceinline__ uint2 load_8(const char* at) { return *reinterpret_cast<const uint2*>(at); }
  static __device__ __forceinline__ uint32_t load_4(const char* at) { return *reinterpret_cast<const uint32_t*>(at); }
};
struct LoadOnce {
  static __device__ __forceinline__ uint4 load_16(const char* at) { return ptx::load_once_16(at); }
  static __device__ __forceinline__ uint2 load_8(const char* at) { return ptx::load_once_8(at); }
  static __device__ __forceinline__ uint32_t load_4(const char* at) { return ptx::load_once_4(at); }
};

// Bytes of a lane in a plane, at a time.
BL_HOST_DEVICE constexpr int lane_bytes(int plane) { return plane >= 4 ? 16 : 4 * plane; }
BL_HOST_DEVICE constexpr int first_plane(int bits) { return bits >= 16 ? 16 : widest_plane(bits); }

// Words of a lane in all planes, the widest plane first. `own`: where the lane's begin in that one.
template <class Load, int kBits>
__device__ __forceinline__ void load_lane_words(uint32_t (&words)[kBits], const char* own, int lane) {
  int at = 0;
#pragma unroll
  for (int plane = first_plane(kBits); plane > 0; plane /= 2) {
    if ((kBits & plane) == 0) continue;
    const char* bytes = own + 128 * at + (lane_bytes(plane) - lane_bytes(first_plane(kBits))) * lane;
    if (plane >= 4) {
#pragma unroll
      for (int i = 0; i < plane / 4; ++i) {
        const uint4 four = Load::load_16(bytes + 512 * i);
        words[at + 4 * i] = four.x;
        words[at + 4 * i + 1] = four.y;
        words[at + 4 * i + 2] = four.z;
        words[at + 4 * i + 3] = four.w;
      }
    } else if (plane == 2) {
      const uint2 two = Load::load_8(bytes);
      words[at] = two.x;
      words[at + 1] = two.y;
    } else {
      words[at] = Load::load_4(bytes);
    }
    at += plane;
  }
}
template <int kBits>
__device__ __forceinline__ void load_words(uint32_t (&words)[kBits], const char* unit, int lane) {
  load_lane_words<LoadPlain>(words, unit + lane_bytes(first_plane(kBits)) * lane, lane);
}

__device__ __forceinline__ uint32_t shifted(uint32_t word, int right) {
  return right >= 0 ? word >> right : word << -right;
}

// What mma takes decoded pairs: f16; scales are in them. decode_bf16.cuh has bf16.
struct F16Products {
  static constexpr bool kBf16 = false;
  static constexpr bool kScalesSums = false;  // scales multiply the sums of products, in f32, and no weights
  static constexpr bool kByteScales = false;  // kPlainScale, but of a byte
};

// f16 bits of 2^e twice, -14 <= e <= 15.
BL_HOST_DEVICE constexpr uint32_t half2_power(int e) { return static_cast<uint32_t>((e + 15) << 10) * 0x00010001u; }

// Where the value of a pair ends up among the ten mantissa bits of f16. 7 bits leave no room for a second place.
template <int kBits>
__device__ constexpr int target_bit(int step, int pair) {
  constexpr int first = widest_plane(kBits);
  if (first == 8 || kBits == 7) return 0;
  if (first == 4) return 4 * (pair % 2);
  return first == 2 ? 2 * pair : (4 * step + pair) % 8;
}

// The code of a pair's halves at bit `target` of each, over `base`.
template <int kBits>
__device__ __forceinline__ uint32_t gather_pair(const uint32_t (&words)[kBits], int step, int pair, int target,
                                                uint32_t base) {
  constexpr int first = widest_plane(kBits);
  uint32_t x = base;
  int at = 0, code_shift = 0;
#pragma unroll
  for (int plane = 8; plane > 0; plane /= 2) {
    if ((kBits & plane) == 0) continue;
    const PairPlace place = pair_place(plane, first, step, pair);
    const int bit = target + code_shift;
    const uint32_t mask = ((1u << plane) - 1) * 0x00010001u << bit;
    x = ptx::and_or(shifted(words[at + place.word], place.bit - bit), mask, x);
    at += plane;
    code_shift += plane;
  }
  return x;
}

// Codes are integers with one zero for the matrix: value - zero is exact in f16. 1024 + code is f16 0x6400 | code.
template <int kBits>
struct CentredCodes : F16Products {
  static constexpr int kWords = kBits;
  static constexpr bool kTable = false;
  static constexpr bool kPlainScale = true;  // scales are f16 or bf16 as they are stored, and there is nothing else
  uint32_t low, high;  // 1024 + zero; -(64 + zero)

  __device__ __forceinline__ CentredCodes(const FragmentWeights& b) {
    low = ptx::f16x2_of(1024 + b.zero, 1024 + b.zero);
    high = ptx::f16x2_of(-64 - b.zero, -64 - b.zero);
  }
  __device__ __forceinline__ uint32_t centred(const uint32_t (&words)[kBits], int step, int i) const {
    static_assert(kBits == 4 || kBits == 8);
    const int target = target_bit<kBits>(step, i);
    const uint32_t x = gather_pair<kBits>(words, step, i, target, 0x64006400);
    return target == 0 ? ptx::sub_f16x2(x, low) : ptx::fma_f16x2(x, half2_power(-4), high);
  }
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i,
                                           const GroupScale& g) const {
    return ptx::mul_f16x2(centred(words, step, i), g.scale);
  }
};

// The same; their scales multiply sums, which few rows of a have few of.
template <int kBits>
struct CentredSums : CentredCodes<kBits> {
  static constexpr bool kScalesSums = true;

  __device__ __forceinline__ CentredSums(const FragmentWeights& b) : CentredCodes<kBits>(b) {}
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i, const GroupScale&) const {
    return this->centred(words, step, i);
  }
};

// Codes are integers with a zero of the group's own, which may have a fraction.
template <int kBits>
struct ZeroedCodes : F16Products {
  static constexpr int kWords = kBits;
  static constexpr bool kTable = false;
  static constexpr bool kPlainScale = false;

  __device__ __forceinline__ ZeroedCodes(const FragmentWeights&) {}
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i,
                                           const GroupScale& g) const {
    const int target = target_bit<kBits>(step, i);
    const uint32_t x = gather_pair<kBits>(words, step, i, target, 0x64006400);
    const uint32_t code = target == 0 ? ptx::sub_f16x2(x, half2_power(10))
                                      : ptx::fma_f16x2(x, half2_power(-target),
                                                       half2_power(10 - target) | 0x80008000);
    return ptx::fma_f16x2(ptx::sub_f16x2(code, g.zero), g.scale, g.offset);
  }
};

// Small floats: sign and magnitude bits go where f16 has them; that it has another exponent bias is in the scale.
template <int kBits>
struct Elements : F16Products {
  static constexpr int kWords = kBits;
  static constexpr bool kTable = false;
  static constexpr bool kPlainScale = false;
  int shift;  // of the magnitude: 7 or 8; 9 at 4 bits

  __device__ __forceinline__ Elements(const FragmentWeights& b) : shift(b.exponent_shift) {}
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i,
                                           const GroupScale& g) const {
    constexpr uint32_t kMagnitude = ((1u << (kBits - 1)) - 1) * 0x00010001u;
    uint32_t x;
    if (kBits == 4) {
      const uint32_t w = words[step];
      const uint32_t sign = shifted(w, 4 * i - 12) & 0x80008000u;
      x = ptx::and_or(shifted(w, 4 * i - 9), 0x0e000e00u, sign);
    } else {
      const uint32_t code = gather_pair<kBits>(words, step, i, 0, 0);
      const uint32_t sign = (code << (16 - kBits)) & 0x80008000u;
      x = ptx::and_or(code << shift, kMagnitude << shift, sign);
    }
    return ptx::mul_f16x2(x, g.scale);
  }
};

extern __shared__ __align__(128) char shared_memory[];

// Codes index a table: that of their pairs is at the beginning of the shared memory.
template <int kBits, int kCopies_>
struct TableCodes : F16Products {
  static constexpr int kCopies = kCopies_;
  static constexpr int kWords = kBits;
  static constexpr bool kTable = true;
  static constexpr bool kPlainScale = false;
  static constexpr int kTableBytes = pair_table_bytes(kBits, kCopies);
  static constexpr int kEntryShift = kCopies == 32 ? 7 : kCopies == 16 ? 6 : 5;  // log2(4 * kCopies)

  __device__ __forceinline__ TableCodes(const FragmentWeights&) {}
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i,
                                           const GroupScale& g) const {
    uint32_t address = g.offset;
    int at = 0, field = kEntryShift;
#pragma unroll
    for (int plane = 4; plane > 0; plane /= 2) {
      if ((kBits & plane) == 0) continue;
      const PairPlace place = table_pair_place(plane, step, i);
      const uint32_t mask = ((1u << 2 * plane) - 1) << field;
      address = ptx::and_or(shifted(words[at + place.word], place.bit - field), mask, address);
      at += plane;
      field += 2 * plane;
    }
    return ptx::mul_f16x2(*reinterpret_cast<const uint32_t*>(shared_memory + address), g.scale);
  }

  // Fills the pair tables: tables [count][2^bits] of f16 bits.
  __device__ static void fill(const uint16_t* tables, int count, int thread, int threads) {
    for (int i = thread; i < count << 2 * kBits; i += threads) {
      uint32_t low = 0, high = 0;
      int field = 0, shift = 0;
#pragma unroll
      for (int plane = 4; plane > 0; plane /= 2) {
        if ((kBits & plane) == 0) continue;
        low |= (i >> field & ((1 << plane) - 1)) << shift;
        high |= (i >> (field + plane) & ((1 << plane) - 1)) << shift;
        field += 2 * plane;
        shift += plane;
      }
      const uint16_t* table = tables + (i >> 2 * kBits << kBits);
      const uint32_t entry = table[low] | static_cast<uint32_t>(table[high]) << 16;
      uint4* copies = reinterpret_cast<uint4*>(shared_memory + (i << kEntryShift));
#pragma unroll
      for (int copy = 0; copy < kCopies / 4; ++copy) copies[copy] = make_uint4(entry, entry, entry, entry);
    }
  }
};

// The first operand of an mma step: rows g and g + 8 of a unit, with the scales of each.
template <class Codes>
__device__ __forceinline__ void decode_step(const Codes& codes, const uint32_t (&words)[Codes::kWords], int step,
                                            const GroupScale (&g)[2], uint32_t (&weights)[4]) {
#pragma unroll
  for (int i = 0; i < 4; ++i) weights[i / 2 + i % 2 * 2] = codes.pair(words, step, i, g[i / 2]);
}

// f16 weights as they are, [step][lane][4 pairs].
struct Halves : F16Products {
  static constexpr int kWords = 16;
  static constexpr bool kTable = false;
  static constexpr bool kPlainScale = false;

  __device__ __forceinline__ Halves(const FragmentWeights&) {}
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[16], int step, int i, const GroupScale&) const {
    return words[4 * step + i];
  }
};

}  // namespace bitloom::cuda
