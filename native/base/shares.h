// The tasks [begin, end) that a thread has left. Its owner takes them from the front, so that it walks
// through memory in order and what it fetches ahead is its own; a thread that has none left takes them from
// the back of another's, because on a shared machine one core can be much slower than the next.
#pragma once

#include <atomic>
#include <cstdint>

namespace bitloom {

constexpr int64_t kMaxShareTasks = int64_t{1} << 31;  // two task numbers in 64 bits

struct Share {
  std::atomic<uint64_t> range{0};  // begin in the low half, end in the high half
  char apart[56];                  // a cache line each; alignas would need a newer libstdc++ for its new

  void set(int64_t begin, int64_t end) {
    range.store(pack(static_cast<uint64_t>(begin), static_cast<uint64_t>(end)), std::memory_order_relaxed);
  }
  // The next task from the front or the back; -1 if none is left.
  int64_t take(bool front) {
    uint64_t old = range.load(std::memory_order_relaxed);
    for (;;) {
      const uint64_t begin = old & 0xffffffffu;
      const uint64_t end = old >> 32;
      if (begin >= end) return -1;
      const uint64_t next = front ? pack(begin + 1, end) : pack(begin, end - 1);
      if (range.compare_exchange_weak(old, next, std::memory_order_relaxed)) {
        return static_cast<int64_t>(front ? begin : end - 1);
      }
    }
  }

 private:
  static uint64_t pack(uint64_t begin, uint64_t end) { return end << 32 | begin; }
};

// Cuts [0, count) into `parts` shares of neighbours; count at most kMaxShareTasks.
inline void cut_shares(Share* shares, int64_t parts, int64_t count) {
  for (int64_t part = 0; part < parts; ++part) {
    shares[part].set(count * part / parts, count * (part + 1) / parts);
  }
}

// Calls body(task) for the tasks of share `own` in order, then for those that others have left.
template <typename Body>
void run_shares(Share* shares, int64_t parts, int64_t own, Body&& body) {
  for (int64_t i = 0; i < parts; ++i) {
    Share& share = shares[(own + i) % parts];
    for (int64_t task = share.take(i == 0); task >= 0; task = share.take(i == 0)) body(task);
  }
}

}  // namespace bitloom
