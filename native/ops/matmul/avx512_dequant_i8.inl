// Sixteen rows of weights in a vector at level avx512; included inside the region.

#include "avx512_scales.inl"

namespace {

using Lanes = __m512;
using Ints = __m512i;
constexpr int kMostRows = 8;
constexpr bool kTablesDiffer = false;  // a lookup gives a byte at once
constexpr Values kSmallTableForm = Values::byte_table;

inline Lanes lanes_load(const float* p) { return _mm512_loadu_ps(p); }
inline void lanes_store(float* p, Lanes x) { _mm512_storeu_ps(p, x); }
inline Lanes lanes_set(float x) { return _mm512_set1_ps(x); }
inline Lanes lanes_mul(Lanes a, Lanes b) { return _mm512_mul_ps(a, b); }
inline Lanes lanes_add(Lanes a, Lanes b) { return _mm512_add_ps(a, b); }
inline Lanes lanes_fma(Lanes a, Lanes b, Lanes c) { return _mm512_fmadd_ps(a, b, c); }
inline Lanes lanes_negate(Lanes a) { return _mm512_xor_ps(a, _mm512_set1_ps(-0.0f)); }
inline Lanes lanes_of_ints(Ints a) { return _mm512_cvtepi32_ps(a); }
inline Ints ints_set(int32_t x) { return _mm512_set1_epi32(x); }
inline Lanes lanes_of_f16(const uint8_t* bytes) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
}
inline Lanes lanes_of_bf16(const uint8_t* bytes) {
  const __m512i bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
  return _mm512_castsi512_ps(_mm512_slli_epi32(bits, 16));
}
inline Lanes lanes_of_e8m0(const uint8_t* bytes) { return exponent_scales(bytes); }
inline Lanes lanes_of_e4m3(const uint8_t* bytes) { return e4m3_scales(bytes); }
inline Lanes lanes_of_bytes(const int8_t* bytes) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes))));
}

// The matrix of vgf2p8affineqb that makes bits [shift, shift + width) of a byte its bits [to, to + width),
// the others 0: bit i of the result is the parity of the byte and matrix byte 7 - i.
constexpr uint64_t field_matrix(int width, int shift, int to) {
  uint64_t matrix = 0;
  for (int i = 0; i < width; ++i) matrix |= uint64_t{1} << (8 * (7 - (to + i)) + shift + i);
  return matrix;
}

// One instruction on port 5 where a shift (port 0) and an and would be two.
template <int width, int shift, int to>
inline __m512i field(__m512i x) {
  if constexpr (shift == to) {
    return _mm512_and_si512(x, _mm512_set1_epi8(static_cast<char>(((1 << width) - 1) << to)));
  } else {
    constexpr uint64_t kMatrix = field_matrix(width, shift, to);
    return _mm512_gf2p8affine_epi64_epi8(x, _mm512_set1_epi64(static_cast<int64_t>(kMatrix)), 0);
  }
}

template <typename Body, int... v>
inline __attribute__((always_inline)) void unroll(Body&& body, std::integer_sequence<int, v...>) {
  (body(std::integral_constant<int, v>{}), ...);
}

// sums += four values of every row times four activations. In assembly, because gcc 12 makes the broadcast an
// instruction of its own: of two for each product one was that.
inline __attribute__((always_inline)) void add_products(__m512i& sums, __m512i values, const int8_t* codes) {
#if defined(__SANITIZE_ADDRESS__)
  sums = _mm512_dpbusd_epi32(sums, values, _mm512_set1_epi32(load_as<int32_t>(codes)));
#else
  __asm__("vpdpbusd %2%{1to16%}, %1, %0"
          : "+v"(sums)
          : "v"(values), "m"(*reinterpret_cast<const int32_t*>(codes)));
#endif
}

// Sub-scales as signed bytes [sub][16], `zero` subtracted. kSubBits 4: 32 of them; 6 and 8: 16.
template <int kSubBits>
inline void unpack_subs(const uint8_t* packed, int32_t zero, int8_t* subs) {
  const __m512i zeros = _mm512_set1_epi8(static_cast<char>(zero));
  if constexpr (kSubBits == 8) {
    for (int i = 0; i < 4; ++i) {
      _mm512_store_si512(subs + 64 * i, _mm512_sub_epi8(_mm512_loadu_si512(packed + 64 * i), zeros));
    }
    return;
  }
  constexpr int kRuns = kSubBits == 4 ? 4 : 2;
  for (int i = 0; i < kRuns; ++i) {
    const __m512i nibbles = _mm512_loadu_si512(packed + 64 * i);
    __m512i low = field<4, 0, 0>(nibbles);
    __m512i high = field<4, 4, 0>(nibbles);
    if constexpr (kSubBits == 6) {
      const __m512i pairs = _mm512_loadu_si512(packed + 128);
      low = _mm512_or_si512(low, i == 0 ? field<2, 0, 4>(pairs) : field<2, 2, 4>(pairs));
      high = _mm512_or_si512(high, i == 0 ? field<2, 4, 4>(pairs) : field<2, 6, 4>(pairs));
    }
    _mm512_store_si512(subs + 64 * i, _mm512_sub_epi8(low, zeros));
    _mm512_store_si512(subs + 64 * (kRuns + i), _mm512_sub_epi8(high, zeros));
  }
}

