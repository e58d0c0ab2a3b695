// Scales of one byte, of sixteen rows, at level avx512 (and amx); included inside the region.

namespace {

// 2^(byte - 127): the byte is the exponent of an f32; 0 is a denormal, 255 NaN.
inline __m512 exponent_scales(const uint8_t* bytes) {
  const __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  __m512i bits = _mm512_slli_epi32(byte, 23);
  bits = _mm512_mask_mov_epi32(bits, _mm512_testn_epi32_mask(byte, byte), _mm512_set1_epi32(0x00400000));
  bits = _mm512_mask_mov_epi32(bits, _mm512_cmpeq_epi32_mask(byte, _mm512_set1_epi32(255)),
                               _mm512_set1_epi32(0x7fc00000));
  return _mm512_castsi512_ps(bits);
}

// E4M3 without its sign: as the exponent and mantissa of an f16, times 2^(15 - 7); 127 is NaN. By way of f16
// because a scale below 2^-6 would be a denormal f32, at which a multiplication takes 150 cycles.
inline __m512 e4m3_scales(const uint8_t* bytes) {
  const __m256i byte = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  const __m256i half = _mm256_and_si256(_mm256_slli_epi16(byte, 7), _mm256_set1_epi16(0x3f80));
  const __m512 value = _mm512_mul_ps(_mm512_cvtph_ps(half), _mm512_set1_ps(256));
  return _mm512_mask_mov_ps(value, _mm256_cmpeq_epi16_mask(half, _mm256_set1_epi16(0x3f80)),
                            _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

}  // namespace
