#include <algorithm>
#include <bit>
#include <cmath>

#include "mma.h"

namespace bitloom::ptx {
namespace {

__attribute__((always_inline)) inline void multiply(const float* a, uint32_t stride, const float* b,
                                                    uint32_t depth, double (&sums)[16][8]) {
  for (uint32_t i = 0; i < 16; ++i) {
    double row[8];
    for (uint32_t j = 0; j < 8; ++j) row[j] = sums[i][j];
    for (uint32_t k = 0; k < depth; ++k) {
      const double x = a[i * stride + k];
      for (uint32_t j = 0; j < 8; ++j) row[j] += x * static_cast<double>(b[k * 8 + j]);
    }
    for (uint32_t j = 0; j < 8; ++j) sums[i][j] = row[j];
  }
}

// Products are exact, so that a fused multiplication and addition gives the same bits as the two of SSE2.
#if defined(__x86_64__)
__attribute__((target("avx2,fma"))) void multiply_avx2(const float* a, uint32_t stride, const float* b,
                                                       uint32_t depth, double (&sums)[16][8]) {
  multiply(a, stride, b, depth, sums);
}
#endif

// Towards zero to a multiple of 2^unit.
double cut(double value, int unit) { return std::ldexp(std::trunc(std::ldexp(value, -unit)), unit); }

int exponent_of(double value) {
  int exponent;
  std::frexp(value, &exponent);
  return exponent - 1;
}

float toward_zero(double value) {
  const float nearest = static_cast<float>(value);
  if (std::fabs(static_cast<double>(nearest)) <= std::fabs(value) || !std::isfinite(value)) return nearest;
  return std::bit_cast<float>(std::bit_cast<uint32_t>(nearest) - 1);
}

}  // namespace

void multiply_exact(const float* a, uint32_t stride, const float* b, uint32_t depth, double (&sums)[16][8]) {
#if defined(__x86_64__)
  static const bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  if (has_avx2) return multiply_avx2(a, stride, b, depth, sums);
#endif
  multiply(a, stride, b, depth, sums);
}

void multiply_in_blocks(const float* a, uint32_t stride, const float* b, uint32_t depth, uint32_t block,
                        double (&sums)[16][8]) {
  for (uint32_t i = 0; i < 16; ++i) {
    for (uint32_t j = 0; j < 8; ++j) {
      double sum = sums[i][j];
      for (uint32_t first = 0; first < depth; first += block) {
        double terms[33];
        uint32_t count = 0;
        terms[count++] = sum;
        for (uint32_t k = first; k < std::min(first + block, depth); ++k) {
          terms[count++] = static_cast<double>(a[i * stride + k]) * static_cast<double>(b[k * 8 + j]);
        }
        int largest = -2000;
        double plain = 0;
        for (uint32_t t = 0; t < count; ++t) {
          plain += terms[t];
          if (terms[t] != 0 && std::isfinite(terms[t])) largest = std::max(largest, exponent_of(terms[t]));
        }
        if (!std::isfinite(plain) || largest == -2000) {
          sum = plain;
          continue;
        }
        sum = 0;
        for (uint32_t t = 0; t < count; ++t) sum += cut(terms[t], largest - 24);
        sum = toward_zero(sum);
      }
      sums[i][j] = sum;
    }
  }
}

}  // namespace bitloom::ptx
