// Panels to f32 at level avx512: included inside the region that isa/avx512_begin.h opens, after panel.h,
// <immintrin.h>, <type_traits> and isa/simd_avx512.inl. avx2_decode.inl has the same names for halves of eight rows.
//
// A decoder opens a chunk and gives its weights four at a time: four(chunk, v, w), w[j] the sixteen rows' weight 4v + j
// before scale and offset: value(code) - zero, a table's entry, or the float itself. What is the same for both levels is
// in decode.inl.
#include "avx512_scales.inl"

namespace {

constexpr int kHalves = 1;  // vectors to sixteen rows

// What is taken off value(code): zero, and of zero points the part that all groups share.
inline int32_t value_bias(const PanelFormat& f) { return f.zero + static_cast<int32_t>(f.zero_shift); }

// Codes of a chunk: vector v has the codes of weights 4v + j in byte j of its rows' dwords. The bits above a code
// are what was there: lookups and masks drop them.
template <int kBits>
struct Codes {
  const uint8_t* chunk;
  __m512i two[2], one;  // planes of 2 and 1 bits, brought from byte 16j + r to 4r + j

  static constexpr int kOffsetOfTwo = kBits >= 4 ? 256 : 0;
  static constexpr int kOffsetOfOne = 64 * (kBits - 1);

  Codes(const uint8_t* at, int /*half*/) : chunk(at) {
    if constexpr (kBits < 8 && (kBits & 3) != 0) {
      const __m512i places = _mm512_add_epi32(
          _mm512_set1_epi32(0x30201000),
          _mm512_mullo_epi32(_mm512_set1_epi32(0x01010101),
                             _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)));
      if constexpr ((kBits & 2) != 0) {
        two[0] = _mm512_permutexvar_epi8(places, _mm512_loadu_si512(chunk + kOffsetOfTwo));
        two[1] = _mm512_permutexvar_epi8(places, _mm512_loadu_si512(chunk + kOffsetOfTwo + 64));
      }
      if constexpr ((kBits & 1) != 0) {
        one = _mm512_permutexvar_epi8(places, _mm512_loadu_si512(chunk + kOffsetOfOne));
      }
    }
  }

  // x >> n, or << -n. Bits of neighbouring bytes only reach places that do not count.
  static __m512i shift(__m512i x, int n) {
    return n == 0 ? x : n > 0 ? _mm512_srli_epi32(x, n) : _mm512_slli_epi32(x, -n);
  }
  // mask ? low : high
  static __m512i select(int mask, __m512i low, __m512i high) {
    return _mm512_ternarylogic_epi32(_mm512_set1_epi8(static_cast<char>(mask)), low, high, 0xca);
  }

  __m512i vector(int v) const {
    if constexpr (kBits == 8) return _mm512_loadu_si512(chunk + 64 * v);
    if constexpr (kBits == 1) return shift(one, v);
    if constexpr (kBits == 2) return shift(two[v % 2], v / 2 * 2);
    if constexpr (kBits == 3) return select(3, shift(two[v % 2], v / 2 * 2), shift(one, v - 2));
    if constexpr (kBits >= 4 && kBits < 8) {
      __m512i codes = shift(_mm512_loadu_si512(chunk + 64 * (v % 4)), v / 4 * 4);
      if constexpr ((kBits & 2) != 0) codes = select(15, codes, shift(two[v % 2], v / 2 * 2 - 4));
      if constexpr ((kBits & 1) != 0) codes = select((1 << (kBits - 1)) - 1, codes, shift(one, v - (kBits - 1)));
      return codes;
    }
  }
};

// Values of codes by a table in registers: any format of 1 to 5 bits.
template <int kBits>
struct TableValues {
  __m512 low, high;

  static __m512 entries(const PanelFormat& f, int first) {
    const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    const __m512i code = _mm512_and_si512(lanes, _mm512_set1_epi32((1 << kBits) - 1));
    if (f.float_table != nullptr) {
      const __mmask16 there = static_cast<__mmask16>(kBits >= 4 ? 0xffff : (1 << (1 << kBits)) - 1);
      return _mm512_permutexvar_ps(code, _mm512_maskz_loadu_ps(there, f.float_table + first));
    }
    __m512i value = _mm512_slli_epi32(_mm512_add_epi32(code, _mm512_set1_epi32(first)), static_cast<unsigned>(f.shift));
    if (f.value_kind == ValueKind::table) {
      const __m512i values = _mm512_cvtepu8_epi32(
          _mm_loadu_si128(reinterpret_cast<const __m128i*>(f.table + first)));
      value = _mm512_permutexvar_epi32(code, values);
    }
    return _mm512_cvtepi32_ps(_mm512_sub_epi32(value, _mm512_set1_epi32(value_bias(f))));
  }

  explicit TableValues(const PanelFormat& f) : low(entries(f, 0)), high(low) {
    if constexpr (kBits == 5) high = entries(f, 16);
  }
  Vec value(__m512i code) const {
    if constexpr (kBits == 5) return {_mm512_permutex2var_ps(low, code, high)};
    return {_mm512_permutexvar_ps(code, low)};
  }
};

// Integers of 6 to 8 bits: the code becomes the low bits of 2^23, an exact float.
template <int kBits>
struct IntegerValues {
  __m512 base;

