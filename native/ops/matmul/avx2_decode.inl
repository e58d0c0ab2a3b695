// Panels to f32 at level avx2, eight rows (half a panel) at a time: included inside the region that isa/avx2_begin.h
// opens, after panel.h, <immintrin.h> and isa/simd_avx2.inl. The same names as in avx512_decode.inl, which explains
// them.
#include "avx2_scales.inl"

namespace {

constexpr int kHalves = 2;

// What is taken off value(code): zero, and of zero points the part that all groups share.
inline int32_t value_bias(const PanelFormat& f) { return f.zero + static_cast<int32_t>(f.zero_shift); }

template <int kBits>
struct Codes {
  const uint8_t* chunk;  // of the half: where its first row's dword is
  __m256i two[2], one;

  static constexpr int kOffsetOfTwo = kBits >= 4 ? 256 : 0;
  static constexpr int kOffsetOfOne = 64 * (kBits - 1);

  // Bytes 16j + r of a run to 4r + j.
  static __m256i turn(const uint8_t* run) {
    const auto eight = [run](int j) {
      return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(run + 16 * j));
    };
    const __m128i low = _mm_unpacklo_epi8(eight(0), eight(1));
    const __m128i high = _mm_unpacklo_epi8(eight(2), eight(3));
    return _mm256_set_m128i(_mm_unpackhi_epi16(low, high), _mm_unpacklo_epi16(low, high));
  }

  Codes(const uint8_t* at, int half) : chunk(at + 32 * half) {
    if constexpr (kBits < 8 && (kBits & 2) != 0) {
      two[0] = turn(at + kOffsetOfTwo + 8 * half);
      two[1] = turn(at + kOffsetOfTwo + 64 + 8 * half);
    }
    if constexpr (kBits < 8 && (kBits & 1) != 0) one = turn(at + kOffsetOfOne + 8 * half);
  }

  static __m256i shift(__m256i x, int n) {
    return n == 0 ? x : n > 0 ? _mm256_srli_epi32(x, n) : _mm256_slli_epi32(x, -n);
  }
  static __m256i select(int mask, __m256i low, __m256i high) {
    const __m256i bits = _mm256_set1_epi8(static_cast<char>(mask));
    return _mm256_or_si256(_mm256_and_si256(bits, low), _mm256_andnot_si256(bits, high));
  }
  static __m256i load(const uint8_t* p) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)); }

  __m256i vector(int v) const {
    if constexpr (kBits == 8) return load(chunk + 64 * v);
    if constexpr (kBits == 1) return shift(one, v);
    if constexpr (kBits == 2) return shift(two[v % 2], v / 2 * 2);
    if constexpr (kBits == 3) return select(3, shift(two[v % 2], v / 2 * 2), shift(one, v - 2));
    if constexpr (kBits >= 4 && kBits < 8) {
      __m256i codes = shift(load(chunk + 64 * (v % 4)), v / 4 * 4);
      if constexpr ((kBits & 2) != 0) codes = select(15, codes, shift(two[v % 2], v / 2 * 2 - 4));
      if constexpr ((kBits & 1) != 0) codes = select((1 << (kBits - 1)) - 1, codes, shift(one, v - (kBits - 1)));
      return codes;
    }
  }
};

// Integers: the code becomes the low bits of 2^23, an exact float; integer tables of at most 16 entries are looked up
// four weights at a time before.
template <int kBits>
struct IntegerValues {
  __m256 base;
  __m256i entries, mask;
  bool table;

  explicit IntegerValues(const PanelFormat& f)
      : base(_mm256_set1_ps(0x1p23f + static_cast<float>(value_bias(f)))),
        entries(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(f.table)))),
        mask(_mm256_set1_epi32(f.value_kind == ValueKind::table ? 255 : (1 << kBits) - 1)),
        table(f.value_kind == ValueKind::table) {}
  __m256i prepare(__m256i codes) const {
    if constexpr (kBits > 4) return codes;
    if (!table) return codes;
    return _mm256_shuffle_epi8(entries, _mm256_and_si256(codes, _mm256_set1_epi8((1 << kBits) - 1)));
  }
  Vec value(__m256i code) const {
    const __m256i number = _mm256_or_si256(_mm256_and_si256(code, mask), _mm256_set1_epi32(0x4b000000));
    return {_mm256_sub_ps(_mm256_castsi256_ps(number), base)};
  }
};

// Values by tables: of 8 floats in a register, of 16 as PlaneValues, longer ones in memory.
template <int kBits>
struct TableValues {
  const float* table;
  __m256 low;

  explicit TableValues(const PanelFormat& f) : table(f.float_table), low(_mm256_setzero_ps()) {
    if constexpr (kBits <= 3) {
      float entries[8];
      for (int i = 0; i < 8; ++i) {
        const int code = i & ((1 << kBits) - 1);
        entries[i] = f.float_table != nullptr
                         ? f.float_table[code]
                         : static_cast<float>(panel_value(f, static_cast<uint32_t>(code)) - value_bias(f));
      }
      low = _mm256_loadu_ps(entries);
    }
  }
  __m256i prepare(__m256i codes) const { return codes; }
  Vec value(__m256i code) const {
    if constexpr (kBits <= 3) return {_mm256_permutevar8x32_ps(low, code)};
    return {_mm256_i32gather_ps(table, _mm256_and_si256(code, _mm256_set1_epi32((1 << kBits) - 1)), 4)};
  }
};

