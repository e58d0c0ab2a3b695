// A fork-join pool. The partition of work is fixed by the operator (task i is always the same piece of
// the result), so results never depend on how many threads run or on which thread takes a task.
#pragma once

#include <cstdint>
#include <type_traits>

#include "../include/bitloom.h"

namespace bitloom {

// Calls body(i) for every i in [0, count) and returns when all have returned. Runs on the caller's
// executor if there is one, else on the pool; serially when the pool is busy with another call.
void run_tasks(const bl_run& run, int64_t count, void (*task)(void* body, int64_t index), void* body);

template <typename Body>
void parallel_for(const bl_run& run, int64_t count, Body&& body) {
  if (count <= 0) return;
  using Callable = std::remove_reference_t<Body>;
  run_tasks(
      run, count, [](void* context, int64_t index) { (*static_cast<Callable*>(context))(index); },
      const_cast<void*>(static_cast<const void*>(&body)));
}

// How many threads a call will use at most.
int32_t thread_count(const bl_run& run);

}  // namespace bitloom
