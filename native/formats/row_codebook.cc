#include "row_codebook.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "../base/scratch.h"
#include "block_writer.h"
#include "codebook_levels.h"
#include "scale_search.h"

namespace bitloom {
namespace {

constexpr int kMaxLevels = 16;
constexpr int kIterations = 64;

struct Sample {
  float value, weight;
};

// A row in ascending order.
struct Samples {
  const Sample* at;
  int64_t count;
  double total;  // of weights
};

// Samples [first, last) and what is best for them.
struct Cell {
  int64_t first, last;
  double weight;
  double centroid;

  double error(const Samples& row) const {
    double sum = 0;
    for (int64_t i = first; i < last; ++i) {
      const double difference = row.at[i].value - centroid;
      sum += row.at[i].weight * difference * difference;
    }
    return sum;
  }
  // The value farthest from the centroid: one of the ends.
  double farthest(const Samples& row) const {
    const double low = row.at[first].value, high = row.at[last - 1].value;
    return centroid - low > high - centroid ? low : high;
  }
};

// The samples nearest to each of `count` ascending levels; in the middle, to the lower one.
void fill_cells(const Samples& row, const double* levels, int count, Cell* cells) {
  int64_t first = 0;
  for (int e = 0; e < count; ++e) {
    int64_t last = row.count;
    if (e + 1 < count) {
      const double middle = (levels[e] + levels[e + 1]) / 2;
      const Sample* end =
          std::upper_bound(row.at + first, row.at + row.count, middle,
                           [](double target, const Sample& sample) { return target < sample.value; });
      last = end - row.at;
    }
    Cell cell{first, last, 0, levels[e]};
    double moment = 0;
    for (int64_t i = first; i < last; ++i) {
      cell.weight += row.at[i].weight;
      moment += static_cast<double>(row.at[i].weight) * row.at[i].value;
    }
    if (cell.weight > 0) cell.centroid = moment / cell.weight;
    cells[e] = cell;
    first = last;
  }
}

// Levels of cells without weight go where they help most: to the far ends of the cells of largest error.
void place_idle_levels(const Samples& row, const Cell* cells, int count, double* levels) {
  double errors[kMaxLevels];
  bool measured = false;
  for (int e = 0; e < count; ++e) {
    if (cells[e].weight > 0) continue;
    if (!measured) {
      for (int i = 0; i < count; ++i) errors[i] = cells[i].weight > 0 ? cells[i].error(row) : 0;
      measured = true;
    }
    const int worst = static_cast<int>(std::max_element(errors, errors + count) - errors);
    if (!(errors[worst] > 0)) return;
    levels[e] = cells[worst].farthest(row);
    errors[worst] = 0;
  }
}

// Lloyd's iteration: ascending levels in place.
void refine_levels(const Samples& row, int count, double* levels) {
  for (int iteration = 0; iteration < kIterations; ++iteration) {
    Cell cells[kMaxLevels];
    fill_cells(row, levels, count, cells);
    double next[kMaxLevels];
    for (int e = 0; e < count; ++e) next[e] = cells[e].centroid;
    place_idle_levels(row, cells, count, next);
    std::sort(next, next + count);
    if (std::equal(next, next + count, levels)) return;
    std::copy(next, next + count, levels);
  }
}

void start_at_quantiles(const Samples& row, int count, double* levels) {
  double sum = 0;
  int e = 0;
  for (int64_t i = 0; i < row.count && e < count; ++i) {
    sum += row.at[i].weight;
    for (; e < count && sum * count >= (e + 0.5) * row.total; ++e) levels[e] = row.at[i].value;
  }
  for (; e < count; ++e) levels[e] = row.at[row.count - 1].value;
}

void start_evenly(const Samples& row, int count, double* levels) {
  const double low = row.at[0].value, high = row.at[row.count - 1].value;
  for (int e = 0; e < count; ++e) levels[e] = low + (high - low) * ((e + 0.5) / count);
}

float stored(double level, int32_t dtype) {
  const float value = static_cast<float>(level);
  return dtype == BL_SCALE_bf16 ? bf16_to_f32(f32_to_bf16_finite(value))
                                : f16_to_f32(f32_to_f16_finite(value));
}

double weighted_error(const Samples& row, const CodebookLevels& levels) {
  double sum = 0;
  for (int64_t i = 0; i < row.count; ++i) {
    const double difference = static_cast<double>(row.at[i].value) - levels.nearest(row.at[i].value, 1.0f);
    sum += row.at[i].weight * difference * difference;
  }
  return sum;
}

// The better of the starts' results, as stored.
void find_table(const Samples& row, int32_t dtype, int count, int32_t method, float* table) {
  double least = std::numeric_limits<double>::infinity();
  for (int start = 0; start < (method == BL_QUANTIZE_mse ? 2 : 1); ++start) {
    double levels[kMaxLevels];
    (start == 0 ? start_at_quantiles : start_evenly)(row, count, levels);
    refine_levels(row, count, levels);
    float rounded[kMaxLevels];
    for (int e = 0; e < count; ++e) rounded[e] = stored(levels[e], dtype);
    const double error = weighted_error(row, CodebookLevels(rounded, count));
    if (start > 0 && !(error < least)) continue;
    least = error;
    std::copy(rounded, rounded + count, table);
  }
}

Samples sorted_row(const float* values, int64_t count, const float* importance, Sample* memory) {
  double total = 0;
  for (int64_t i = 0; i < count; ++i) {
    memory[i] = {values[i], importance == nullptr ? 1.0f : importance[i]};
    total += memory[i].weight;
  }
  if (!(total > 0)) {
    for (int64_t i = 0; i < count; ++i) memory[i].weight = 1.0f;
    total = static_cast<double>(count);
  }
  std::sort(memory, memory + count, [](const Sample& a, const Sample& b) {
    return a.value < b.value || (a.value == b.value && a.weight < b.weight);
  });
  return {memory, count, total};
}

}  // namespace

bool encode_row_codebook(const bl_format_info& info, const float* values, int64_t count, const float* table,
                         int32_t method, const float* importance, uint8_t* bytes) {
  const int size = 1 << info.bits;
  float entries[kMaxLevels];
  if (table != nullptr) {
    for (int e = 0; e < size; ++e) entries[e] = stored(table[e], info.scale_dtype);
  } else {
    const Scratch memory(static_cast<uint64_t>(count) * sizeof(Sample));
    if (memory.data() == nullptr) return false;
    const Samples row = sorted_row(values, count, importance, reinterpret_cast<Sample*>(memory.data()));
    find_table(row, info.scale_dtype, size, method, entries);
  }
  BlockWriter block(info, count, bytes);
  const CodebookLevels levels(entries, size);
  for (int e = 0; e < size; ++e) block.entry(e, entries[e]);
  for (int64_t i = 0; i < count; ++i) block.code(i, static_cast<int>(levels.code(values[i], 1.0f)));
  return true;
}

}  // namespace bitloom
