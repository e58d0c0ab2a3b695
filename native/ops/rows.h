// Row operators: how the rows of a tensor are partitioned, and how each becomes f32 and back.
#pragma once

#include <algorithm>
#include <cstdint>

#include "../base/scratch.h"
#include "../base/tensor.h"
#include "../base/thread_pool.h"

namespace bitloom {

// Elements below which waking other threads costs more than it brings: about 10 microseconds, in which one
// AVX2 thread does some 30 thousand elements of exp, the most expensive function here.
constexpr int64_t kSerialElements = int64_t{1} << 15;
// Elements of a task: long against the cost of a task, short against a thread's share.
constexpr int64_t kTaskElements = int64_t{1} << 13;
// Bounds the scratch, of which each task has one row.
constexpr int64_t kMaxTasks = 64;

// Calls kernel(x, output) for every row: x [length] as f32, output [length] to be written, perhaps the same
// memory. A row that is not contiguous f32 goes through the output's row or through scratch; contiguous f32
// rows are used in place and allocate nothing. Fails with out_of_memory before anything is written.
template <typename Kernel>
bl_status run_rows(const char* op, const bl_run& run, const Rows& x, const Rows& output, const Kernel& kernel,
                   bl_error* error) {
  if (x.count == 0 || x.length == 0) return BL_STATUS_ok;
  const int64_t elements = x.count * x.length;
  const bool serial = elements < kSerialElements;
  const int64_t tasks =
      serial ? 1 : std::min({x.count, kMaxTasks, (elements + kTaskElements - 1) / kTaskElements});
  const uint64_t row_bytes =
      output.direct(0) != nullptr ? 0 : align_up(static_cast<uint64_t>(x.length) * sizeof(float));
  alignas(kScratchAlignment) uint8_t small[8192];
  const Scratch scratch(small, sizeof(small), row_bytes * static_cast<uint64_t>(tasks));
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "%s: cannot allocate %llu bytes of workspace", op,
           static_cast<unsigned long long>(row_bytes * static_cast<uint64_t>(tasks)));
  const auto body = [&](int64_t task) {
    float* spare = reinterpret_cast<float*>(scratch.data() + static_cast<uint64_t>(task) * row_bytes);
    const int64_t end = x.count * (task + 1) / tasks;
    for (int64_t row = x.count * task / tasks; row < end; ++row) {
      float* out = row_bytes == 0 ? output.direct(row) : spare;
      const float* in = x.direct(row);
      if (in == nullptr) {
        x.load(row, out);
        in = out;
      }
      kernel(in, out);
      if (row_bytes != 0) output.store(row, out);
    }
  };
  if (serial) {
    body(0);
  } else {
    parallel_for(run, tasks, body);
  }
  return BL_STATUS_ok;
}

}  // namespace bitloom
