// The tasks that a thread has left. Its owner takes them from the front, so that it walks through
// memory in order and what it fetches ahead is its own; a thread that has none left takes them from the back
// of another's, because on a shared machine one core can be much slower than the next.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>

namespace bitloom {

constexpr int64_t kMaxShareTasks = int64_t{1} << 31;  // two task numbers in 64 bits

struct Range {
  int64_t begin, end;
};

struct Share {
  std::atomic<uint64_t> range{0};  // begin in the low half, end in the high half
  char apart[56];                  // a cache line each; alignas would need a newer libstdc++ for its new

  void set(int64_t begin, int64_t end) { range.store(pack(begin, end), std::memory_order_relaxed); }
  // The next tasks [begin, end): up to `most` from the front, but one at a time towards the end, so that
  // others find some to take; or one from the back. None left: an empty range.
  Range take(bool front, int64_t most) {
    uint64_t old = range.load(std::memory_order_relaxed);
    for (;;) {
      const int64_t begin = static_cast<int64_t>(old & 0xffffffffu);
      const int64_t end = static_cast<int64_t>(old >> 32);
      if (begin >= end) return {0, 0};
      const Range taken =
          front ? Range{begin, begin + std::clamp<int64_t>((end - begin) / 2, 1, most)} : Range{end - 1, end};
      const uint64_t left = front ? pack(taken.end, end) : pack(begin, taken.begin);
      if (range.compare_exchange_weak(old, left, std::memory_order_relaxed)) return taken;
    }
  }

 private:
  static uint64_t pack(int64_t begin, int64_t end) {
    return static_cast<uint64_t>(end) << 32 | static_cast<uint64_t>(begin);
  }
};

// Cuts [0, count) into `parts` shares of neighbours; count at most kMaxShareTasks.
inline void cut_shares(Share* shares, int64_t parts, int64_t count) {
  for (int64_t part = 0; part < parts; ++part) {
    shares[part].set(count * part / parts, count * (part + 1) / parts);
  }
}

// Calls body(begin, end) for the tasks of share `own` in order, at most `most` at a time, then for those that
// others have left.
template <typename Body>
void run_shares(Share* shares, int64_t parts, int64_t own, int64_t most, Body&& body) {
  for (int64_t i = 0; i < parts; ++i) {
    Share& share = shares[(own + i) % parts];
    for (Range r = share.take(i == 0, most); r.begin < r.end; r = share.take(i == 0, most))
      body(r.begin, r.end);
  }
}

}  // namespace bitloom
