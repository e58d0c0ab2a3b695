// Decoders of formats whose groups and rows have tables of their own, at level avx2; included by avx2_decode.inl. The
// same names as in avx512_decode_tables.inl, which explains them.

namespace {

// In registers: four tables of four floats. Four of eight take four vpermps and three blends of three instructions for
// eight weights, which is no faster than the gather.
template <int kBits>
constexpr bool kTablesFit = kBits == 2;
inline bool few_tables(const PanelFormat& f) { return f.tables.count <= 4 && f.bits == 2; }

template <int kBits>
struct ManyTables {
  const float* tables;

  explicit ManyTables(const PanelFormat& f) : tables(f.tables.values) {}
  static __m256i places(__m256i codes, __m256i /*first*/) { return codes; }
  Vec value(__m256i code, __m256i first) const {
    const __m256i place = _mm256_or_si256(_mm256_and_si256(code, _mm256_set1_epi32((1 << kBits) - 1)), first);
    return {_mm256_i32gather_ps(tables, place, 4)};
  }
};

// vpermps takes the low three bits of an index; the upper bit of a table's number is the same for all weights of a
// row's group.
template <int kBits>
struct FewTables {
  static_assert(kTablesFit<kBits>);
  __m256 low, high;

  explicit FewTables(const PanelFormat& f) {
    float all[16] = {};
    std::memcpy(all, f.tables.values, sizeof(float) * (static_cast<size_t>(f.tables.count) << kBits));
    low = _mm256_loadu_ps(all);
    high = _mm256_loadu_ps(all + 8);
  }
  static __m256i places(__m256i codes, __m256i first) {
    return _mm256_or_si256(_mm256_and_si256(codes, _mm256_set1_epi8((1 << kBits) - 1)), first);
  }
  Vec value(__m256i place, __m256i first) const {
    const __m256 upper = _mm256_castsi256_ps(_mm256_slli_epi32(first, 28));
    return {_mm256_blendv_ps(_mm256_permutevar8x32_ps(low, place), _mm256_permutevar8x32_ps(high, place), upper)};
  }
};

inline void store_table_places(const PanelFormat& f, const uint8_t* numbers, float* places) {
  const __m256i number = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(numbers)));
  const __m256i there = _mm256_min_epi32(number, _mm256_set1_epi32(f.tables.count - 1));
  const __m256i first = _mm256_sll_epi32(there, _mm_cvtsi32_si128(f.bits));
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(places),
                      _mm256_mullo_epi32(first, _mm256_set1_epi32(few_tables(f) ? 0x01010101 : 1)));
}

template <int kBits, typename Tables>
struct ChosenDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true, kOffsets = false, kTables = true;
  Tables tables;

  explicit ChosenDecoder(const PanelFormat& f) : tables(f) {}
  using Chunk = Codes<kBits>;
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, const float* places, int half,
                                                  Vec* w) const {
    const __m256i first = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(places + half * Vec::kLanes));
    const __m256i codes = tables.places(chunk.vector(v), first);
    w[0] = tables.value(codes, first);
    w[1] = tables.value(_mm256_srli_epi32(codes, 8), first);
    w[2] = tables.value(_mm256_srli_epi32(codes, 16), first);
    w[3] = tables.value(_mm256_srli_epi32(codes, 24), first);
  }
};

template <int kBits, int kFormat>
struct RowTableDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true, kOffsets = false, kTables = true;
  static constexpr int kRegisters = 1 << (kBits - 2);

  explicit RowTableDecoder(const PanelFormat&) {}
  using Chunk = Codes<kBits>;

  static __m256i part(const uint8_t* plane, int i, __m256i place) {
    return _mm256_shuffle_epi8(Codes<8>::load(plane + 64 * i), place);
  }
  static __m256i look_up(const uint8_t* plane, __m256i place) {
    if constexpr (kBits == 2) return part(plane, 0, place);
    if constexpr (kBits == 3) return _mm256_blend_epi32(part(plane, 0, place), part(plane, 1, place), 0xcc);
    if constexpr (kBits == 4) {
      const __m256i low = _mm256_blend_epi32(part(plane, 0, place), part(plane, 1, place), 0x22);
      const __m256i high = _mm256_blend_epi32(part(plane, 2, place), part(plane, 3, place), 0x88);
      return _mm256_blend_epi32(low, high, 0xcc);
    }
  }
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, const float* tables, int half,
                                                  Vec* w) const {
    const uint8_t* block;
    std::memcpy(&block, tables, sizeof(block));
    block += 32 * half;
    const __m256i row = kBits == 4   ? _mm256_setzero_si256()
                        : kBits == 3 ? _mm256_set1_epi64x(0x0808080800000000)
                                     : _mm256_set_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0, 0x0c0c0c0c, 0x08080808,
                                                        0x04040404, 0);
    const __m256i place =
        _mm256_or_si256(_mm256_and_si256(chunk.vector(v), _mm256_set1_epi8((1 << kBits) - 1)), row);
    const __m256i low = look_up(block, place), high = look_up(block + (kPanelRows << kBits), place);
    const __m256i even = _mm256_set1_epi16(255);
    const __m256i first = _mm256_or_si256(_mm256_and_si256(even, low), _mm256_slli_epi16(high, 8));
    const __m256i second = _mm256_or_si256(_mm256_srli_epi16(low, 8), _mm256_andnot_si256(even, high));
    Vec pairs[4];
    FloatDecoder<kFormat>::two(first, pairs);
    FloatDecoder<kFormat>::two(second, pairs + 2);
    w[0] = pairs[0];
    w[1] = pairs[2];
    w[2] = pairs[1];
    w[3] = pairs[3];
  }
};

}  // namespace
