// One memory instruction of one warp: finds the bytes behind addresses and checks bounds, alignment,
// writtenness and races on the way.
#pragma once

#include <cstdint>
#include <string>

#include "warp.h"

namespace bitloom::ptx {

struct AccessMode {
  bool reads = false;
  bool writes = false;
  bool strong = false;     // atomic, volatile, relaxed, acquire, release
  bool device = false;     // strong beyond the block
  bool pending = false;    // the write of a cp.async that is issued now
  bool read_only = false;  // ld.global.nc and ld.const: what a launch writes must not be read so
};

class Accessor {
 public:
  Accessor(Warp& warp, Space space, AccessMode mode);

  // The bytes behind an address; bytes is a power of two at most 32. Faults if an active lane may not.
  uint8_t* at(uint32_t lane, uint64_t address, uint32_t bytes) {
    Space space = space_;
    if (space == Space::generic) space = resolve(address);
    if (address & (bytes - 1)) fail_misaligned(lane, address, bytes);
    if (space == Space::shared) {
      const uint64_t offset = address - kSharedBase;
      if (offset >= shared_bytes_ || offset + bytes > shared_bytes_) fail_bounds(lane, space, address, bytes);
      if (checks_) check(warp_.block->shared_shadow, offset, bytes, lane);
      return warp_.block->shared.data() + offset;
    }
    if (space == Space::global || space == Space::constant) {
      if (!allocation_ || address - allocation_->base >= allocation_->bytes)
        allocation_ = memory_.find(address);
      const uint64_t offset = allocation_ ? address - allocation_->base : 0;
      if (!allocation_ || offset + bytes > allocation_->bytes) fail_bounds(lane, space, address, bytes);
      if (mode_.writes && allocation_->is_const) fail_const(lane, address);
      if (checks_) check(allocation_->shadow, offset, bytes, lane);
      return allocation_->data.data() + offset;
    }
    return narrow(space, lane, address, bytes);
  }

  // The copy of a cp.async has landed: its bytes are written by the lane, now.
  static void land(Warp& warp, uint32_t lane, uint64_t offset, uint32_t bytes, uint32_t pc);

 private:
  void check(Shadow& shadow, uint64_t offset, uint32_t bytes, uint32_t lane) {
    const ThreadId me = warp_.first_thread + lane;
    uint32_t index = 0;
    shadow.visit(offset, bytes, [&](Cell& cell) {
      const uint32_t place = index++;
      // Most common: input that the host wrote, read again or for the first time.
      if (cell.writer == kHost && !mode_.writes && (cell.reader == 0 || cell.reader == me + 1)) {
        cell.reader = me + 1;
        cell.read_clock = stamp_;
        cell.read_pc = warp_.pc;
        return;
      }
      faulty_bytes_ = bytes;
      faulty_cell_ = place;
      check_cell(shadow, cell, lane);
    });
  }
  void check_cell(Shadow& shadow, Cell& cell, uint32_t lane);
  bool seen(uint32_t lane, const Access& access) const;
  bool allowed(uint32_t lane, const Access& access) const;  // seen, or both strong enough
  void check_readers(Shadow& shadow, Cell& cell, uint32_t lane);
  void record_read(Shadow& shadow, Cell& cell, uint32_t lane);
  void record_write(Shadow& shadow, Cell& cell, uint32_t lane);
  static void merge(AccessSet& set, const Access& access);

  Space resolve(uint64_t& address) const;
  uint8_t* narrow(Space space, uint32_t lane, uint64_t address, uint32_t bytes);
  [[noreturn]] void fail_misaligned(uint32_t lane, uint64_t address, uint32_t bytes) const;
  [[noreturn]] void fail_bounds(uint32_t lane, Space space, uint64_t address, uint32_t bytes) const;
  [[noreturn]] void fail_const(uint32_t lane, uint64_t address) const;
  [[noreturn]] void fail_race(uint32_t lane, const Access& other, bool other_wrote, bool was_atomic) const;

  Warp& warp_;
  DeviceMemory& memory_;
  const Space space_;
  const AccessMode mode_;
  const bool checks_;
  const uint64_t shared_bytes_;
  const uint32_t stamp_;
  Allocation* allocation_ = nullptr;
  // Of the check in progress, for messages.
  Shadow* shadow_ = nullptr;
  uint32_t faulty_bytes_ = 0, faulty_cell_ = 0;
};

// The 32 addresses of an operand.
inline void read_addresses(Warp& warp, const Slot& slot, uint64_t (&address)[32]) {
  if (slot.bytes == 4) {
    const uint32_t* rows = row<uint32_t>(warp, slot);
    for (uint32_t lane = 0; lane < 32; ++lane)
      address[lane] = static_cast<uint32_t>(rows[lane] + static_cast<uint64_t>(slot.add));
  } else {
    const uint64_t* rows = row<uint64_t>(warp, slot);
    for (uint32_t lane = 0; lane < 32; ++lane) address[lane] = rows[lane] + static_cast<uint64_t>(slot.add);
  }
}

// Counts a request of the current instruction: sectors and lines for global memory, wavefronts for shared.
void count_request(Warp& warp, Space space, const uint64_t (&address)[32], uint32_t mask, uint32_t bytes);

// Acquire and release through an address (synchronize.cc). Called after the check of the access itself.
enum class Scope : uint8_t { block, device };
void release_at(Warp& warp, uint32_t lane, Space space, uint64_t address, Scope scope, bool is_release,
                bool is_update);
void acquire_at(Warp& warp, uint32_t lane, Space space, uint64_t address, Scope scope, bool is_acquire);
void fence(Warp& warp, Scope scope);
// All lanes of the mask learn what any of them knows (bar.warp.sync).
void synchronize_lanes(Warp& warp, uint32_t mask);
// What the lanes of the mask know together, their own accesses so far included; raises the warp's clock.
KnowledgeRef publish(Warp& warp, uint32_t mask);
// The lanes of the mask learn `knowledge`, which must contain what each of them knew.
void learn(Warp& warp, uint32_t mask, const KnowledgeRef& knowledge);

}  // namespace bitloom::ptx
