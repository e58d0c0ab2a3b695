// Fitting values by scale * code + min, codes 0 to `high`: the first stage of the formats that store a
// minimum.
#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>

#include "scale_search.h"

namespace bitloom {

struct Line {
  double scale;
  double min;
  double error;  // squared; infinite when not measured
};

// The code nearest to value; `inverse` is 1 / scale, or 0 at scale 0.
inline int line_code(float value, double inverse, double min, int high) {
  return static_cast<int>(round_even(clamp((value - min) * inverse, 0, high)));
}
inline double inverse_or_zero(double scale) { return scale != 0 ? 1 / scale : 0; }

struct LineSearch {
  int stride;             // of the grid of scales, in 1/32 of the range
  int anchors;            // 1: ranges clipped at both ends alike; 3: also at either end alone
  bool min_not_positive;  // as the K types store it
};

// Fits at most 32 values with the codes that `start` gives them: the least squares line of (code, value).
inline Line refit_line(const float* values, int count, int high, const Line& start, bool min_not_positive) {
  int codes[32];
  const double inverse = inverse_or_zero(start.scale);
  double codes_sum = 0, squares = 0, values_sum = 0, products = 0;
  for (int i = 0; i < count; ++i) {
    codes[i] = line_code(values[i], inverse, start.min, high);
    codes_sum += codes[i];
    squares += codes[i] * codes[i];
    values_sum += values[i];
    products += static_cast<double>(values[i]) * codes[i];
  }
  Line line{0, values_sum / count, 0};
  const double determinant = count * squares - codes_sum * codes_sum;
  if (determinant > 0) {
    line.scale = (count * products - codes_sum * values_sum) / determinant;
    line.min = (values_sum - line.scale * codes_sum) / count;
  }
  if (min_not_positive && line.min > 0) {
    line.min = 0;
    line.scale = squares > 0 ? products / squares : 0;
  }
  for (int i = 0; i < count; ++i) {
    const double difference = values[i] - (line.scale * codes[i] + line.min);
    line.error += difference * difference;
  }
  return line;
}

// The line of least squared error that a fixed grid and Lloyd's iteration find; count at most 32.
inline Line search_line(const float* values, int count, int high, const LineSearch& search) {
  const Extent extent(values, count);
  const double max = extent.max;
  const double min = search.min_not_positive ? std::min(0.0f, extent.min) : extent.min;
  Line best{0, min, std::numeric_limits<double>::infinity()};
  if (max <= min) return best;  // constant, or nothing above a minimum of zero

  const auto keep_better = [&](const Line& line) {
    if (!(line.error < best.error)) return false;
    best = line;
    return true;
  };
  for (int step = kLastFraction; step >= kFirstFraction; step -= search.stride) {
    const double range = (max - min) * step / 32;
    const double starts[] = {(min + max - range) / 2, min, max - range};
    for (int anchor = 0; anchor < search.anchors; ++anchor) {
      const Line start{range / high, starts[anchor], 0};
      keep_better(refit_line(values, count, high, start, search.min_not_positive));
    }
  }
  for (int iteration = 0; iteration < 6; ++iteration) {
    if (!keep_better(refit_line(values, count, high, best, search.min_not_positive))) break;
  }
  return best;
}

}  // namespace bitloom
