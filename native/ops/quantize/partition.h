// The fixed partition of the quantize family: bands of whole rows.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../../base/thread_pool.h"

namespace bitloom {

// Weights in a band at least (unless there are fewer): converting so many takes some 20 microseconds,
// long against the cost of a task.
constexpr int64_t kBandWeights = 16384;

// Calls body(begin, end) for bands of rows, in parallel. `unit`: bands begin at multiples of it.
template <typename Body>
void for_row_bands(const bl_run& run, int64_t rows, int64_t cols, Body&& body, int64_t unit = 1) {
  const int64_t wanted = kBandWeights / std::max<int64_t>(cols, 1);
  const int64_t band = std::max<int64_t>(1, wanted / unit) * unit;
  parallel_for(run, rows / band + (rows % band != 0),
               [&](int64_t index) { body(index * band, std::min(rows, index * band + band)); });
}

}  // namespace bitloom
