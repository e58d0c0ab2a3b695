// attention at level avx2: core.inl with vectors of 8.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "../../isa/simd_math.inl"
#include "../../isa/transpose_avx2.inl"

namespace {

template <int32_t kType>
inline Vec load_vec(const uint8_t* p) {
  if constexpr (kType == BL_DTYPE_f32) {
    return {_mm256_loadu_ps(reinterpret_cast<const float*>(p))};
  } else {
    const __m128i bits = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
    if constexpr (kType == BL_DTYPE_f16) return {_mm256_cvtph_ps(bits)};
    return {_mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(bits), 16))};
  }
}

// The first `count` < kLanes values, then zeros; reads no further.
template <int32_t kType>
inline Vec load_vec(const uint8_t* p, int64_t count) {
  alignas(32) uint8_t bytes[32] = {};
  std::memcpy(bytes, p, static_cast<size_t>(count) * (kType == BL_DTYPE_f32 ? 4 : 2));
  return load_vec<kType>(bytes);
}

// 8 dwords.
struct Ints {
  __m256i v;
};
inline Ints load_ints(const uint8_t* p) { return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p))}; }
inline Ints shift_left(Ints a, int n) { return {_mm256_slli_epi32(a.v, n)}; }
inline Ints shift_right(Ints a, int n) { return {_mm256_srli_epi32(a.v, n)}; }
inline Ints shift_right_signed(Ints a, int n) { return {_mm256_srai_epi32(a.v, n)}; }
inline Ints mask(Ints a, uint32_t bits) {
  return {_mm256_and_si256(a.v, _mm256_set1_epi32(static_cast<int>(bits)))};
}
inline Ints either(Ints a, Ints b) { return {_mm256_or_si256(a.v, b.v)}; }
inline Vec to_float(Ints a) { return {_mm256_cvtepi32_ps(a.v)}; }
inline Vec as_float(Ints a) { return {_mm256_castsi256_ps(a.v)}; }
inline Vec half_low(Ints a) {
  const __m256i words = mask(a, 0xffff).v;
  const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi32(words, words), 0x08);
  return {_mm256_cvtph_ps(_mm256_castsi256_si128(packed))};
}
inline Vec half_high(Ints a) { return half_low(shift_right(a, 16)); }
// NaN in the lanes where a is `bits`.
inline Vec nan_where(Ints a, uint32_t bits, Vec value) {
  const __m256i lanes = _mm256_cmpeq_epi32(a.v, _mm256_set1_epi32(static_cast<int>(bits)));
  return {_mm256_blendv_ps(value.v, _mm256_set1_ps(__builtin_nanf("")), _mm256_castsi256_ps(lanes))};
}

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "units.inl"

#include "rows.inl"

#include "core.inl"

#include "core_f32.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
