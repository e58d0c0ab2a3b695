// Rows of f32, f16 and bf16 to f32 and back.
#include <cstring>

#include "float16.h"
#include "tensor.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace bitloom {
namespace {

#if defined(__x86_64__)
// F16C agrees with float16.h bit for bit, so it is used at every ISA level where the processor has it. Both
// convert whole vectors of eight and return how many elements that were.
bool has_f16c() {
  static const bool has = __builtin_cpu_supports("avx") != 0 && __builtin_cpu_supports("f16c") != 0;
  return has;
}
__attribute__((target("avx,f16c"))) int64_t widen_eights(const uint8_t* halves, int64_t count,
                                                         float* values) {
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    _mm256_storeu_ps(values + i,
                     _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(halves + 2 * i))));
  }
  return count & ~int64_t{7};
}
__attribute__((target("avx,f16c"))) int64_t narrow_eights(const float* values, int64_t count,
                                                          uint8_t* halves) {
  for (int64_t i = 0; i + 8 <= count; i += 8) {
    const __m128i eight = _mm256_cvtps_ph(_mm256_loadu_ps(values + i), _MM_FROUND_TO_NEAREST_INT);
    _mm_storeu_si128(reinterpret_cast<__m128i*>(halves + 2 * i), eight);
  }
  return count & ~int64_t{7};
}
#else
bool has_f16c() { return false; }
int64_t widen_eights(const uint8_t*, int64_t, float*) { return 0; }
int64_t narrow_eights(const float*, int64_t, uint8_t*) { return 0; }
#endif

// Loops with the step known, 2, are vectorized by the compiler.
void widen_bf16(const uint8_t* bytes, int64_t step, int64_t count, float* values) {
  if (step == 2) {
    for (int64_t i = 0; i < count; ++i) values[i] = bf16_to_f32(load_as<uint16_t>(bytes + 2 * i));
    return;
  }
  for (int64_t i = 0; i < count; ++i) values[i] = bf16_to_f32(load_as<uint16_t>(bytes + i * step));
}
void narrow_bf16(const float* values, int64_t step, int64_t count, uint8_t* bytes) {
  if (step == 2) {
    for (int64_t i = 0; i < count; ++i) {
      const uint16_t half = f32_to_bf16(values[i]);
      std::memcpy(bytes + 2 * i, &half, 2);
    }
    return;
  }
  for (int64_t i = 0; i < count; ++i) {
    const uint16_t half = f32_to_bf16(values[i]);
    std::memcpy(bytes + i * step, &half, 2);
  }
}

}  // namespace

void load_values(int32_t dtype, const void* data, int64_t stride, int64_t count, float* values) {
  if (count == 0) return;  // data may be null then, which memcpy does not take even for 0 bytes
  const uint8_t* bytes = static_cast<const uint8_t*>(data);
  const int64_t step = stride * dtype_bytes(dtype);
  switch (dtype) {
    case BL_DTYPE_f32:
      if (stride == 1) {
        std::memcpy(values, bytes, static_cast<size_t>(count) * 4);
        return;
      }
      for (int64_t i = 0; i < count; ++i) values[i] = load_as<float>(bytes + i * step);
      return;
    case BL_DTYPE_f16: {
      const int64_t done = stride == 1 && has_f16c() ? widen_eights(bytes, count, values) : 0;
      for (int64_t i = done; i < count; ++i) values[i] = f16_to_f32(load_as<uint16_t>(bytes + i * step));
      return;
    }
    default:
      widen_bf16(bytes, step, count, values);
  }
}

void store_values(int32_t dtype, void* data, int64_t stride, int64_t count, const float* values) {
  if (count == 0) return;
  uint8_t* bytes = static_cast<uint8_t*>(data);
  const int64_t step = stride * dtype_bytes(dtype);
  switch (dtype) {
    case BL_DTYPE_f32:
      if (stride == 1) {
        std::memcpy(bytes, values, static_cast<size_t>(count) * 4);
        return;
      }
      for (int64_t i = 0; i < count; ++i) std::memcpy(bytes + i * step, values + i, 4);
      return;
    case BL_DTYPE_f16: {
      const int64_t done = stride == 1 && has_f16c() ? narrow_eights(values, count, bytes) : 0;
      for (int64_t i = done; i < count; ++i) {
        const uint16_t half = f32_to_f16(values[i]);
        std::memcpy(bytes + i * step, &half, 2);
      }
      return;
    }
    default:
      narrow_bf16(values, step, count, bytes);
  }
}

}  // namespace bitloom
