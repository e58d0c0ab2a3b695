// The specification of algorithm lut for what takes_lut() leaves out: wider codes, small groups, offsets and
// sub-scales of all kinds. A table for each activation holds its products with the values of the low four
// bits of a code; the upper bits of integers are looked up in the same table, times 16; other values, of up
// to six bits, have a table of their own. The sums of a group are the integers of algorithm dequant, so
// results have its bits.
//
// It is there to be compared with: a multiplication does as much as a lookup of one product (README.md,
// Tables), so that `auto` never takes it.
#include <cmath>

#include "kernel.h"

namespace bitloom::scalar {
namespace {

struct Tables {
  int16_t products[kChunk][64];  // at most 255 * 127 each
};

void build(const PanelFormat& f, const int8_t* codes, Tables* tables) {
  const uint32_t entries = f.value_kind == ValueKind::integer ? 16 : 1u << f.bits;
  for (int64_t k = 0; k < kChunk; ++k) {
    for (uint32_t code = 0; code < entries; ++code) {
      tables->products[k][code] = static_cast<int16_t>(panel_value(f, code) * codes[k]);
    }
  }
}

int32_t look_up(const PanelFormat& f, const int16_t* products, uint32_t code) {
  if (f.value_kind == ValueKind::table) return products[code];
  return products[code & 15] + 16 * products[code >> 4];
}

}  // namespace

void matmul_lut_wide_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int64_t g = f.group < kGroup ? f.group : kGroup;
  Tables tables;
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    float* out = tile.values + (m - tile.m_begin) * tile.stride;
    for (int64_t begin = 0; begin < f.cols; begin += g) {
      if (begin % kChunk == 0) build(f, a.codes + m * a.stride + begin, &tables);
      const int64_t group = (m * a.stride + begin) / g;
      for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
        const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
        const int64_t lane = n % kPanelRows;
        int32_t integer = a.starts[group];
        for (int64_t k = begin; k < begin + g && k < f.cols; ++k) {
          integer += look_up(f, tables.products[k % kChunk], panel_code(f, panel, lane, k));
        }
        float sum = begin > 0 || tile.accumulate ? out[n] : 0.0f;
        const float both = panel_scale(f, panel, lane, begin) * a.scales[(m * a.stride + begin) / kGroup];
        sum = std::fma(static_cast<float>(integer), both, sum);
        if (f.offset_kind != OffsetKind::none) {
          sum = std::fma(panel_offset(f, panel, lane, begin), a.moments[group], sum);
        }
        out[n] = sum;
      }
    }
  }
}

}  // namespace bitloom::scalar