  explicit IntegerValues(const PanelFormat& f) : base(_mm512_set1_ps(0x1p23f + static_cast<float>(value_bias(f)))) {}
  Vec value(__m512i code) const {
    const __m512i number = _mm512_ternarylogic_epi32(code, _mm512_set1_epi32((1 << kBits) - 1),
                                                     _mm512_set1_epi32(0x4b000000), 0xea);
    return {_mm512_sub_ps(_mm512_castsi512_ps(number), base)};
  }
};

// Tables of 64 to 256 floats: four registers, or memory.
template <int kBits>
struct WideTableValues {
  const float* table;
  __m512 quarters[4];

  explicit WideTableValues(const PanelFormat& f) : table(f.float_table) {
    if constexpr (kBits == 6) {
      for (int i = 0; i < 4; ++i) quarters[i] = _mm512_loadu_ps(table + 16 * i);
    }
  }
  Vec value(__m512i code) const {
    if constexpr (kBits == 6) {
      const __mmask16 upper = _mm512_test_epi32_mask(code, _mm512_set1_epi32(32));
      return {_mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(quarters[0], code, quarters[1]),
                                   _mm512_permutex2var_ps(quarters[2], code, quarters[3]))};
    }
    return {_mm512_i32gather_ps(_mm512_and_si512(code, _mm512_set1_epi32((1 << kBits) - 1)), table, 4)};
  }
};

// By which of these the integer formats go, and the formats with tables of floats.
template <int kBits>
using Integers = std::conditional_t<kBits <= 5, TableValues<kBits>, IntegerValues<kBits>>;
template <int kBits>
using FloatTable = std::conditional_t<kBits <= 5, TableValues<kBits>, WideTableValues<kBits>>;

template <int kBits, typename Values>
struct CodeDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true;
  static constexpr bool kOffsets = std::is_same_v<Values, Integers<kBits>>, kTables = false;
  Values values;

  explicit CodeDecoder(const PanelFormat& f) : values(f) {}
  using Chunk = Codes<kBits>;
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, Vec* w) const {
    const __m512i codes = chunk.vector(v);
    w[0] = values.value(codes);
    w[1] = values.value(_mm512_srli_epi32(codes, 8));
    w[2] = values.value(_mm512_srli_epi32(codes, 16));
    w[3] = values.value(_mm512_srli_epi32(codes, 24));
  }
};

template <int kFormat>
struct FloatDecoder {
  static constexpr int kBytes = kFormat == BL_FORMAT_f32 ? 2048 : 1024;
  static constexpr bool kCodes = false;
  static constexpr bool kOffsets = false, kTables = false;

  explicit FloatDecoder(const PanelFormat&) {}
  struct Chunk {
    const uint8_t* runs;
    Chunk(const uint8_t* at, int /*half*/) : runs(at) {}
  };
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, Vec* w) const {
    if constexpr (kFormat == BL_FORMAT_f32) {
      for (int j = 0; j < 4; ++j) w[j] = {_mm512_loadu_ps(chunk.runs + 64 * (4 * v + j))};
    } else {
      for (int i = 0; i < 2; ++i) two(_mm512_loadu_si512(chunk.runs + 64 * (2 * v + i)), w + 2 * i);
    }
  }
  // Sixteen pairs of halves: all first ones, all second ones.
  inline __attribute__((always_inline)) static void two(__m512i pairs, Vec* w) {
    if constexpr (kFormat == BL_FORMAT_bf16) {
      w[0] = {_mm512_castsi512_ps(_mm512_slli_epi32(pairs, 16))};
      w[1] = {_mm512_castsi512_ps(_mm512_and_si512(pairs, _mm512_set1_epi32(-65536)))};
      return;
    }
    const __m512i sorted = _mm512_set_epi16(31, 29, 27, 25, 23, 21, 19, 17, 15, 13, 11, 9, 7, 5, 3, 1, 30, 28, 26, 24,
                                            22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0);
    const __m512i apart = _mm512_permutexvar_epi16(sorted, pairs);
    w[0] = {_mm512_cvtph_ps(_mm512_castsi512_si256(apart))};
    w[1] = {_mm512_cvtph_ps(_mm512_extracti64x4_epi64(apart, 1))};
  }
};

// Sixteen stored scales, zero points or minimums.
inline Vec load_stored(const PanelFormat& f, const uint8_t* bytes) {
  if (f.scale_type == BL_SCALE_e8m0) return {exponent_scales(bytes)};
  if (f.scale_type == BL_SCALE_e4m3) return {e4m3_scales(bytes)};
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes));
  if (f.scale_type == BL_SCALE_f16) return {_mm512_cvtph_ps(halves)};
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))};
}

// One sub-scale of sixteen rows: bits [shift, shift + 8) of 16 bytes, masked.
using SubScales = __m512i;
inline SubScales load_sub(const uint8_t* bytes, int shift, int mask) {
  const __m512i wide = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  return _mm512_and_si512(_mm512_srl_epi32(wide, _mm_cvtsi32_si128(shift)), _mm512_set1_epi32(mask));
}
inline SubScales join_sub(SubScales low, SubScales high) {
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 4));
}
inline Vec sub_value(SubScales sub, int zero) {
  return {_mm512_cvtepi32_ps(_mm512_sub_epi32(sub, _mm512_set1_epi32(zero)))};
}

}  // namespace

#include "avx512_decode_tables.inl"
#include "decode.inl"
