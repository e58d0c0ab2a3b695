// The specification of matmul: what every other kernel is compared with.
#include <cmath>
#include <cstring>

#include "kernel.h"

namespace bitloom::scalar {

namespace {

constexpr int64_t kChunk = 256;  // a multiple of every block size

}  // namespace

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const int64_t padded = padded_k(k);
  std::memset(codes, 0, static_cast<size_t>(padded));
  for (int64_t begin = 0; begin < padded; begin += kGroup) {
    const int64_t end = begin + kGroup < k ? begin + kGroup : k;
    float largest = 0;
    bool finite = true;
    for (int64_t i = begin; i < end; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::fmax(largest, std::fabs(x[i]));
    }
    // Below 127 * FLT_MIN the reciprocal overflows; such a group counts as zero.
    const float inverse = largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    if (!finite) continue;
    for (int64_t i = begin; i < end; ++i) codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  }
}

// The codes' products are exact in double, and so is each group's sum of them times the weights' scale.
void matmul_i8(const Activations& a, const WeightsView& b, const Tile& tile) {
  float weights[kChunk];
  for (int64_t n = tile.n_begin; n < tile.n_end; ++n) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < b.cols; k += kChunk) {
        const int64_t count = k + kChunk < b.cols ? kChunk : b.cols - k;
        decode_row(b, n, k, count, weights);
        for (int64_t i = 0; i < count; ++i) {
          const int64_t at = m * a.k_padded + k + i;
          sum += static_cast<double>(a.scales[at / kGroup]) * weights[i] * a.codes[at];
        }
      }
      tile.values[(m - tile.m_begin) * tile.stride + n - tile.n_begin] = static_cast<float>(sum);
    }
  }
}

void matmul_f32(const Activations& a, const WeightsView& b, const Tile& tile) {
  float weights[kChunk];
  for (int64_t n = tile.n_begin; n < tile.n_end; ++n) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < b.cols; k += kChunk) {
        const int64_t count = k + kChunk < b.cols ? kChunk : b.cols - k;
        decode_row(b, n, k, count, weights);
        for (int64_t i = 0; i < count; ++i) {
          sum += static_cast<double>(a.values[m * a.k_padded + k + i]) * weights[i];
        }
      }
      tile.values[(m - tile.m_begin) * tile.stride + n - tile.n_begin] = static_cast<float>(sum);
    }
  }
}

}  // namespace bitloom::scalar
