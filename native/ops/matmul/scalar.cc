// The specification of matmul: what every other kernel is compared with.
#include <cmath>
#include <cstring>

#include "kernel.h"

namespace bitloom::scalar {

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

void matmul_dequant_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int64_t g = f.group < kGroup ? f.group : kGroup;
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    const int8_t* codes = a.codes + m * a.stride;
    const float* scales = a.scales + m * a.stride / kGroup;
    const int32_t* starts = a.starts + m * a.stride / g;
    const float* moments = a.moments + m * a.stride / g;
    for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
      const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
      const int64_t lane = n % kPanelRows;
      float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
      float sum = tile.accumulate ? *out : 0.0f;
      for (int64_t begin = 0; begin < f.cols; begin += g) {
        int32_t integer = starts[begin / g];
        for (int64_t k = begin; k < begin + g && k < f.cols; ++k) {
          integer += panel_value(f, panel_code(f, panel, lane, k)) * codes[k];
        }
        const float both = panel_scale(f, panel, lane, begin) * scales[begin / kGroup];
        sum = std::fma(static_cast<float>(integer), both, sum);
        if (f.offset_kind != OffsetKind::none) {
          sum = std::fma(panel_offset(f, panel, lane, begin), moments[begin / g], sum);
        }
      }
      *out = sum;
    }
  }
}

void matmul_dequant_i1(const PanelFormat& f, const Activations& a, const Tile& tile) {
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    const uint32_t* signs = a.signs + m * a.stride / kChunk;
    for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
      const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
      const int64_t lane = n % kPanelRows;
      float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
      float sum = tile.accumulate ? *out : 0.0f;
      for (int64_t begin = 0; begin < f.cols; begin += f.group) {
        int32_t integer = 0;
        for (int64_t k = begin; k < begin + f.group && k < f.cols; ++k) {
          const int32_t sign = (signs[k / kChunk] >> (8 * (k % 4) + k % kChunk / 4) & 1) != 0 ? 1 : -1;
          integer += (panel_value(f, panel_code(f, panel, lane, k)) - f.zero) * sign;
        }
        sum = std::fma(static_cast<float>(integer), panel_scale(f, panel, lane, begin) * a.scales[m], sum);
      }
      *out = sum;
    }
  }
}

void matmul_dequant_f32(const PanelFormat& f, const Activations& a, const Tile& tile) {
  for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
    const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
      double sum = tile.accumulate ? *out : 0.0;
      for (int64_t k = 0; k < f.cols; ++k) {
        sum += static_cast<double>(a.values[m * a.stride + k]) * panel_weight(f, panel, n % kPanelRows, k);
      }
      *out = static_cast<float>(sum);
    }
  }
}

}  // namespace bitloom::scalar
