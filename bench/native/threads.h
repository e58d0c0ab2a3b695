// Runs the same body on several threads that start together.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <thread>
#include <vector>

namespace bitloom::bench {

inline double now_seconds() {
  using Clock = std::chrono::steady_clock;
  return std::chrono::duration<double>(Clock::now().time_since_epoch()).count();
}

// prepare(thread) on each thread (first touch of its memory), then a barrier, then body(thread).
// Gives the seconds from the first start to the last end.
template <typename Prepare, typename Body>
double run_together(int32_t threads, Prepare&& prepare, Body&& body) {
  std::atomic<int32_t> waiting{0};
  std::vector<double> starts(static_cast<size_t>(threads));
  std::vector<double> ends(static_cast<size_t>(threads));
  auto work = [&](int32_t thread) {
    prepare(thread);
    waiting.fetch_add(1);
    // Spinning, not sleeping: a wake-up would cost as long as the shorter measurements.
    while (waiting.load(std::memory_order_acquire) < threads) std::this_thread::yield();
    starts[static_cast<size_t>(thread)] = now_seconds();
    body(thread);
    ends[static_cast<size_t>(thread)] = now_seconds();
  };
  std::vector<std::thread> others;
  for (int32_t thread = 1; thread < threads; ++thread) others.emplace_back(work, thread);
  work(0);
  for (std::thread& other : others) other.join();
  return *std::max_element(ends.begin(), ends.end()) - *std::min_element(starts.begin(), starts.end());
}

}  // namespace bitloom::bench
