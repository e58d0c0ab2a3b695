// Barriers of a block: arrival, counts, reductions, completion.
#include "access.h"
#include "scheduler.h"

namespace bitloom::ptx {

void Scheduler::barrier(Warp& warp, const Instr& in) {
  Group& group = warp.groups[warp.current];
  Block& block = *warp.block;
  if (warp.active == 0) {
    ++group.pc;
    return;
  }
  if (in.b && warp.active != warp.alive) {
    if (warp.active != group.mask) {
      launch_.fail(FaultKind::divergent_barrier, warp, std::countr_zero(warp.active),
                   "divergent barrier: the guard masks out lanes of the warp");
    }
    return wait_for_others(warp, FaultKind::divergent_barrier);
  }
  const uint32_t id = row<uint32_t>(warp, in.slots[0])[std::countr_zero(warp.active)];
  if (id >= block.barriers.size())
    launch_.fail(FaultKind::divergent_barrier, warp, -1, "barrier " + std::to_string(id) + ": there are 16");
  Barrier& barrier = block.barriers[id];
  const bool counted = in.slots[1].present;
  const uint32_t expected =
      counted ? row<uint32_t>(warp, in.slots[1])[std::countr_zero(warp.active)] : block.threads;
  if (counted && (expected == 0 || expected % 32))
    launch_.fail(FaultKind::divergent_barrier, warp, -1,
                 "barrier count " + std::to_string(expected) + " is no multiple of the warp size");
  if (barrier.expected && barrier.expected != expected) {
    launch_.fail(FaultKind::divergent_barrier, warp, -1,
                 "divergent barrier: barrier " + std::to_string(id) + " expects " + std::to_string(expected) +
                     " threads here and " + std::to_string(barrier.expected) + " elsewhere");
  }
  barrier.expected = expected;
  barrier.arrived += counted && in.b ? 32 : static_cast<uint32_t>(std::popcount(warp.active));
  barrier.knowledge = joined(barrier.knowledge, publish(warp, warp.active));
  if (in.a >= barrier_popc) {
    const uint32_t yes = predicate(warp, in.slots[3]) & warp.active;
    barrier.count += static_cast<uint32_t>(std::popcount(yes));
    barrier.all &= yes == warp.active;
    barrier.any |= yes != 0;
  }
  if (in.a == barrier_arrive) {
    ++group.pc;
  } else {
    group.state = Group::at_barrier;
    barrier.waiters.push_back({&warp, group.pc, group.mask});
  }
  if (barrier.arrived > expected)
    launch_.fail(FaultKind::divergent_barrier, warp, -1,
                 "divergent barrier: more threads than the barrier expects");
  if (barrier.arrived == expected) complete(block, barrier);
}

void Scheduler::complete(Block&, Barrier& barrier) {
  for (const Barrier::Waiter& waiter : barrier.waiters) {
    Warp& warp = *waiter.warp;
    const Instr& in = program_.code[waiter.pc];
    warp.active = waiter.mask;
    if (in.a == barrier_popc) {
      uint32_t* d = row<uint32_t>(warp, in.slots[2]);
      each_lane(waiter.mask, [&](uint32_t lane) { d[lane] = barrier.count; });
    } else if (in.a > barrier_popc) {
      set_predicate(warp, in.slots[2], (in.a == barrier_and ? barrier.all : barrier.any) ? kAllLanes : 0);
    }
    learn(warp, waiter.mask, barrier.knowledge);
    for (Group& group : warp.groups) {
      if (group.state != Group::at_barrier || group.pc != waiter.pc || group.mask != waiter.mask) continue;
      group.state = Group::ready;
      ++group.pc;
    }
  }
  barrier = {};
}

}  // namespace bitloom::ptx