// Values by a table of 16 floats, byte by byte: byte b of 32 entries is one byte shuffle, and two rounds of
// interleaving make floats of them. 14 instructions for 32 weights; by two lookups of 8 floats and a choice it
// was 27, 8 of them on the one port that shuffles across lanes.
struct PlaneValues {
  __m256i planes[4], by_weight;

  explicit PlaneValues(const PanelFormat& f) {
    alignas(16) uint8_t bytes[4][16];
    for (int code = 0; code < 16; ++code) {
      uint32_t bits;
      std::memcpy(&bits, &f.float_table[code], sizeof(bits));
      for (int b = 0; b < 4; ++b) bytes[b][code] = static_cast<uint8_t>(bits >> (8 * b));
    }
    for (int b = 0; b < 4; ++b) {
      planes[b] = _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(bytes[b])));
    }
    by_weight = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
  }
  inline __attribute__((always_inline)) void four(__m256i codes, Vec* w) const {
    const __m256i index = _mm256_shuffle_epi8(_mm256_and_si256(codes, _mm256_set1_epi8(15)), by_weight);
    __m256i bytes[4];
    for (int b = 0; b < 4; ++b) bytes[b] = _mm256_shuffle_epi8(planes[b], index);
    const __m256i low = _mm256_unpacklo_epi8(bytes[0], bytes[1]), high = _mm256_unpacklo_epi8(bytes[2], bytes[3]);
    const __m256i low_2 = _mm256_unpackhi_epi8(bytes[0], bytes[1]), high_2 = _mm256_unpackhi_epi8(bytes[2], bytes[3]);
    w[0] = {_mm256_castsi256_ps(_mm256_unpacklo_epi16(low, high))};
    w[1] = {_mm256_castsi256_ps(_mm256_unpackhi_epi16(low, high))};
    w[2] = {_mm256_castsi256_ps(_mm256_unpacklo_epi16(low_2, high_2))};
    w[3] = {_mm256_castsi256_ps(_mm256_unpackhi_epi16(low_2, high_2))};
  }
};

template <int kBits>
using Integers = std::conditional_t<kBits <= 3, TableValues<kBits>, IntegerValues<kBits>>;
template <int kBits>
using FloatTable = std::conditional_t<kBits == 4, PlaneValues, TableValues<kBits>>;

template <int kBits, typename Values>
struct CodeDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true;
  static constexpr bool kOffsets = std::is_same_v<Values, Integers<kBits>>, kTables = false;
  Values values;

  explicit CodeDecoder(const PanelFormat& f) : values(f) {}
  using Chunk = Codes<kBits>;
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, Vec* w) const {
    if constexpr (std::is_same_v<Values, PlaneValues>) {
      values.four(chunk.vector(v), w);
    } else {
      const __m256i codes = values.prepare(chunk.vector(v));
      w[0] = values.value(codes);
      w[1] = values.value(_mm256_srli_epi32(codes, 8));
      w[2] = values.value(_mm256_srli_epi32(codes, 16));
      w[3] = values.value(_mm256_srli_epi32(codes, 24));
    }
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
    Chunk(const uint8_t* at, int half) : runs(at + 32 * half) {}
  };
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, Vec* w) const {
    if constexpr (kFormat == BL_FORMAT_f32) {
      for (int j = 0; j < 4; ++j) w[j] = {_mm256_castsi256_ps(Codes<8>::load(chunk.runs + 64 * (4 * v + j)))};
    } else {
      for (int i = 0; i < 2; ++i) two(Codes<8>::load(chunk.runs + 64 * (2 * v + i)), w + 2 * i);
    }
  }
  inline __attribute__((always_inline)) static void two(__m256i pairs, Vec* w) {
    const __m256i second = _mm256_set1_epi32(-65536);
    if constexpr (kFormat == BL_FORMAT_bf16) {
      w[0] = {_mm256_castsi256_ps(_mm256_slli_epi32(pairs, 16))};
      w[1] = {_mm256_castsi256_ps(_mm256_and_si256(pairs, second))};
      return;
    }
    // Rows 0 to 3: first halves, second ones, then rows 4 to 7; then by quarters.
    const __m256i apart = _mm256_packus_epi32(_mm256_andnot_si256(second, pairs), _mm256_srli_epi32(pairs, 16));
    const __m256i sorted = _mm256_permute4x64_epi64(apart, 0xd8);
    w[0] = {_mm256_cvtph_ps(_mm256_castsi256_si128(sorted))};
    w[1] = {_mm256_cvtph_ps(_mm256_extracti128_si256(sorted, 1))};
  }
};

inline Vec load_stored(const PanelFormat& f, const uint8_t* bytes) {
  if (f.scale_type == BL_SCALE_e8m0) return {exponent_scales(bytes)};
  if (f.scale_type == BL_SCALE_e4m3) return {e4m3_scales(bytes)};
  const __m128i halves = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes));
  if (f.scale_type == BL_SCALE_f16) return {_mm256_cvtph_ps(halves)};
  return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))};
}

using SubScales = __m256i;
inline SubScales load_sub(const uint8_t* bytes, int shift, int mask) {
  const __m256i wide = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  return _mm256_and_si256(_mm256_srl_epi32(wide, _mm_cvtsi32_si128(shift)), _mm256_set1_epi32(mask));
}
inline SubScales join_sub(SubScales low, SubScales high) {
  return _mm256_or_si256(low, _mm256_slli_epi32(high, 4));
}
inline Vec sub_value(SubScales sub, int zero) {
  return {_mm256_cvtepi32_ps(_mm256_sub_epi32(sub, _mm256_set1_epi32(zero)))};
}

}  // namespace

#include "avx2_decode_tables.inl"
#include "decode.inl"
