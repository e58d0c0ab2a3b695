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

// E4M3 without its sign: moved to an f32's exponent and mantissa, then 2^(127 - 7) times that; 127 is NaN.
inline __m512 e4m3_scales(const uint8_t* bytes) {
  const __m512i byte = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
  const __m512i magnitude = _mm512_and_si512(byte, _mm512_set1_epi32(127));
  const __m512 value = _mm512_mul_ps(_mm512_castsi512_ps(_mm512_slli_epi32(magnitude, 20)), _mm512_set1_ps(0x1p120f));
  return _mm512_mask_mov_ps(value, _mm512_cmpeq_epi32_mask(magnitude, _mm512_set1_epi32(127)),
                            _mm512_castsi512_ps(_mm512_set1_epi32(0x7fc00000)));
}

}  // namespace
