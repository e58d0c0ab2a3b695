// Sixteen rows of weights in two vectors at level avx2; included inside the region.

#include "avx2_scales.inl"

namespace {

struct Lanes {
  __m256 low, high;  // rows 0 to 7, 8 to 15
};
struct Ints {
  __m256i low, high;
};
constexpr int kMostRows = 2;
constexpr bool kTablesDiffer = true;
constexpr Values kSmallTableForm = Values::small_table;

inline Lanes lanes_load(const float* p) { return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)}; }
inline void lanes_store(float* p, Lanes x) {
  _mm256_storeu_ps(p, x.low);
  _mm256_storeu_ps(p + 8, x.high);
}
inline Lanes lanes_set(float x) { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
inline Lanes lanes_mul(Lanes a, Lanes b) {
  return {_mm256_mul_ps(a.low, b.low), _mm256_mul_ps(a.high, b.high)};
}
inline Lanes lanes_add(Lanes a, Lanes b) {
  return {_mm256_add_ps(a.low, b.low), _mm256_add_ps(a.high, b.high)};
}
inline Lanes lanes_fma(Lanes a, Lanes b, Lanes c) {
  return {_mm256_fmadd_ps(a.low, b.low, c.low), _mm256_fmadd_ps(a.high, b.high, c.high)};
}
inline Lanes lanes_negate(Lanes a) {
  const __m256 sign = _mm256_set1_ps(-0.0f);
  return {_mm256_xor_ps(a.low, sign), _mm256_xor_ps(a.high, sign)};
}
inline Lanes lanes_of_ints(Ints a) { return {_mm256_cvtepi32_ps(a.low), _mm256_cvtepi32_ps(a.high)}; }
inline Ints ints_set(int32_t x) { return {_mm256_set1_epi32(x), _mm256_set1_epi32(x)}; }

inline __m128i load_16(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
inline __m256i load_32(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }

inline Lanes lanes_of_f16(const uint8_t* bytes) {
  return {_mm256_cvtph_ps(load_16(bytes)), _mm256_cvtph_ps(load_16(bytes + 16))};
}
inline Lanes lanes_of_bf16(const uint8_t* bytes) {
  const __m256i low = _mm256_cvtepu16_epi32(load_16(bytes));
  const __m256i high = _mm256_cvtepu16_epi32(load_16(bytes + 16));
  return {_mm256_castsi256_ps(_mm256_slli_epi32(low, 16)), _mm256_castsi256_ps(_mm256_slli_epi32(high, 16))};
}
inline Lanes lanes_of_e8m0(const uint8_t* bytes) { return {exponent_scales(bytes), exponent_scales(bytes + 8)}; }
inline Lanes lanes_of_e4m3(const uint8_t* bytes) { return {e4m3_scales(bytes), e4m3_scales(bytes + 8)}; }
inline Lanes lanes_of_bytes(const int8_t* bytes) {
  const __m128i all = load_16(bytes);
  return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(all)),
          _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(all, 8)))};
}

// Bits [shift, shift + width) of every byte become its bits [to, to + width), the others 0. Shifts are of 16
// bits; what crosses from byte to byte is masked out.
template <int width, int shift, int to>
inline __m256i field(__m256i x) {
  const __m256i mask = _mm256_set1_epi8(static_cast<char>(((1 << width) - 1) << to));
  if constexpr (shift > to) x = _mm256_srli_epi16(x, shift - to);
  if constexpr (shift < to) x = _mm256_slli_epi16(x, to - shift);
  return _mm256_and_si256(x, mask);
}

template <typename Body, int... v>
inline __attribute__((always_inline)) void unroll(Body&& body, std::integer_sequence<int, v...>) {
  (body(std::integral_constant<int, v>{}), ...);
}

inline __m256i four_activations(const int8_t* codes) { return _mm256_set1_epi32(load_as<int32_t>(codes)); }

