// The specification of algorithm tile: tile.h in code.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "kernel.h"
#include "tile.h"

namespace bitloom::scalar {
namespace {

struct BlockScale {
  float step;
  float offset;      // exact formats: o
  float multiplier;  // unit / step
  float shift;       // 128 / step
};

// Of row `lane` in the block that begins at column `begin`.
BlockScale block_scale(const PanelFormat& f, const TileRecipe& r, const uint8_t* panel, int64_t lane,
                       int64_t begin, int64_t end) {
  if (r.exact) {
    const float scale = panel_scale(f, panel, lane, begin);
    return {scale, std::fma(scale, r.centre, panel_offset(f, panel, lane, begin)), 0, 0};
  }
  float largest = 0;
  bool finite = true;
  for (int64_t k = begin; k < end; k += f.group) {
    const float scale = panel_scale(f, panel, lane, k);
    const float offset = r.has_offsets ? std::fma(scale, r.centre, panel_offset(f, panel, lane, k)) : 0.0f;
    const float bound = std::fma(std::fabs(scale), r.spread, std::fabs(offset));
    finite = finite && std::isfinite(bound);
    largest = std::fmax(largest, bound);
  }
  if (!finite) return {NAN, 0, 0, 0};
  if (largest < kTileLeast) return {0, 0, 0, 0};
  const float step = largest / r.levels;
  return {step, 0, r.unit / step, 128.0f / step};
}

int32_t code_to_i8(const PanelFormat& f, const TileRecipe& r, const BlockScale& block, const uint8_t* panel,
                   int64_t lane, int64_t k) {
  const uint32_t code = panel_code(f, panel, lane, k);
  if (r.exact) return panel_value(f, code) - f.zero - static_cast<int32_t>(r.centre);
  if (block.multiplier == 0) return 0;
  const float scale = panel_scale(f, panel, lane, k);
  const int32_t m = static_cast<int32_t>(std::nearbyint(scale * block.multiplier)) | 1;
  int32_t h = 0;
  if (r.has_offsets) {
    const float offset = std::fma(scale, r.centre, panel_offset(f, panel, lane, k));
    h = static_cast<int32_t>(std::nearbyint(offset * block.shift));
  }
  const int32_t y = (r.x[code] * m) >> 16;
  return (y + h + 64) >> 7;
}

}  // namespace

void pack_tile_codes(const float* x, int64_t k, int8_t* codes, float* scales, TileSums* sums) {
  const int64_t padded = padded_k(k);
  for (int64_t begin = 0, block = 0; begin < padded; begin += kTileDepth, ++block) {
    const int64_t end = begin + kTileDepth < padded ? begin + kTileDepth : padded;
    float largest = 0;
    bool finite = true;
    TileSums sum{};
    for (int64_t i = begin; i < end && i < k; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::fmax(largest, std::fabs(x[i]));
      sum.nonzero += x[i] != 0;
    }
    // Below 127 * FLT_MIN the reciprocal overflows; such a block counts as zero.
    const float inverse = finite && largest >= 1.5e-36f ? 127.0f / largest : 0;
    if (inverse == 0) sum.nonzero = 0;
    scales[block] = !finite ? NAN : inverse == 0 ? 0 : largest / 127.0f;
    for (int64_t i = begin; i < end; ++i) {
      const int32_t code = i < k && inverse != 0 ? static_cast<int32_t>(std::nearbyint(x[i] * inverse)) : 0;
      codes[tile_at(0, i, 0, kStep)] = static_cast<int8_t>(code);
      sum.sum += code;
      sum.squares += code * code;
    }
    sums[block] = sum;
  }
}

void pack_tile_halves(const float* x, int64_t k, uint16_t* halves) {
  for (int64_t i = 0; i < padded_k(k); ++i) {
    halves[tile_at(0, i, 0, kStep / 2)] = i < k ? f32_to_bf16(load_as<float>(x + i)) : 0;
  }
}

void matmul_tile_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const TileRecipe r = tile_recipe(f);
  const int64_t blocks = tile_blocks(a.stride);
  for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
    const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
    const int64_t lane = n % kPanelRows;
    for (int64_t block = 0; block < blocks; ++block) {
      const int64_t begin = block * kTileDepth;
      const int64_t end = begin + kTileDepth < f.cols ? begin + kTileDepth : f.cols;
      const BlockScale scale = block_scale(f, r, panel, lane, begin, end);
      int8_t weights[kTileDepth];
      for (int64_t k = begin; k < end; ++k) {
        weights[k - begin] = static_cast<int8_t>(code_to_i8(f, r, scale, panel, lane, k));
      }
      for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
        int32_t integer = 0;
        for (int64_t k = begin; k < end; ++k) {
          integer += weights[k - begin] * a.codes[tile_at(m, k, a.stride, kStep)];
        }
        float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
        float sum = block > 0 || tile.accumulate ? *out : 0.0f;
        const float both = scale.step * a.scales[m * blocks + block];
        sum = std::fma(static_cast<float>(integer), both, sum);
        if (r.exact && r.has_offsets) sum = std::fma(scale.offset, a.moments[m * blocks + block], sum);
        *out = sum;
      }
    }
  }
}

// Weights and activations rounded to bf16, products and sums in f32 (here in double within a block).
void matmul_tile_bf16(const PanelFormat& f, const Activations& a, const Tile& tile) {
  for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
    const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
    for (int64_t begin = 0; begin < f.cols; begin += kTileDepth) {
      const int64_t end = begin + kTileDepth < f.cols ? begin + kTileDepth : f.cols;
      float weights[kTileDepth];
      for (int64_t k = begin; k < end; ++k) {
        weights[k - begin] = bf16_to_f32(f32_to_bf16(panel_weight(f, panel, n % kPanelRows, k)));
      }
      for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
        float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
        double sum = begin > 0 || tile.accumulate ? *out : 0.0;
        for (int64_t k = begin; k < end; ++k) {
          const float value = bf16_to_f32(a.halves[tile_at(m, k, a.stride, kStep / 2)]);
          sum += static_cast<double>(value) * weights[k - begin];
        }
        *out = static_cast<float>(sum);
      }
    }
  }
}

}  // namespace bitloom::scalar
