// The specification of the row kernels, and the choice among levels.
#include <algorithm>
#include <cmath>

#include "../../include/bitloom.h"
#include "row_kernels.h"

namespace bitloom {
namespace scalar {
namespace {

void scale_row(float* x, const float* scales, float factor, int64_t count) {
  for (int64_t i = 0; i < count; ++i) x[i] = (scales == nullptr ? x[i] : x[i] * scales[i]) * factor;
}

void dot4_rows(const float* x, const float* y, int64_t stride, int64_t count, float* sums) {
  for (int64_t j = 0; j < 4; ++j) {
    double sum = 0;
    for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[i]) * y[j * stride + i];
    sums[j] = static_cast<float>(sum);
  }
}

void add_products_rows(const float* up, int64_t stride, const float* t, int64_t rank, float* values,
                       int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    double sum = 0;
    for (int64_t r = 0; r < rank; ++r) sum += static_cast<double>(t[r]) * up[r * stride + i];
    values[i] += static_cast<float>(sum);
  }
}

float sparse_dot_row(const float* x, const int32_t* columns, const float* values, int64_t count) {
  double sum = 0;
  for (int64_t i = 0; i < count; ++i) sum += static_cast<double>(x[columns[i]]) * values[i];
  return static_cast<float>(sum);
}

float largest_of(const float* x, int64_t count) {
  float largest = 0;
  for (int64_t i = 0; i < count; ++i) {
    if (!std::isfinite(x[i])) return NAN;
    largest = std::fmax(largest, std::fabs(x[i]));
  }
  return largest;
}

void encode_row(const float* x, float factor, int64_t count, int8_t* codes) {
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int8_t>(std::nearbyint(std::clamp(x[i] * factor, -127.0f, 127.0f)));
  }
}

float signs_of(const float* x, int64_t count, uint32_t* words) {
  float sums[16] = {};
  for (int64_t word = 0; word < (count + 31) / 32; ++word) words[word] = 0;
  for (int64_t i = 0; i < count; ++i) {
    sums[i % 16] += std::fabs(x[i]);
    const int64_t k = i % 32;
    if (x[i] >= 0) words[i / 32] |= 1u << (8 * (k % 4) + k / 4);
  }
  for (int half = 8; half > 0; half /= 2) {
    for (int j = 0; j < half; ++j) sums[j] += sums[j + half];
  }
  return count == 0 ? 0 : sums[0] / static_cast<float>(count);
}

}  // namespace

const RowKernels kRowKernels = {scale_row,  dot4_rows,  add_products_rows, sparse_dot_row,
                                largest_of, encode_row, signs_of};

}  // namespace scalar

const RowKernels& row_kernels(int32_t isa) {
#if defined(__x86_64__)
  if (isa >= BL_ISA_avx512) return avx512::kRowKernels;
  if (isa >= BL_ISA_avx2) return avx2::kRowKernels;
#elif defined(__aarch64__)
  if (isa >= BL_ISA_neon) return neon::kRowKernels;
#endif
  (void)isa;
  return scalar::kRowKernels;
}

}  // namespace bitloom