// Sub-scales as signed bytes [sub][16], `zero` subtracted. kSubBits 4: 32 of them; 6 and 8: 16.
template <int kSubBits>
inline void unpack_subs(const uint8_t* packed, int32_t zero, int8_t* subs) {
  const __m256i zeros = _mm256_set1_epi8(static_cast<char>(zero));
  const auto store = [&](int at, __m256i x) {
    _mm256_store_si256(reinterpret_cast<__m256i*>(subs + 32 * at), _mm256_sub_epi8(x, zeros));
  };
  if constexpr (kSubBits == 8) {
    for (int i = 0; i < 8; ++i) store(i, load_32(packed + 32 * i));
    return;
  }
  constexpr int kRuns = kSubBits == 4 ? 8 : 4;
  for (int i = 0; i < kRuns; ++i) {
    const __m256i nibbles = load_32(packed + 32 * i);
    __m256i low = field<4, 0, 0>(nibbles);
    __m256i high = field<4, 4, 0>(nibbles);
    if constexpr (kSubBits == 6) {
      const __m256i pairs = load_32(packed + 128 + 32 * (i % 2));
      low = _mm256_or_si256(low, i < 2 ? field<2, 0, 4>(pairs) : field<2, 2, 4>(pairs));
      high = _mm256_or_si256(high, i < 2 ? field<2, 4, 4>(pairs) : field<2, 6, 4>(pairs));
    }
    store(i, low);
    store(kRuns + i, high);
  }
}

template <typename F>
class Unpack {
 public:
  explicit Unpack(const PanelFormat& f) {
    for (int i = 0; i < 64; ++i) table_[i] = f.table[i];
    for (int i = 0; i < 16; ++i) low_table_[i] = low_table_[16 + i] = f.table[i] & (kSplit ? 15 : 255);
    for (int i = 0; i < 16; ++i) high_table_[i] = high_table_[16 + i] = f.table[i] >> 4;
  }

  // products[r][p] += the chunk's values times codes[32 r + [0, 32)], p-th part.
  template <int kRows>
  inline __attribute__((always_inline)) void multiply(const uint8_t* chunk, const int8_t* codes,
                                                      Ints (&products)[kRows][F::kParts]) const {
    // Halves of a panel one after the other: sums of one row, values and constants fit 16 registers.
    multiply_half<kRows, 0>(chunk, codes, products);
    multiply_half<kRows, 1>(chunk, codes, products);
  }

 private:
  static constexpr bool kFours = F::kBits != 8 && (F::kBits & 4) != 0;
  static constexpr bool kTwos = F::kBits != 8 && (F::kBits & 2) != 0;
  static constexpr bool kOnes = F::kBits != 8 && (F::kBits & 1) != 0;
  static constexpr int kTwosAt = kFours ? 4 : 0;  // place in a code
  static constexpr int kOnesAt = kTwosAt + (kTwos ? 2 : 0);

  // vpmaddubsw sums two products in int16: 2 * 127 * 129 is the most that fits. Values that may be larger are
  // cut into nibbles, low + 16 * high. What is added in int16 before widening: as many vectors as 32767
  // allows.
  static constexpr bool kSplit = F::kValues == Values::byte_table || F::kBits == 8;
  static constexpr int kMaxValue = kSplit ? 15
                                   : F::kTable ? kSmallTable<F::kBits>
                                               : ((1 << F::kBits) - 1) << F::kShift;
  static constexpr int kFits = 32767 / (2 * 127 * kMaxValue);
  static constexpr int kPart = 8 / F::kParts;  // vectors of a group
  static constexpr int kTogether = kFits < kPart ? (kFits < 2 ? 1 : kFits < 4 ? 2 : 4) : kPart;

  struct Runs {
    __m256i twos[2];
    __m256i ones;
  };

  // 64 bytes [4][16] to the bytes [8][4] of eight rows.
  template <int half>
  static inline __m256i rows_of_run(const uint8_t* run) {
    const auto eight = [&](int j) {
      return _mm_loadl_epi64(reinterpret_cast<const __m128i*>(run + 16 * j + 8 * half));
    };
    const __m128i first = _mm_unpacklo_epi8(eight(0), eight(1));
    const __m128i second = _mm_unpacklo_epi8(eight(2), eight(3));
    return _mm256_set_m128i(_mm_unpackhi_epi16(first, second), _mm_unpacklo_epi16(first, second));
  }
  template <int half>
  static inline Runs load_runs(const uint8_t* chunk) {
    Runs runs;
    if constexpr (kTwos) {
      runs.twos[0] = rows_of_run<half>(chunk + 64 * kTwosAt);
      runs.twos[1] = rows_of_run<half>(chunk + 64 * kTwosAt + 64);
    }
    if constexpr (kOnes) runs.ones = rows_of_run<half>(chunk + 64 * kOnesAt);
    return runs;
  }

