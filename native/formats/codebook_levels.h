// Levels of formats whose codes index a table.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "scale_search.h"

namespace bitloom {

// Where a value in the middle of two entries belongs: to the one that is first in the table, or to the one
// whose code is even (of neighbours among small floats one is).
enum class Ties { first, even };

// A codebook's finite entries, of which there is at least one, in ascending order, for binary search.
class CodebookLevels {
 public:
  CodebookLevels(const float* codebook, int size, Ties ties = Ties::first) : size_(size) {
    int finite = 0;
    for (int i = 0; i < size; ++i) {
      if (std::isfinite(codebook[i])) order_[finite++] = static_cast<uint8_t>(i);
    }
    const auto ascending = [=](uint8_t a, uint8_t b) { return codebook[a] < codebook[b]; };
    if (!std::is_sorted(order_, order_ + finite, ascending)) {
      std::stable_sort(order_, order_ + finite, ascending);
    }
    int kept = 0;  // of equal entries only the first in the table is of use
    for (int i = 0; i < finite; ++i) {
      if (kept > 0 && levels_[kept - 1] == codebook[order_[i]]) continue;
      order_[kept] = order_[i];
      levels_[kept++] = codebook[order_[i]];
    }
    const double infinity = std::numeric_limits<double>::infinity();
    for (int i = 0; i + 1 < size; ++i) {
      if (i + 1 >= kept) {
        midpoints_[i] = infinity;
        continue;
      }
      midpoints_[i] = (static_cast<double>(levels_[i]) + levels_[i + 1]) / 2;
      const bool upper = ties == Ties::even ? order_[i + 1] % 2 == 0 : order_[i + 1] < order_[i];
      if (upper) midpoints_[i] = std::nextafter(midpoints_[i], -infinity);
    }
    kept_ = kept;
    largest_ = std::max(std::fabs(levels_[0]), std::fabs(levels_[kept - 1]));
    zero_ = static_cast<int>(std::lower_bound(levels_, levels_ + kept - 1, 0.0f) - levels_);
  }

  float largest() const { return largest_; }
  float min() const { return levels_[0]; }
  float max() const { return levels_[kept_ - 1]; }

  // The entry nearest to value / scale; at scale 0 one that is not negative, so that zero decodes to +0.
  uint32_t code(float value, float scale) const { return order_[index(value, scale)]; }
  float nearest(float value, float scale) const { return levels_[index(value, scale)]; }

 private:
  int index(float value, float scale) const {
    if (scale == 0) return zero_;
    return count_below(midpoints_, size_, static_cast<double>(value) / scale);
  }

  int size_;               // 2^bits
  int kept_;               // distinct levels
  uint8_t order_[256];     // table indices
  float levels_[256];      // ascending, distinct
  double midpoints_[255];  // between levels, then infinite
  float largest_;          // magnitude
  int zero_;               // the first level that is not negative, else the last
};

}  // namespace bitloom
