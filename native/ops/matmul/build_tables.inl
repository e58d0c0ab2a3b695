// Tables of a row of activations, the same at levels avx2 and avx512; included inside the region, after the level's
// Builder (tables of 32 codes).

namespace {

// The largest entry of the tables of 32 codes: the most that a table's codes can count.
template <int kBits>
inline int32_t largest_entry(const int8_t* codes, __m128i gather) {
  __m128i largest = _mm_setzero_si128();
  for (int half = 0; half < 2; ++half) {
    const __m128i loaded = _mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + 16 * half));
    const __m128i magnitudes = _mm_abs_epi8(_mm_shuffle_epi8(loaded, gather));
    __m128i sums = _mm_maddubs_epi16(magnitudes, _mm_set1_epi8(kBits == 1 ? 1 : 3));
    if (kBits == 1) sums = _mm_madd_epi16(sums, _mm_set1_epi16(1));
    largest = _mm_max_epi16(largest, sums);
  }
  // There is a minimum across words, so of 65535 - sum.
  const __m128i ones = _mm_set1_epi16(-1);
  return 65535 - (_mm_cvtsi128_si32(_mm_minpos_epu16(_mm_xor_si128(largest, ones))) & 65535);
}

template <int kBits>
void build(const int8_t* codes, int64_t stride, uint8_t* tables) {
  const Builder<kBits> builder;
  for (int64_t k = 0; k < stride; k += kGroup, tables += table_bytes(kBits)) builder.exact(codes + k, tables);
}

template <int kBits>
void build_fast(const int8_t* codes, const float* scales, int64_t stride, uint8_t* tables,
                float* table_scales) {
  const Builder<kBits> builder;
  for (int64_t begin = 0; begin < stride; begin += kTableGroup) {
    const int64_t count = (stride - begin < kTableGroup ? stride - begin : kTableGroup) / kGroup;
    int32_t largest[kTableGroup / kGroup], m[kTableGroup / kGroup];
    for (int64_t i = 0; i < count; ++i) {
      largest[i] = largest_entry<kBits>(codes + begin + i * kGroup, builder.gather);
    }
    *table_scales++ = fast_table_scale(scales + begin / kGroup, largest, count, m);
    for (int64_t i = 0; i < count; ++i, tables += fast_table_bytes(kBits)) {
      builder.fast(codes + begin + i * kGroup, m[i], tables);
    }
  }
}

}  // namespace
