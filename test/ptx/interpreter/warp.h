// The state of a warp and of the block it belongs to, and how handlers reach the values of 32 lanes.
#pragma once

#include <array>
#include <bit>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <vector>

#include "counters.h"
#include "fault.h"
#include "knowledge.h"
#include "memory.h"
#include "options.h"
#include "program.h"
#include "shadow.h"

namespace bitloom::ptx {

constexpr uint32_t kAllLanes = ~0u;

// Lanes of a warp that are at one place of the program.
struct Group {
  enum State : uint8_t { ready, waiting, at_barrier };  // waiting: for other groups to come to the same place
  uint32_t pc = 0;
  uint32_t mask = 0;
  uint16_t depth = 0;  // of calls
  State state = ready;
};

// A cp.async of one lane that has not landed. group: the commit group it belongs to, counted from 0 per lane.
struct PendingCopy {
  uint8_t lane, bytes, source_bytes;
  uint32_t group, pc;
  uint64_t target;  // offset in shared memory
  uint64_t source;  // global address
};

// What fences hold per lane for the relaxed operations around them.
struct FenceState {
  KnowledgeRef release_device[32], release_block[32], observed[32];
};

// Knowledge left at an address by releases, for acquires to take.
struct SyncPoint {
  KnowledgeRef device;
  std::map<uint32_t, KnowledgeRef> block;  // by block-scope releases of that block
};
using SyncPoints = std::map<uint64_t, SyncPoint>;

struct Launch;
struct Block;

struct Warp {
  char* base[2] = {nullptr, nullptr};  // registers, constants
  uint32_t active = 0;                 // lanes of the current instruction
  uint32_t pc = 0;
  Launch* launch = nullptr;
  Block* block = nullptr;
  uint32_t index = 0;        // in the block
  uint32_t block_lanes = 0;  // lanes that exist: the last warp of a block may be short
  uint32_t alive = 0;        // those that have not exited
  std::vector<Group> groups;
  uint32_t current = 0;
  uint64_t executed = 0;
  uint64_t diverged_steps = 0;
  uint32_t carry = 0;  // CC.CF of each lane

  std::vector<char> registers, frame, local;
  std::vector<uint8_t> local_written;

  uint32_t clock = 1;
  ThreadId first_thread = 0;
  KnowledgeRef common;                // of all lanes, while they know the same
  std::vector<KnowledgeRef> by_lane;  // else of each
  std::unique_ptr<FenceState> fences;

  std::deque<PendingCopy> copies;
  std::array<uint32_t, 32> copy_group{};  // number of the open commit group

  bool done() const { return groups.empty(); }
  const KnowledgeRef& knowledge(uint32_t lane) const { return by_lane.empty() ? common : by_lane[lane]; }
};

struct Barrier {
  uint32_t expected = 0;  // 0: nobody has come yet
  uint32_t arrived = 0;
  KnowledgeRef knowledge;
  uint32_t count = 0, all = 1, any = 0;  // of bar.red
  struct Waiter {
    Warp* warp;
    uint32_t pc, mask;
  };
  std::vector<Waiter> waiters;
};

struct Block {
  uint32_t id[3] = {0, 0, 0};
  uint32_t number = 0;
  std::vector<std::unique_ptr<Warp>> warps;
  std::vector<uint8_t> shared;
  Shadow shared_shadow;
  SyncPoints shared_sync;
  std::array<Barrier, 16> barriers;
  uint32_t threads = 0;
  uint32_t exited = 0;
};

// What all warps of a launch share.
struct Launch {
  const Program* program = nullptr;
  DeviceMemory* memory = nullptr;
  Options options;
  uint32_t grid[3] = {1, 1, 1}, block[3] = {1, 1, 1};
  uint32_t shared_bytes = 0;
  std::vector<uint8_t> parameters;
  SyncPoints global_sync;
  Counters* counters = nullptr;
  uint64_t clock = 0;  // %clock: instructions so far

  // Throws Fault with the full message: kernel, line, instruction, block, warp, lane (-1: none), what.
  [[noreturn]] void fail(FaultKind kind, const Warp& warp, int lane, const std::string& what) const;
  std::string thread_name(ThreadId thread) const;
};

template <typename T>
inline T* row(Warp& warp, const Slot& slot) {
  return reinterpret_cast<T*>(warp.base[slot.base] + slot.offset);
}

inline uint32_t predicate(Warp& warp, const Slot& slot) {
  const uint32_t mask = *row<uint32_t>(warp, slot);
  return slot.negated ? ~mask : mask;
}

inline void set_predicate(Warp& warp, const Slot& slot, uint32_t value) {
  if (!slot.present) return;
  uint32_t& mask = *row<uint32_t>(warp, slot);
  mask = (mask & ~warp.active) | (value & warp.active);
}

// body(lane) for each lane of the mask; the full warp is a plain loop that the compiler can widen.
template <typename Body>
inline void each_lane(uint32_t mask, Body&& body) {
  if (mask == kAllLanes) {
#pragma GCC ivdep
    for (uint32_t lane = 0; lane < 32; ++lane) body(lane);
  } else {
    for (; mask; mask &= mask - 1) body(static_cast<uint32_t>(std::countr_zero(mask)));
  }
}

}  // namespace bitloom::ptx
