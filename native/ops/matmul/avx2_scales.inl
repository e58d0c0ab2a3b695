// Scales of one byte, of eight rows, at level avx2; included inside the region. As avx512_scales.inl.

namespace {

inline __m256 exponent_scales(const uint8_t* bytes) {
  const __m256i byte = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  __m256i bits = _mm256_slli_epi32(byte, 23);
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x00400000), _mm256_cmpeq_epi32(byte, _mm256_setzero_si256()));
  bits = _mm256_blendv_epi8(bits, _mm256_set1_epi32(0x7fc00000), _mm256_cmpeq_epi32(byte, _mm256_set1_epi32(255)));
  return _mm256_castsi256_ps(bits);
}

inline __m256 e4m3_scales(const uint8_t* bytes) {
  const __m128i byte = _mm_cvtepu8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
  const __m128i half = _mm_and_si128(_mm_slli_epi16(byte, 7), _mm_set1_epi16(0x3f80));
  const __m256 value = _mm256_mul_ps(_mm256_cvtph_ps(half), _mm256_set1_ps(256));
  const __m256i last = _mm256_cvtepi16_epi32(_mm_cmpeq_epi16(half, _mm_set1_epi16(0x3f80)));
  return _mm256_blendv_ps(value, _mm256_castsi256_ps(_mm256_set1_epi32(0x7fc00000)), _mm256_castsi256_ps(last));
}

}  // namespace
