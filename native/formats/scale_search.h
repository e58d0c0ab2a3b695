// Choosing the scale of a group: every format stores each weight as scale * level, the levels being
// small integers, signs or a codebook's entries. What is searched is measured as it will be decoded, in
// f32 with the scale as stored; errors are summed in double, in order, so that results are the same on
// every machine.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <initializer_list>
#include <limits>

#include "../base/float16.h"
#include "../include/bitloom.h"

namespace bitloom {

// Nearest integer, ties to even, |x| < 2^51: the sum's unit in the last place is 1.
inline double round_even(double x) { return (x + 0x1.8p52) - 0x1.8p52; }

inline double clamp(double x, double low, double high) { return x < low ? low : x > high ? high : x; }

// Conversions of finite values that saturate instead of overflowing to infinity.
inline uint16_t f32_to_f16_finite(float value) {
  return f32_to_f16(static_cast<float>(clamp(value, -65504.0, 65504.0)));
}
inline uint16_t f32_to_bf16_finite(float value) {
  const uint16_t bits = f32_to_bf16(value);
  return (bits & 0x7fff) == 0x7f80 ? static_cast<uint16_t>(bits - 1) : bits;
}

// Rounds a scale to the type it is stored in; at most 65504 or bf16's largest finite value, and so small
// that the largest level still decodes to a finite weight. Zero is +0.
struct StoredScale {
  int32_t dtype;        // f16 or bf16
  float largest_level;  // magnitude

  float operator()(double scale) const {
    const double limit = std::numeric_limits<float>::max();
    const float value = static_cast<float>(clamp(scale, -limit, limit));
    if (dtype == BL_DTYPE_f16) {
      float rounded = f16_to_f32(f32_to_f16_finite(value));
      while (!std::isfinite(rounded * largest_level)) rounded /= 2;  // huge codebook entries only
      return rounded + 0.0f;
    }
    uint16_t bits = f32_to_bf16_finite(value);
    while (!std::isfinite(bf16_to_f32(bits) * largest_level)) --bits;  // the next one towards zero
    return bf16_to_f32(bits) + 0.0f;
  }
};

// A scale that stays as it is, for the first stage of formats with two levels of scales.
struct FreeScale {
  float operator()(double scale) const { return static_cast<float>(scale); }
};

// Levels low, low + 1, ..., high; low <= 0 <= high.
struct IntegerLevels {
  int low;
  int high;

  float nearest(float value, float scale) const {
    if (scale == 0) return 0.0f;
    const double quotient = static_cast<double>(value) / scale;
    return static_cast<float>(round_even(clamp(quotient, low, high)));
  }
};

// Levels -1 and 1.
struct SignLevels {
  float nearest(float value, float) const { return value < 0 ? -1.0f : 1.0f; }
};

// Levels code - zero_point, the codes being low to high.
struct OffsetLevels {
  int low;
  int high;
  float zero_point;

  float code(float value, float scale) const {
    if (scale == 0) return static_cast<float>(clamp(zero_point, low, high));
    const double quotient = static_cast<double>(value) / scale + zero_point;
    return static_cast<float>(round_even(clamp(quotient, low, high)));
  }
  float nearest(float value, float scale) const { return code(value, scale) - zero_point; }
};

// How many of `size` - 1 ascending thresholds are below `target`; size is a power of two. Without branches,
// which would be mispredicted half of the time.
inline int count_below(const double* thresholds, int size, double target) {
  int index = 0;
  for (int step = size / 2; step > 0; step /= 2) {
    index += thresholds[index + step - 1] < target ? step : 0;
  }
  return index;
}

// How well a scale fits, and the sums for the scale of least squared error at the same levels.
struct Fit {
  float scale;
  double error;        // sum of (value - scale * level)^2
  double value_level;  // sum of value * level
  double level_level;  // sum of level^2
};

template <typename Levels>
Fit measure(const float* values, int64_t count, float scale, const Levels& levels) {
  Fit fit{scale, 0, 0, 0};
  for (int64_t i = 0; i < count; ++i) {
    const float level = levels.nearest(values[i], scale);
    const double difference = static_cast<double>(values[i]) - scale * level;
    fit.error += difference * difference;
    fit.value_level += static_cast<double>(values[i]) * level;
    fit.level_level += static_cast<double>(level) * level;
  }
  return fit;
}

// The best of `first` (rounded) scales: the minmax method. First of equals.
template <typename Levels, typename Round>
Fit best_scale(const float* values, int64_t count, const Levels& levels, const Round& round,
               std::initializer_list<double> first) {
  Fit best{0, std::numeric_limits<double>::infinity(), 0, 0};
  for (const double scale : first) {
    const Fit fit = measure(values, count, round(scale), levels);
    if (fit.error < best.error) best = fit;
  }
  return best;
}

// Alternates least squares and nearest levels from `best` while that helps (Lloyd's iteration).
template <typename Levels, typename Round>
Fit refine_scale(const float* values, int64_t count, const Levels& levels, const Round& round, Fit best) {
  for (int iteration = 0; iteration < 6 && best.level_level > 0; ++iteration) {
    const float scale = round(best.value_level / best.level_level);
    if (scale == best.scale) break;
    const Fit fit = measure(values, count, scale, levels);
    if (!(fit.error < best.error)) break;
    best = fit;
  }
  return best;
}

// Fractions of a minmax scale that a search tries, 11/32 to 35/32: clipping a group's outliers pays most
// at few bits (the best 2-bit scale of a long Gaussian row is half of minmax), and above 1 rounding may
// fall better.
inline constexpr int kFirstFraction = 11;
inline constexpr int kLastFraction = 35;

// The mse method: the best of `best` and a grid of `stride`/32 steps over each of `bases`, refined.
template <typename Levels, typename Round>
Fit search_scale(const float* values, int64_t count, const Levels& levels, const Round& round, Fit best,
                 std::initializer_list<double> bases, int stride = 1) {
  for (const double base : bases) {
    float previous = best.scale;
    for (int step = kFirstFraction; step <= kLastFraction; step += stride) {
      const float scale = round(base * step / 32);
      if (scale == previous) continue;
      previous = scale;
      const Fit fit = measure(values, count, scale, levels);
      if (fit.error < best.error) best = fit;
    }
  }
  return refine_scale(values, count, levels, round, best);
}

// What minmax needs to know of a group.
struct Extent {
  float min;  // 0 for no values
  float max;
  float signed_max;  // the value of largest magnitude, first of equals
  double mean_magnitude;

  explicit Extent(const float* values, int64_t count)
      : min(count > 0 ? values[0] : 0), max(min), signed_max(0), mean_magnitude(0) {
    for (int64_t i = 0; i < count; ++i) {
      min = std::min(min, values[i]);
      max = std::max(max, values[i]);
      if (std::fabs(values[i]) > std::fabs(signed_max)) signed_max = values[i];
      mean_magnitude += std::fabs(static_cast<double>(values[i]));
    }
    if (count > 0) mean_magnitude /= static_cast<double>(count);
  }
  double largest() const { return std::fabs(static_cast<double>(signed_max)); }
};

}  // namespace bitloom