template <typename F>
class Unpack {
 public:
  explicit Unpack(const PanelFormat& f) : transpose_(_mm512_setzero_si512()), table_(transpose_) {
    alignas(64) uint8_t bytes[64];
    for (int i = 0; i < 64; ++i) bytes[i] = static_cast<uint8_t>(16 * (i % 4) + i / 4);
    transpose_ = _mm512_load_si512(bytes);
    // vpermb reads 6 bits of an index: a table of 16 four times makes the upper two not matter.
    for (int i = 0; i < 64; ++i) bytes[i] = f.table[F::kBits == 4 ? i % 16 : i];
    table_ = _mm512_load_si512(bytes);
  }

  // products[r][p] += the chunk's values times codes[32 r + [0, 32)], p-th part.
  template <int kRows>
  inline __attribute__((always_inline)) void multiply(const uint8_t* chunk, const int8_t* codes,
                                                      __m512i (&products)[kRows][F::kParts]) const {
    const Runs runs = load_runs(chunk);
    // 0, 4, 1, 5, ...: both halves of a nibble run while it is in a register.
    unroll(
        [&](auto index) __attribute__((always_inline)) {
          constexpr int v = index;
          const __m512i values = value<v>(chunk, runs);
          for (int r = 0; r < kRows; ++r) {
            add_products(products[r][v * F::kParts / 8], values, codes + r * kChunk + 4 * v);
          }
        },
        std::integer_sequence<int, 0, 4, 1, 5, 2, 6, 3, 7>{});
  }

 private:
  static constexpr bool kFours = F::kBits != 8 && (F::kBits & 4) != 0;
  static constexpr bool kTwos = F::kBits != 8 && (F::kBits & 2) != 0;
  static constexpr bool kOnes = F::kBits != 8 && (F::kBits & 1) != 0;
  static constexpr int kTwosAt = kFours ? 4 : 0;  // place in a code
  static constexpr int kOnesAt = kTwosAt + (kTwos ? 2 : 0);

  // Planes of 2 and 1 bits, in the order of lanes.
  struct Runs {
    __m512i twos[2];
    __m512i ones;
  };
  inline Runs load_runs(const uint8_t* chunk) const {
    Runs runs;
    if constexpr (kTwos) {
      runs.twos[0] = _mm512_permutexvar_epi8(transpose_, _mm512_loadu_si512(chunk + 64 * kTwosAt));
      runs.twos[1] = _mm512_permutexvar_epi8(transpose_, _mm512_loadu_si512(chunk + 64 * kTwosAt + 64));
    }
    if constexpr (kOnes) {
      runs.ones = _mm512_permutexvar_epi8(transpose_, _mm512_loadu_si512(chunk + 64 * kOnesAt));
    }
    return runs;
  }

  // (x >> shift & (2^width - 1)) | high
  template <int width, int shift>
  static inline __m512i join(__m512i x, __m512i high) {
    const __m512i mask = _mm512_set1_epi8((1 << width) - 1);
    return _mm512_ternarylogic_epi64(shift == 0 ? x : _mm512_srli_epi16(x, shift), mask, high, 0xea);
  }

  template <int v>
  inline __m512i value(const uint8_t* chunk, const Runs& runs) const {
    if constexpr (F::kTable && F::kBits == 4) {
      const __m512i pairs = _mm512_loadu_si512(chunk + 64 * (v % 4));
      return _mm512_permutexvar_epi8(v < 4 ? pairs : _mm512_srli_epi16(pairs, 4), table_);
    } else if constexpr (F::kTable) {
      return _mm512_permutexvar_epi8(code<v>(chunk, runs), table_);
    } else {
      return code<v>(chunk, runs);
    }
  }

  template <int v>
  static inline __m512i code(const uint8_t* chunk, const Runs& runs) {
    constexpr int kTwoShift = 2 * (v / 2);
    if constexpr (F::kBits == 8) {
      return _mm512_loadu_si512(chunk + 64 * v);
    } else if constexpr (!kFours && !kTwos) {
      return field<1, v, F::kShift>(runs.ones);
    } else if constexpr (!kFours && !kOnes) {
      return field<2, kTwoShift, 0>(runs.twos[v % 2]);
    } else if constexpr (!kFours) {
      return join<2, kTwoShift>(runs.twos[v % 2], field<1, v, kOnesAt>(runs.ones));
    } else {
      const __m512i fours = _mm512_loadu_si512(chunk + 64 * (v % 4));
      constexpr int kShift = v < 4 ? 0 : 4;
      if constexpr (!kTwos && !kOnes) return field<4, kShift, 0>(fours);
      if constexpr (!kTwos) return join<4, kShift>(fours, field<1, v, kOnesAt>(runs.ones));
      __m512i high = field<2, kTwoShift, kTwosAt>(runs.twos[v % 2]);
      if constexpr (kOnes) high = _mm512_or_si512(high, field<1, v, kOnesAt>(runs.ones));
      return join<4, kShift>(fours, high);
    }
  }

  __m512i transpose_;
  __m512i table_;
};

}  // namespace
