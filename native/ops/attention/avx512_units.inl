// What units.inl wants, with vectors of 16: load_vec, transpose, Ints. Included inside a region of level avx512 or above, after
// simd_avx512.inl.

#include "../../isa/transpose_avx512.inl"

namespace {

template <int32_t kType>
inline Vec convert(__m256i bits) {
  if constexpr (kType == BL_DTYPE_f16) return {_mm512_cvtph_ps(bits)};
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}

template <int32_t kType>
inline Vec load_vec(const uint8_t* p) {
  if constexpr (kType == BL_DTYPE_f32) return {_mm512_loadu_ps(p)};
  if constexpr (kType != BL_DTYPE_f32)
    return convert<kType>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// The first `count` < kLanes values, then zeros; reads no further.
template <int32_t kType>
inline Vec load_vec(const uint8_t* p, int64_t count) {
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (kType == BL_DTYPE_f32) return {_mm512_maskz_loadu_ps(mask, p)};
  if constexpr (kType != BL_DTYPE_f32) return convert<kType>(_mm256_maskz_loadu_epi16(mask, p));
}

// 16 dwords.
struct Ints {
  __m512i v;
};
inline Ints load_ints(const uint8_t* p) { return {_mm512_loadu_si512(p)}; }
inline Ints shift_left(Ints a, int n) { return {_mm512_slli_epi32(a.v, static_cast<unsigned>(n))}; }
inline Ints shift_right(Ints a, int n) { return {_mm512_srli_epi32(a.v, static_cast<unsigned>(n))}; }
inline Ints shift_right_signed(Ints a, int n) { return {_mm512_srai_epi32(a.v, static_cast<unsigned>(n))}; }
inline Ints mask(Ints a, uint32_t bits) {
  return {_mm512_and_si512(a.v, _mm512_set1_epi32(static_cast<int>(bits)))};
}
inline Ints either(Ints a, Ints b) { return {_mm512_or_si512(a.v, b.v)}; }
inline Vec to_float(Ints a) { return {_mm512_cvtepi32_ps(a.v)}; }
inline Vec as_float(Ints a) { return {_mm512_castsi512_ps(a.v)}; }
inline Vec half_low(Ints a) { return {_mm512_cvtph_ps(_mm512_cvtepi32_epi16(a.v))}; }
inline Vec half_high(Ints a) { return half_low(shift_right(a, 16)); }
// NaN in the lanes where a is `bits`.
inline Vec nan_where(Ints a, uint32_t bits, Vec value) {
  const __mmask16 lanes = _mm512_cmpeq_epi32_mask(a.v, _mm512_set1_epi32(static_cast<int>(bits)));
  return {_mm512_mask_blend_ps(lanes, value.v, _mm512_set1_ps(__builtin_nanf("")))};
}

}  // namespace
