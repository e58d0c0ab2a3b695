// Decoders of formats whose groups and rows have tables of their own, at level avx512; included by avx512_decode.inl.
// four(chunk, v, tables, half, w) takes what load_tables() of decode.inl left of the group.

namespace {

template <int kBits>
constexpr bool kTablesFit = true;
inline bool few_tables(const PanelFormat& f) { return f.tables.count <= 4; }

// cbs<b>: up to four tables of 2^b floats are one table of two bits more, in registers: the number of a row's table
// is the upper bits of its index. vpermps or vpermi2ps look up sixteen rows whose tables differ at once, for one
// vpternlog per 64 weights more than where all have the same; at 4 bits, for a second vpermi2ps and a blend by row too.
// A vpermps per table and mask would take four.
template <int kBits>
struct FewTables {
  static constexpr int kRegisters = 1 << (kBits - 2);
  __m512 entries[kRegisters];

  explicit FewTables(const PanelFormat& f) {
    float all[16 * kRegisters] = {};
    std::memcpy(all, f.tables.values, sizeof(float) * (static_cast<size_t>(f.tables.count) << kBits));
    for (int i = 0; i < kRegisters; ++i) entries[i] = _mm512_loadu_ps(all + 16 * i);
  }
  // Codes in bytes, table numbers in the same bits of all four bytes.
  static __m512i places(__m512i codes, __m512i first) {  // codes & mask | first
    return _mm512_ternarylogic_epi32(codes, _mm512_set1_epi8((1 << kBits) - 1), first, 0xea);
  }
  Vec value(__m512i place, __m512i first) const {
    if constexpr (kBits == 2) return {_mm512_permutexvar_ps(place, entries[0])};
    if constexpr (kBits == 3) return {_mm512_permutex2var_ps(entries[0], place, entries[1])};
    if constexpr (kBits == 4) {
      const __mmask16 upper = _mm512_test_epi32_mask(first, _mm512_set1_epi32(32));
      return {_mm512_mask_blend_ps(upper, _mm512_permutex2var_ps(entries[0], place, entries[1]),
                                   _mm512_permutex2var_ps(entries[2], place, entries[3]))};
    }
  }
};

// cbs<b> with 5 to 256 tables, 16 KB at most: gathered from L1.
template <int kBits>
struct ManyTables {
  const float* tables;

  explicit ManyTables(const PanelFormat& f) : tables(f.tables.values) {}
  static __m512i places(__m512i codes, __m512i /*first*/) { return codes; }
  Vec value(__m512i code, __m512i first) const {
    const __m512i place = _mm512_ternarylogic_epi32(code, _mm512_set1_epi32((1 << kBits) - 1), first, 0xea);
    return {_mm512_i32gather_ps(place, tables, 4)};
  }
};

// Where the tables of sixteen rows begin: the numbers at `numbers`, at most the last, times 2^bits; of few tables, in
// each byte.
inline void store_table_places(const PanelFormat& f, const uint8_t* numbers, float* places) {
  const __m512i number = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers)));
  const __m512i there = _mm512_min_epi32(number, _mm512_set1_epi32(f.tables.count - 1));
  const __m512i first = _mm512_sll_epi32(there, _mm_cvtsi32_si128(f.bits));
  _mm512_storeu_si512(places, _mm512_mullo_epi32(first, _mm512_set1_epi32(few_tables(f) ? 0x01010101 : 1)));
}

template <int kBits, typename Tables>
struct ChosenDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true, kOffsets = false, kTables = true;
  Tables tables;

  explicit ChosenDecoder(const PanelFormat& f) : tables(f) {}
  using Chunk = Codes<kBits>;
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, const float* places, int /*half*/,
                                                  Vec* w) const {
    const __m512i first = _mm512_loadu_si512(places), codes = tables.places(chunk.vector(v), first);
    w[0] = tables.value(codes, first);
    w[1] = tables.value(_mm512_srli_epi32(codes, 8), first);
    w[2] = tables.value(_mm512_srli_epi32(codes, 16), first);
    w[3] = tables.value(_mm512_srli_epi32(codes, 24), first);
  }
};

// lut<b>: every row has another table, of which vpshufb holds four rows' in 2^(b-2) registers (panel.h). 64 weights
// take 2^(b-2) of them for low bytes and for high bytes, then four instructions to pairs of 16 bits: at 4 bits some 18
// in all for bf16. Choosing among sixteen registers of entries by masks would take 76, gathering 64 loads.
template <int kBits, int kFormat>
struct RowTableDecoder {
  static constexpr int kBytes = 64 * kBits;
  static constexpr bool kCodes = true, kOffsets = false, kTables = true;
  static constexpr int kRegisters = 1 << (kBits - 2), kTogether = 16 >> kBits;  // rows in 16 bytes

  explicit RowTableDecoder(const PanelFormat&) {}
  using Chunk = Codes<kBits>;

  // Bytes of four rows of each register's turn.
  static __mmask64 rows_of(int i) {
    const uint64_t lane = ((uint64_t{1} << (4 * kTogether)) - 1) << (4 * kTogether * i);
    return lane | lane << 16 | lane << 32 | lane << 48;
  }
  static __m512i look_up(const uint8_t* plane, __m512i place) {
    __m512i bytes = _mm512_shuffle_epi8(_mm512_loadu_si512(plane), place);
#pragma GCC unroll 4
    for (int i = 1; i < kRegisters; ++i) {
      bytes = _mm512_mask_shuffle_epi8(bytes, rows_of(i), _mm512_loadu_si512(plane + 64 * i), place);
    }
    return bytes;
  }
  inline __attribute__((always_inline)) void four(const Chunk& chunk, int v, const float* tables, int /*half*/,
                                                  Vec* w) const {
    const uint8_t* block;
    std::memcpy(&block, tables, sizeof(block));
    // Byte 4r + j: the code, and which of the rows in 16 bytes of a table r is.
    const __m512i row = kBits == 4   ? _mm512_setzero_si512()
                        : kBits == 3 ? _mm512_set1_epi64(0x0808080800000000)
                                     : _mm512_set4_epi32(0x0c0c0c0c, 0x08080808, 0x04040404, 0);
    const __m512i place =
        _mm512_ternarylogic_epi32(chunk.vector(v), _mm512_set1_epi8((1 << kBits) - 1), row, 0xea);
    const __m512i low = look_up(block, place), high = look_up(block + (kPanelRows << kBits), place);
    const __m512i even = _mm512_set1_epi16(255);  // even ? low : high
    const __m512i first = _mm512_ternarylogic_epi32(even, low, _mm512_slli_epi16(high, 8), 0xca);
    const __m512i second = _mm512_ternarylogic_epi32(even, _mm512_srli_epi16(low, 8), high, 0xca);
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