  template <int v, int half>
  static inline __m256i code(const uint8_t* chunk, const Runs& runs) {
    if constexpr (F::kBits == 8) return load_32(chunk + 64 * v + 32 * half);
    __m256i result = _mm256_setzero_si256();
    if constexpr (kFours) result = field < 4, v < 4 ? 0 : 4, 0 > (load_32(chunk + 64 * (v % 4) + 32 * half));
    if constexpr (kTwos) result = _mm256_or_si256(result, field<2, 2 * (v / 2), kTwosAt>(runs.twos[v % 2]));
    if constexpr (kOnes) result = _mm256_or_si256(result, field<1, v, kOnesAt + F::kShift>(runs.ones));
    return result;
  }

  // Entries of a table of 64.
  inline __m256i look_up(__m256i index) const {
    __m256i entries[4];
    for (int i = 0; i < 4; ++i) {
      const __m256i table = _mm256_broadcastsi128_si256(load_16(table_ + 16 * i));
      entries[i] = _mm256_shuffle_epi8(table, _mm256_and_si256(index, _mm256_set1_epi8(15)));
    }
    const __m256i bit_4 = _mm256_slli_epi16(index, 3);  // as the sign of a byte
    const __m256i bit_5 = _mm256_slli_epi16(index, 2);
    return _mm256_blendv_epi8(_mm256_blendv_epi8(entries[0], entries[1], bit_4),
                              _mm256_blendv_epi8(entries[2], entries[3], bit_4), bit_5);
  }

  // The value in one vector, or its nibbles in two.
  template <int v, int half>
  inline void value(const uint8_t* chunk, const Runs& runs, __m256i* low, __m256i* high) const {
    const __m256i x = code<v, half>(chunk, runs);
    if constexpr (F::kTable && F::kBits == 4) {
      *low = _mm256_shuffle_epi8(load_32(low_table_), x);
      if constexpr (kSplit) *high = _mm256_shuffle_epi8(load_32(high_table_), x);
    } else if constexpr (F::kTable) {
      *low = look_up(x);
    } else if constexpr (kSplit) {
      *low = field<4, 0, 0>(x);
      *high = field<4, 4, 0>(x);
    } else {
      *low = x;
    }
  }

  template <int kRows, int half>
  inline __attribute__((always_inline)) void multiply_half(const uint8_t* chunk, const int8_t* codes,
                                                           Ints (&products)[kRows][F::kParts]) const {
    const Runs runs = load_runs<half>(chunk);
    __m256i sums[kRows], high_sums[kRows];
    unroll(
        [&](auto index) __attribute__((always_inline)) {
          constexpr int v = index;
          __m256i low, high;
          value<v, half>(chunk, runs, &low, &high);
          for (int r = 0; r < kRows; ++r) {
            const __m256i activations = four_activations(codes + r * kChunk + 4 * v);
            const __m256i product = _mm256_maddubs_epi16(low, activations);
            sums[r] = v % kTogether == 0 ? product : _mm256_add_epi16(sums[r], product);
            if constexpr (kSplit) {
              const __m256i high_product = _mm256_maddubs_epi16(high, activations);
              high_sums[r] = v % kTogether == 0 ? high_product : _mm256_add_epi16(high_sums[r], high_product);
            }
            if constexpr (v % kTogether == kTogether - 1) {
              Ints& all = products[r][v / kPart];
              __m256i& whole = half == 0 ? all.low : all.high;
              whole = _mm256_add_epi32(whole, _mm256_madd_epi16(sums[r], _mm256_set1_epi16(1)));
              if constexpr (kSplit) {
                whole = _mm256_add_epi32(whole, _mm256_madd_epi16(high_sums[r], _mm256_set1_epi16(16)));
              }
            }
          }
        },
        std::make_integer_sequence<int, 8>{});
  }

  alignas(32) uint8_t table_[64];                       // [64]
  alignas(32) uint8_t low_table_[32], high_table_[32];  // a table of 16 or its nibbles, twice
};

}  // namespace
