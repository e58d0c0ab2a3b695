#include "access.h"

#include <algorithm>
#include <cstdio>

namespace bitloom::ptx {
namespace {

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

const char* space_name(Space space) {
  static const char* const names[] = {"generic", "global", "shared", "local", "const", "param"};
  return names[static_cast<int>(space)];
}

}  // namespace

Accessor::Accessor(Warp& warp, Space space, AccessMode mode)
    : warp_(warp),
      memory_(*warp.launch->memory),
      space_(space),
      mode_(mode),
      checks_(warp.launch->options.check_memory),
      shared_bytes_(warp.block->shared.size()),
      stamp_(warp.clock | (mode.strong ? kStampStrong : 0) | (mode.device ? kStampDevice : 0)) {}

bool Accessor::seen(uint32_t lane, const Access& access) const {
  const uint32_t clock = access.clock & kClockMask;
  if (access.clock & kStampLanes) return warp_.knowledge(lane)->has_seen_warp(access.thread, clock);
  return access.thread == warp_.first_thread + lane || warp_.knowledge(lane)->has_seen(access.thread, clock);
}

bool Accessor::allowed(uint32_t lane, const Access& access) const {
  if (seen(lane, access)) return true;
  if (!mode_.strong || !(access.clock & kStampStrong)) return false;
  const uint32_t bits = warp_.knowledge(lane)->warp_bits + 5;
  return (mode_.device && (access.clock & kStampDevice)) ||
         access.thread >> bits == warp_.first_thread >> bits;
}

void Accessor::check_cell(Shadow& shadow, Cell& cell, uint32_t lane) {
  shadow_ = &shadow;
  if (mode_.reads && cell.writer == kUnwritten) {
    warp_.launch->fail(FaultKind::unwritten_read, warp_, static_cast<int>(lane),
                       std::string(fault_words(FaultKind::unwritten_read)) + ": piece " +
                           std::to_string(faulty_cell_) + " of the " + std::to_string(faulty_bytes_) +
                           " bytes that this lane reads from " +
                           (&shadow == &warp_.block->shared_shadow ? "shared" : "global") + " memory");
  }
  if (cell.writer != kUnwritten && cell.writer != kHost) {
    const Access write{cell.writer - 1, cell.write_clock, cell.write_pc};
    if (cell.write_clock & kStampPending) {
      const FaultKind kind = mode_.writes ? FaultKind::store_over_pending_copy : FaultKind::use_before_wait;
      warp_.launch->fail(kind, warp_, static_cast<int>(lane),
                         std::string(fault_words(kind)) + ": copied by " +
                             warp_.launch->thread_name(write.thread) + " at " +
                             warp_.launch->program->location(write.pc));
    }
    if (mode_.read_only && &shadow != &warp_.block->shared_shadow) {
      warp_.launch->fail(FaultKind::read_only_written, warp_, static_cast<int>(lane),
                         "read through the read-only path of what this launch writes: by " +
                             warp_.launch->thread_name(write.thread) + " at " +
                             warp_.launch->program->location(write.pc));
    }
    if (!allowed(lane, write)) fail_race(lane, write, true, cell.write_clock & kStampStrong);
  }
  if (cell.reader) check_readers(shadow, cell, lane);
  if (mode_.writes) {
    record_write(shadow, cell, lane);
  } else {
    record_read(shadow, cell, lane);
  }
}

// A write conflicts with every earlier read, a read only with earlier atomics.
void Accessor::check_readers(Shadow& shadow, Cell& cell, uint32_t lane) {
  const auto check_one = [&](const Access& access) {
    if (!mode_.writes && !(access.clock & kStampWrote)) return;
    if (!allowed(lane, access))
      fail_race(lane, access, access.clock & kStampWrote, access.clock & kStampStrong);
  };
  if (cell.reader & kReaderSet) {
    for (const Access& access : shadow.set_of(cell.reader)) check_one(access);
  } else {
    check_one({cell.reader - 1, cell.read_clock, cell.read_pc});
  }
}

// One entry per warp: lanes of a warp that are not ordered become "several lanes".
void Accessor::merge(AccessSet& set, const Access& access) {
  for (Access& old : set) {
    if (old.thread / 32 != access.thread / 32) continue;
    const uint32_t clock = std::max(old.clock & kClockMask, access.clock & kClockMask);
    uint32_t flags = (old.clock & access.clock & (kStampStrong | kStampDevice)) |
                     ((old.clock | access.clock) & (kStampWrote | kStampLanes));
    if (old.thread != access.thread) flags |= kStampLanes;
    old = {access.thread, clock | flags, access.pc};
    return;
  }
  set.push_back(access);
}

void Accessor::record_read(Shadow& shadow, Cell& cell, uint32_t lane) {
  const Access mine{warp_.first_thread + lane, stamp_, warp_.pc};
  if (!(cell.reader & kReaderSet)) {
    const Access before{cell.reader - 1, cell.read_clock, cell.read_pc};
    if (cell.reader == 0 || seen(lane, before)) {
      cell.reader = mine.thread + 1;
      cell.read_clock = mine.clock;
      cell.read_pc = mine.pc;
      return;
    }
    if (before.thread / 32 == mine.thread / 32) {
      AccessSet both{before};
      merge(both, mine);
      cell.read_clock = both[0].clock;
      return;
    }
    cell.reader = shadow.make_set();
    shadow.set_of(cell.reader) = {before, mine};
    return;
  }
  AccessSet& set = shadow.set_of(cell.reader);
  std::erase_if(set, [&](const Access& access) { return seen(lane, access); });
  if (set.empty()) {
    shadow.free_set(cell.reader);
    cell.reader = mine.thread + 1;
    cell.read_clock = mine.clock;
    cell.read_pc = mine.pc;
  } else {
    merge(set, mine);
  }
}

void Accessor::record_write(Shadow& shadow, Cell& cell, uint32_t lane) {
  // What this write is not ordered after (both are strong) must still be remembered: a later plain access has
  // to be ordered after all of it.
  AccessSet unordered;
  const auto keep = [&](const Access& access) {
    if (!seen(lane, access)) merge(unordered, access);
  };
  if (cell.reader & kReaderSet) {
    for (const Access& access : shadow.set_of(cell.reader)) keep(access);
    shadow.free_set(cell.reader);
  } else if (cell.reader) {
    keep({cell.reader - 1, cell.read_clock, cell.read_pc});
  }
  if (cell.writer != kUnwritten && cell.writer != kHost)
    keep({cell.writer - 1, cell.write_clock | kStampWrote, cell.write_pc});
  cell.reader = 0;
  cell.writer = warp_.first_thread + lane + 1;
  cell.write_clock = stamp_ | (mode_.pending ? kStampPending : 0);
  cell.write_pc = warp_.pc;
  if (unordered.empty()) return;
  cell.reader = shadow.make_set();
  shadow.set_of(cell.reader) = std::move(unordered);
}

void Accessor::land(Warp& warp, uint32_t lane, uint64_t offset, uint32_t bytes, uint32_t pc) {
  warp.block->shared_shadow.visit_range(offset, bytes, [&](Cell& cell) {
    cell.writer = warp.first_thread + lane + 1;
    cell.write_clock = warp.clock;
    cell.write_pc = pc;
  });
}

Space Accessor::resolve(uint64_t& address) const {
  if (address - kSharedWindow < kWindowBytes) return address -= kSharedWindow, Space::shared;
  if (address - kLocalWindow < kWindowBytes) return address -= kLocalWindow, Space::local;
  if (address - kParamWindow < kWindowBytes) return address -= kParamWindow, Space::param;
  return Space::global;
}

// Local memory, and the parameters of the kernel.
uint8_t* Accessor::narrow(Space space, uint32_t lane, uint64_t address, uint32_t bytes) {
  if (space == Space::param) {
    std::vector<uint8_t>& parameters = warp_.launch->parameters;
    if (mode_.writes || address + bytes > parameters.size()) fail_bounds(lane, space, address, bytes);
    return parameters.data() + address;
  }
  const uint64_t size = warp_.launch->program->local_bytes, offset = address - kLocalBase;
  if (offset >= size || offset + bytes > size) fail_bounds(lane, space, address, bytes);
  const uint64_t first = lane * size + offset;
  for (uint64_t i = first; i < first + bytes && checks_; ++i) {
    if (mode_.reads && !warp_.local_written[i]) {
      warp_.launch->fail(FaultKind::unwritten_read, warp_, static_cast<int>(lane),
                         std::string(fault_words(FaultKind::unwritten_read)) + ": local byte " +
                             std::to_string(i - lane * size));
    }
    if (mode_.writes) warp_.local_written[i] = 1;
  }
  return reinterpret_cast<uint8_t*>(warp_.local.data()) + first;
}

void Accessor::fail_misaligned(uint32_t lane, uint64_t address, uint32_t bytes) const {
  warp_.launch->fail(FaultKind::misaligned, warp_, static_cast<int>(lane),
                     "misaligned: address " + hex(address) + " for " + std::to_string(bytes) + " bytes");
}

void Accessor::fail_bounds(uint32_t lane, Space space, uint64_t address, uint32_t bytes) const {
  std::string what = "out of bounds: " + std::to_string(bytes) + " bytes at " + space_name(space) + " " +
                     hex(address) + ", ";
  if (space == Space::shared) {
    what += "offset " + std::to_string(static_cast<int64_t>(address - kSharedBase)) + " of " +
            std::to_string(shared_bytes_) + " bytes of shared memory";
  } else if (space == Space::global || space == Space::constant) {
    what += memory_.describe(address);
  } else {
    what +=
        "offset " + std::to_string(static_cast<int64_t>(address - (space == Space::local ? kLocalBase : 0)));
  }
  warp_.launch->fail(FaultKind::out_of_bounds, warp_, static_cast<int>(lane), what);
}

void Accessor::fail_const(uint32_t lane, uint64_t address) const {
  warp_.launch->fail(FaultKind::read_only_written, warp_, static_cast<int>(lane),
                     "store to constant memory, " + memory_.describe(address));
}

void Accessor::fail_race(uint32_t lane, const Access& other, bool other_wrote, bool other_strong) const {
  const bool shared = shadow_ == &warp_.block->shared_shadow;
  const FaultKind kind = shared ? FaultKind::shared_race : FaultKind::global_race;
  const std::string how = std::string(other_strong ? "atomically " : "") + (other_wrote ? "written" : "read");
  warp_.launch->fail(kind, warp_, static_cast<int>(lane),
                     std::string(fault_words(kind)) + ": " + (mode_.writes ? "written" : "read") +
                         " after it was " + how + " by " + warp_.launch->thread_name(other.thread) +
                         (other.clock & kStampLanes ? " and other lanes of it" : "") + " at " +
                         warp_.launch->program->location(other.pc) + ", with nothing that orders the two");
}

}  // namespace bitloom::ptx
