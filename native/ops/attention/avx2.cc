// attention at level avx2: online.inl with vectors of 8.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "../../isa/simd_math.inl"

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

}  // namespace

#include "online.inl"
#include "../../isa/end.h"
#endif  // __x86_64__
