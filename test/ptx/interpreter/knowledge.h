// Happens-before: what a thread knows of the accesses of others, as vector clocks.
//
// Each warp has a clock, which every synchronization of the warp raises. An access is stamped (thread,
// clock). A thread has seen it if the thread's knowledge of that warp reaches the stamp's clock, or if it
// learnt of just that thread (a release by one lane says nothing of its neighbours). Barriers join the
// knowledge of all who take part; a release leaves knowledge at an address, and an acquire of that address
// takes it up.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <memory>
#include <vector>

namespace bitloom::ptx {

// Number of a thread in the launch: ((block << warp_bits) + warp) * 32 + lane, with 2^warp_bits at least the
// warps per block.
using ThreadId = uint32_t;

struct Knowledge {
  std::vector<uint32_t> own;                        // clocks of the warps of the own block
  std::map<uint32_t, std::vector<uint32_t>> other;  // block -> clocks of its warps
  std::map<ThreadId, uint32_t> threads;             // clocks of single threads beyond their warps'
  uint32_t block = 0;
  uint32_t warp_bits = 0;

  Knowledge(uint32_t block, uint32_t warp_bits)
      : own(size_t{1} << warp_bits), block(block), warp_bits(warp_bits) {}

  bool has_seen(ThreadId thread, uint32_t clock) const {
    const uint32_t warp = thread / 32;
    const uint32_t owner = warp >> warp_bits;
    const uint32_t index = warp & ((1u << warp_bits) - 1);
    if (owner == block) {
      if (own[index] >= clock) return true;
    } else if (!other.empty()) {
      const auto found = other.find(owner);
      if (found != other.end() && found->second[index] >= clock) return true;
    }
    if (threads.empty()) return false;
    const auto single = threads.find(thread);
    return single != threads.end() && single->second >= clock;
  }

  // Whether all lanes of the warp of `thread` were seen up to the clock.
  bool has_seen_warp(ThreadId thread, uint32_t clock) const {
    const uint32_t warp = thread / 32, owner = warp >> warp_bits, index = warp & ((1u << warp_bits) - 1);
    if (owner == block) return own[index] >= clock;
    const auto found = other.find(owner);
    return found != other.end() && found->second[index] >= clock;
  }

  void join(const Knowledge& from) {
    const auto join_block = [&](uint32_t from_block, const std::vector<uint32_t>& clocks) {
      std::vector<uint32_t>& mine = from_block == block ? own : other[from_block];
      mine.resize(size_t{1} << warp_bits);
      for (size_t i = 0; i < clocks.size(); ++i) mine[i] = std::max(mine[i], clocks[i]);
    };
    join_block(from.block, from.own);
    for (const auto& [from_block, clocks] : from.other) join_block(from_block, clocks);
    for (const auto& [thread, clock] : from.threads) {
      if (has_seen(thread, clock)) continue;
      threads[thread] = clock;
    }
  }
};

using KnowledgeRef = std::shared_ptr<const Knowledge>;

inline KnowledgeRef joined(const KnowledgeRef& a, const KnowledgeRef& b) {
  if (!a || a == b) return b;
  if (!b) return a;
  auto both = std::make_shared<Knowledge>(*a);
  both->join(*b);
  return both;
}

}  // namespace bitloom::ptx
