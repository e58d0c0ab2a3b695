#include "element_encode.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "elements.h"
#include "formats.h"

namespace bitloom {
namespace {

// Exponents of shared scales: bytes 0 to 254.
constexpr int kSmallestExponent = -127;
constexpr int kLargestExponent = 127;

// OCP Microscaling v1.0, 6.3: the largest magnitude comes into the binade of the largest element. Never so
// large a scale that an element in that binade is beyond f32.
int standard_exponent(const Extent& extent, int top) {
  return std::clamp(floor_log2(extent.largest()) - top, kSmallestExponent, kLargestExponent - top);
}

// Keeps the better of `best` and the scale 2^exponent, measured by `fit`. First of equals.
template <typename MeasureAt>
void try_exponent(int exponent, int top, const MeasureAt& measure_at, Fit& best) {
  if (exponent < kSmallestExponent || exponent > kLargestExponent - top) return;
  const Fit fit = measure_at(static_cast<float>(std::ldexp(1.0, exponent)));
  if (fit.error < best.error) best = fit;
}

// The mse method: clipping the largest weights pays at few bits, and a scale above the standard one avoids
// all clipping.
template <typename MeasureAt>
void search_exponents(int standard, int top, const MeasureAt& measure_at, Fit& best) {
  for (const int exponent : {standard + 1, standard - 1, standard - 2, standard - 3}) {
    try_exponent(exponent, top, measure_at, best);
  }
}

constexpr Fit kNoFit{0x1p-127f, std::numeric_limits<double>::infinity(), 0, 0};

// bfp<b>, mxint8: codes -half to half - 1; value = scale * unit * code.
struct IntegerElements {
  int half;
  float unit;

  // -half is left out where it would decode to -infinity.
  IntegerLevels levels(float scale) const {
    const float low = scale * unit * static_cast<float>(-half);
    return {std::isfinite(low) ? -half : 1 - half, half - 1};
  }
};

void encode_integer_elements(const bl_format_info& info, const float* values, int64_t count, int32_t method,
                             BlockWriter& block) {
  const bool mxint8 = info.kind == BL_KIND_mxint8;
  const IntegerElements elements{1 << (info.bits - 1), mxint8 ? 0x1p-6f : 1.0f};
  const int top = mxint8 ? 0 : info.bits - 2;
  const auto measure_at = [&](float scale) {
    Fit fit = measure(values, count, scale * elements.unit, elements.levels(scale));
    fit.scale = scale;
    return fit;
  };
  Fit best = kNoFit;
  const Extent extent(values, count);
  if (extent.signed_max != 0) {
    const int standard = standard_exponent(extent, top);
    try_exponent(standard, top, measure_at, best);
    if (!mxint8) try_exponent(standard + 1, top, measure_at, best);
    // -2^n is also the lowest code at half of the scale.
    int ignored = 0;
    if (std::frexp(extent.signed_max, &ignored) == -0.5f) {
      try_exponent(standard - 1, top, measure_at, best);
    }
    if (method == BL_QUANTIZE_mse) search_exponents(standard, top, measure_at, best);
  }
  block.scale(best.scale);
  const IntegerLevels levels = elements.levels(best.scale);
  for (int64_t i = 0; i < count; ++i) {
    block.code(i, static_cast<int>(levels.nearest(values[i], best.scale * elements.unit)));
  }
}

// Sorted once: that would take longer than encoding a block.
const CodebookLevels& element_levels(const bl_format_info& info) {
  static const CodebookLevels e2m1(element_table(BL_KIND_e2m1), 16, Ties::even);
  static const CodebookLevels e2m3(element_table(BL_KIND_e2m3), 64, Ties::even);
  static const CodebookLevels e3m2(element_table(BL_KIND_e3m2), 64, Ties::even);
  static const CodebookLevels e4m3(element_table(BL_KIND_e4m3), 256, Ties::even);
  static const CodebookLevels e5m2(element_table(BL_KIND_e5m2), 256, Ties::even);
  switch (info.kind) {
    case BL_KIND_e2m3:
      return e2m3;
    case BL_KIND_e3m2:
      return e3m2;
    case BL_KIND_e4m3:
      return e4m3;
    case BL_KIND_e5m2:
      return e5m2;
    default:
      return e2m1;
  }
}

}  // namespace

Fit fit_exponent(const float* values, int64_t count, const CodebookLevels& levels, int top, int32_t method) {
  const Extent extent(values, count);
  Fit best = kNoFit;
  if (extent.signed_max == 0) return best;
  const auto measure_at = [&](float scale) { return measure(values, count, scale, levels); };
  const int standard = standard_exponent(extent, top);
  try_exponent(standard, top, measure_at, best);
  if (method == BL_QUANTIZE_mse) search_exponents(standard, top, measure_at, best);
  return best;
}

Fit fit_e4m3_scale(const float* values, int64_t count, const CodebookLevels& levels, int32_t method) {
  const auto round = [](double scale) { return ue4m3_to_f32(ue4m3_of(scale)); };
  const double base = Extent(values, count).largest() / levels.largest();
  const Fit fit = best_scale(values, count, levels, round, {base});
  return method == BL_QUANTIZE_mse ? search_scale(values, count, levels, round, fit, {base}) : fit;
}

void encode_elements(const bl_format_info& info, const float* values, int64_t count, int32_t method,
                     BlockWriter& block) {
  if (info.kind == BL_KIND_bfp || info.kind == BL_KIND_mxint8) {
    return encode_integer_elements(info, values, count, method, block);
  }
  const CodebookLevels& levels = element_levels(info);
  const Fit fit = info.scale_dtype == BL_SCALE_e4m3
                      ? fit_e4m3_scale(values, count, levels, method)
                      : fit_exponent(values, count, levels, floor_log2(levels.largest()), method);
  block.scale(fit.scale);
  for (int64_t i = 0; i < count; ++i) {
    block.code(i, static_cast<int>(levels.code(values[i], fit.scale)));
  }
}

}  // namespace bitloom
