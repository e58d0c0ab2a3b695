// cp.async and its groups: PTX ISA "Data Movement and Conversion Instructions: Asynchronous copy". Also
// instructions that are hints only.
#include <cstring>

#include "access.h"
#include "binder.h"
#include "memory_modifiers.h"

namespace bitloom::ptx {
namespace {

void deliver(Warp& warp, const PendingCopy& copy) {
  uint8_t* target = warp.block->shared.data() + copy.target;
  if (warp.launch->options.copy_delivery != CopyDelivery::early) {
    if (copy.source_bytes > 0) warp.launch->memory->read(target, copy.source, copy.source_bytes);
    std::memset(target + copy.source_bytes, 0, copy.bytes - copy.source_bytes);
  }
  if (warp.launch->options.check_memory) Accessor::land(warp, copy.lane, copy.target, copy.bytes, copy.pc);
}

// Slots: shared address, global address, [bytes to read]. Instr: a = bytes, b: 1 = source size given, 2 =
// ignore-src predicate given.
void run_copy(Warp& warp, const Instr& in) {
  uint64_t target[32], source[32];
  read_addresses(warp, in.slots[0], target);
  read_addresses(warp, in.slots[1], source);
  const uint32_t bytes = in.a;
  AccessMode reads, writes;
  reads.reads = true;
  writes.writes = writes.pending = true;
  const uint32_t* sizes = in.b == 1 ? row<uint32_t>(warp, in.slots[2]) : nullptr;
  const uint32_t ignored = in.b == 2 ? predicate(warp, in.slots[2]) : 0;
  count_request(warp, Space::global, source, warp.active & ~ignored, bytes);
  count_request(warp, Space::shared, target, warp.active, bytes);
  Accessor from(warp, in.space, reads), to(warp, Space::shared, writes);
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    const uint32_t size = ignored >> lane & 1 ? 0 : sizes ? std::min(sizes[lane], bytes) : bytes;
    if (source[lane] & (bytes - 1))
      from.at(lane, source[lane], bytes);  // faults: misaligned, also when nothing is read
    // A size that is no power of two is read in aligned pieces.
    const uint8_t* first = nullptr;
    for (uint32_t done = 0; done < size;) {
      uint32_t piece = bytes;
      while (piece > size - done || done % piece) piece /= 2;
      const uint8_t* at = from.at(lane, source[lane] + done, piece);
      if (done == 0) first = at;
      done += piece;
    }
    uint8_t* place = to.at(lane, target[lane], bytes);
    if (warp.launch->options.copy_delivery == CopyDelivery::early) {
      if (size > 0) std::memcpy(place, first, size);
      std::memset(place + size, 0, bytes - size);
    } else if (warp.launch->options.copy_delivery == CopyDelivery::poisoned) {
      std::memset(place, 0xff, bytes);
    }
    warp.copies.push_back({static_cast<uint8_t>(lane), static_cast<uint8_t>(bytes),
                           static_cast<uint8_t>(size), warp.copy_group[lane], warp.pc,
                           static_cast<uint64_t>(place - warp.block->shared.data()), source[lane]});
  }
}

void run_commit(Warp& warp, const Instr&) {
  for (uint32_t left = warp.active; left; left &= left - 1) ++warp.copy_group[std::countr_zero(left)];
}

// Lands the copies of the active lanes whose group is not among the last `pending` committed ones; with
// `all`, uncommitted copies too.
void wait(Warp& warp, uint32_t pending, bool all) {
  std::erase_if(warp.copies, [&](const PendingCopy& copy) {
    if (!(warp.active >> copy.lane & 1)) return false;
    if (!all && copy.group + pending >= warp.copy_group[copy.lane]) return false;
    deliver(warp, copy);
    return true;
  });
}

void run_wait_group(Warp& warp, const Instr& in) { wait(warp, in.target, false); }
void run_wait_all(Warp& warp, const Instr&) { wait(warp, 0, true); }
void run_nothing(Warp&, const Instr&) {}

}  // namespace

void bind_cp(Binder& b) {
  if (!b.has("async")) b.fail("form of cp");
  if (b.has("commit_group")) {
    b.instr.run = run_commit;
    return;
  }
  if (b.has("wait_all")) {
    b.instr.run = run_wait_all;
    return;
  }
  if (b.has("wait_group")) {
    b.instr.target = static_cast<uint32_t>(b.constant(b.operand(0)));
    b.instr.run = run_wait_group;
    return;
  }
  const bool cg = b.has("cg");
  if (!cg && !b.has("ca")) b.fail("form of cp.async");
  if (!b.has("shared") && !b.has("shared::cta")) b.fail("target space");
  if (!b.has("global")) b.fail("source space");
  const bool hint = b.has("L2::cache_hint");
  take_cache_hints(b);
  const uint64_t bytes = b.constant(b.operand(2));
  if (cg ? bytes != 16 : bytes != 4 && bytes != 8 && bytes != 16) b.fail("size of the copy");
  b.instr.a = static_cast<uint8_t>(bytes);
  b.instr.space = Space::global;
  b.address(b.operand(0));
  b.address(b.operand(1));
  // The policy of .L2::cache_hint comes last and is not the source size.
  const size_t last = b.count() - (hint ? 1 : 0);
  if (last == 4) {
    const Operand& operand = b.operand(3);
    if (b.is_predicate(operand)) {
      b.source_predicate(operand);
      b.instr.b = 2;
    } else {
      b.source(operand, 4);
      b.instr.b = 1;
    }
  } else if (last != 3) {
    b.fail("number of operands");
  }
  b.instr.run = run_copy;
}

// A cache policy is a number that nothing here looks at.
void bind_createpolicy(Binder& b) {
  while (!b.any().empty()) {
  }
  b.dest(b.operand(0), 8);
  b.instr.run = [](Warp& warp, const Instr& in) {
    uint64_t* d = row<uint64_t>(warp, in.slots[0]);
    each_lane(warp.active, [&](uint32_t lane) { d[lane] = 0; });
  };
}

// prefetch, prefetchu, applypriority: no effect on values.
void bind_hint(Binder& b) {
  while (!b.any().empty()) {
  }
  b.instr.run = run_nothing;
}

void bind_nanosleep(Binder& b) {
  if (b.type() != Type::u32) b.fail("type");
  b.instr.run = run_nothing;
}

}  // namespace bitloom::ptx
