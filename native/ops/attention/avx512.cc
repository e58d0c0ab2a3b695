// attention at level avx512: online.inl with vectors of 16.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

namespace {

template <int32_t kType>
inline Vec convert(__m256i bits) {
  if constexpr (kType == BL_DTYPE_f16) return {_mm512_cvtph_ps(bits)};
  return {_mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16))};
}

template <int32_t kType>
inline Vec load_vec(const uint8_t* p) {
  if constexpr (kType == BL_DTYPE_f32) return {_mm512_loadu_ps(p)};
  if constexpr (kType != BL_DTYPE_f32) return convert<kType>(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}

// The first `count` < kLanes values, then zeros; reads no further.
template <int32_t kType>
inline Vec load_vec(const uint8_t* p, int64_t count) {
  const __mmask16 mask = static_cast<__mmask16>((1u << count) - 1);
  if constexpr (kType == BL_DTYPE_f32) return {_mm512_maskz_loadu_ps(mask, p)};
  if constexpr (kType != BL_DTYPE_f32) return convert<kType>(_mm256_maskz_loadu_epi16(mask, p));
}

}  // namespace

#include "online.inl"
#include "../../isa/end.h"
#endif  // __x86_64__
