// Encoders of the K types: two levels of scales.
//
// Sub-blocks are first fitted on their own (a scale, or a scale and a minimum, both unrounded). The
// super-block's scale then maps the largest of them onto the largest integer, each sub-block takes the
// integers near its own fit that give the smallest squared error, and the super-block's scales are refit
// by least squares with all codes given. Unweighted squared error throughout.
#include <cmath>
#include <cstring>
#include <limits>

#include "../base/float16.h"
#include "gguf.h"
#include "gguf_pack_k.h"
#include "line_search.h"
#include "scale_search.h"

namespace bitloom {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

// The least squares scale that goes with a super-block's integers, and likewise for its minimum.
struct SuperSums {
  double scale_scale = 0, scale_min = 0, min_min = 0, value_scale = 0, value_min = 0;

  // x = super_scale * a - super_min * b
  void add(double value, double a, double b) {
    scale_scale += a * a;
    scale_min += a * b;
    min_min += b * b;
    value_scale += value * a;
    value_min += value * b;
  }
  double scale() const {
    const double determinant = scale_scale * min_min - scale_min * scale_min;
    if (determinant > 0) return (value_scale * min_min - value_min * scale_min) / determinant;
    return scale_scale > 0 ? value_scale / scale_scale : 0;
  }
  double min() const {
    const double determinant = scale_scale * min_min - scale_min * scale_min;
    if (determinant > 0) return (value_scale * scale_min - value_min * scale_scale) / determinant;
    return scale_scale <= 0 && min_min > 0 ? -value_min / min_min : 0;
  }
};

float stored_f16(double value) {
  return f16_to_f32(f32_to_f16_finite(static_cast<float>(clamp(value, -65504.0, 65504.0)))) + 0.0f;
}

// ---- Scales only: q3_k, q6_k --------------------------------------------------------------------

struct SymmetricShape {
  int low, high;              // codes
  int scale_low, scale_high;  // integer scales of sub-blocks of 16
};

// The codes and error of a super-block with this super-scale; `free` are the sub-blocks' own scales.
SuperBlock round_symmetric(const float* values, const SymmetricShape& shape, float super_scale,
                           const double* free) {
  SuperBlock block;
  block.super_scale = super_scale;
  block.error = 0;
  const IntegerLevels levels{shape.low, shape.high};
  for (int s = 0; s < 16; ++s) {
    const float* sub = values + 16 * s;
    const double ideal = super_scale != 0 ? free[s] / super_scale : 0;
    const int middle = static_cast<int>(round_even(clamp(ideal, shape.scale_low, shape.scale_high)));
    Fit best{0, kInfinity, 0, 0};
    for (const int scale : {middle, middle - 1, middle + 1}) {
      if (scale < shape.scale_low || scale > shape.scale_high) continue;
      const Fit fit = measure(sub, 16, super_scale * static_cast<float>(scale), levels);
      if (!(fit.error < best.error)) continue;
      best = fit;
      block.scales[s] = scale;
    }
    block.error += best.error;
    for (int i = 0; i < 16; ++i) {
      block.codes[16 * s + i] = static_cast<int>(levels.nearest(sub[i], best.scale));
    }
  }
  return block;
}

SuperBlock fit_symmetric(const float* values, const SymmetricShape& shape, int32_t method) {
  const bool thorough = method == BL_QUANTIZE_mse;
  const IntegerLevels levels{shape.low, shape.high};
  double free[16];
  double largest = 0;
  for (int s = 0; s < 16; ++s) {
    const float* sub = values + 16 * s;
    const Extent extent(sub, 16);
    const double onto_low = static_cast<double>(extent.signed_max) / shape.low;
    const double onto_high = extent.largest() / shape.high;
    Fit fit = best_scale(sub, 16, levels, FreeScale{}, {onto_low, onto_high});
    fit = search_scale(sub, 16, levels, FreeScale{}, fit, {onto_low}, thorough ? 1 : 3);
    if (thorough) fit = search_scale(sub, 16, levels, FreeScale{}, fit, {onto_high});
    free[s] = fit.scale;
    if (std::fabs(free[s]) > std::fabs(largest)) largest = free[s];
  }

  SuperBlock best;
  const auto try_scale = [&](double scale) {
    const SuperBlock block = round_symmetric(values, shape, stored_f16(scale), free);
    if (!(block.error < best.error)) return false;
    best = block;
    return true;
  };
  try_scale(largest / shape.scale_low);
  if (thorough) {
    for (const double fraction : {-1.0, 0.9, 0.95, 1.05, 1.1}) {
      try_scale(fraction * largest / shape.scale_low);
    }
  }
  for (int iteration = 0; iteration < (thorough ? 4 : 1); ++iteration) {
    SuperSums sums;
    for (int i = 0; i < 256; ++i) sums.add(values[i], best.scales[i / 16] * best.codes[i], 0);
    if (!try_scale(sums.scale())) break;
  }
  return best;
}

// ---- Scales and minima: q2_k, q4_k, q5_k ----------------------------------------------------------

struct AffineShape {
  int sub_blocks;  // of 256 / sub_blocks weights
  int high;        // codes 0 to high
  int scale_high;  // integer scales and minima 0 to scale_high
};

double affine_error(const float* values, int count, float scale, float min, int high) {
  const double inverse = inverse_or_zero(scale);
  double error = 0;
  for (int i = 0; i < count; ++i) {
    const float code = static_cast<float>(line_code(values[i], inverse, -min, high));
    const double difference = static_cast<double>(values[i]) - (scale * code - min);
    error += difference * difference;
  }
  return error;
}

SuperBlock round_affine(const float* values, const AffineShape& shape, float super_scale, float super_min,
                        const Line* lines) {
  SuperBlock block;
  block.super_scale = super_scale;
  block.super_min = super_min;
  block.error = 0;
  const int count = 256 / shape.sub_blocks;
  const auto nearest = [&](double free, float super) {
    return super > 0 ? static_cast<int>(round_even(clamp(free / super, 0, shape.scale_high))) : 0;
  };
  for (int s = 0; s < shape.sub_blocks; ++s) {
    const float* sub = values + count * s;
    const int scale_middle = nearest(lines[s].scale, super_scale);
    const int min_middle = nearest(-lines[s].min, super_min);
    double best = kInfinity;
    for (const int scale : {scale_middle, scale_middle - 1, scale_middle + 1}) {
      for (const int min : {min_middle, min_middle - 1, min_middle + 1}) {
        if (scale < 0 || scale > shape.scale_high || min < 0 || min > shape.scale_high) continue;
        const double error = affine_error(sub, count, super_scale * static_cast<float>(scale),
                                          super_min * static_cast<float>(min), shape.high);
        if (!(error < best)) continue;
        best = error;
        block.scales[s] = scale;
        block.mins[s] = min;
      }
    }
    block.error += best;
    const float scale = super_scale * static_cast<float>(block.scales[s]);
    const float min = super_min * static_cast<float>(block.mins[s]);
    const double inverse = inverse_or_zero(scale);
    for (int i = 0; i < count; ++i) {
      block.codes[count * s + i] = line_code(sub[i], inverse, -min, shape.high);
    }
  }
  return block;
}

SuperBlock fit_affine(const float* values, const AffineShape& shape, int32_t method) {
  const bool thorough = method == BL_QUANTIZE_mse;
  const int count = 256 / shape.sub_blocks;
  const LineSearch search = thorough ? LineSearch{1, 3, true} : LineSearch{3, 3, true};
  Line lines[16];
  double largest_scale = 0;
  double largest_min = 0;
  for (int s = 0; s < shape.sub_blocks; ++s) {
    lines[s] = search_line(values + count * s, count, shape.high, search);
    largest_scale = std::max(largest_scale, lines[s].scale);
    largest_min = std::max(largest_min, -lines[s].min);
  }

  SuperBlock best;
  const auto try_scales = [&](double scale, double min) {
    if (scale < 0 || min < 0) return false;
    const SuperBlock block = round_affine(values, shape, stored_f16(scale), stored_f16(min), lines);
    if (!(block.error < best.error)) return false;
    best = block;
    return true;
  };
  const double scale = largest_scale / shape.scale_high;
  const double min = largest_min / shape.scale_high;
  try_scales(scale, min);
  if (thorough) {
    for (const double scale_fraction : {0.9, 1.0, 1.1}) {
      for (const double min_fraction : {0.9, 1.0, 1.1}) {
        try_scales(scale * scale_fraction, min * min_fraction);
      }
    }
  }
  for (int iteration = 0; iteration < (thorough ? 4 : 1); ++iteration) {
    SuperSums sums;
    for (int i = 0; i < 256; ++i) {
      const int s = i / count;
      sums.add(values[i], best.scales[s] * best.codes[i], best.mins[s]);
    }
    if (!try_scales(sums.scale(), sums.min())) break;
  }
  return best;
}

template <typename Block>
void store(const SuperBlock& fit, uint8_t* bytes) {
  Block block;
  pack(fit, block);
  std::memcpy(bytes, &block, sizeof(block));
}

}  // namespace

void encode_k_block(int32_t format, const float* values, int32_t method, uint8_t* bytes) {
  switch (format) {
    case BL_FORMAT_q2_k:
      return store<BlockQ2K>(fit_affine(values, {16, 3, 15}, method), bytes);
    case BL_FORMAT_q3_k:
      return store<BlockQ3K>(fit_symmetric(values, {-4, 3, -32, 31}, method), bytes);
    case BL_FORMAT_q4_k:
      return store<BlockQ4K>(fit_affine(values, {8, 15, 63}, method), bytes);
    case BL_FORMAT_q5_k:
      return store<BlockQ5K>(fit_affine(values, {8, 31, 63}, method), bytes);
    case BL_FORMAT_q6_k:
      return store<BlockQ6K>(fit_symmetric(values, {-32, 31, -128, 127}, method), bytes);
    default:
      return;
  }
}

}  // namespace bitloom
