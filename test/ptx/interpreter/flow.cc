// What control flow and collectives do to the groups of a warp.
#include <algorithm>
#include <cstring>

#include "access.h"
#include "scheduler.h"

namespace bitloom::ptx {

void Scheduler::step_flow(Warp& warp, const Instr& in) {
  Group& group = warp.groups[warp.current];
  if (warp.active == 0 && in.flow != Flow::barrier && in.flow != Flow::collective) {
    ++group.pc;
    return;
  }
  switch (in.flow) {
    case Flow::branch:
      branch(warp, warp.active, in.target, group.depth);
      break;
    case Flow::branch_table:
      branch_table(warp, in);
      break;
    case Flow::call:
      call(warp, in);
      break;
    case Flow::ret:
      ret(warp, in);
      break;
    case Flow::exit:
      leave(warp, warp.active);
      break;
    case Flow::collective:
      collective(warp, in);
      break;
    case Flow::barrier:
      barrier(warp, in);
      break;
    case Flow::plain:
      break;
  }
}

// The lanes of `taken` go on at the target, the others of the group at the next instruction.
void Scheduler::branch(Warp& warp, uint32_t taken, uint32_t target, uint16_t depth) {
  Group& group = warp.groups[warp.current];
  if (taken == group.mask) {
    group.pc = target;
    group.depth = depth;
    return;
  }
  group.mask &= ~taken;
  ++group.pc;
  warp.groups.push_back({target, taken, depth, Group::ready});
}

void Scheduler::branch_table(Warp& warp, const Instr& in) {
  const Function* function = program_.info[warp.pc].function;
  uint32_t first = warp.pc;  // of the function
  while (first > 0 && program_.info[first - 1].function == function) --first;
  const Instr& table = program_.code[first + in.target];
  const uint32_t* index = row<uint32_t>(warp, in.slots[0]);
  uint32_t left = warp.active;
  while (left) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    const uint32_t choice = index[lane];
    if (choice >= table.slot_count)
      launch_.fail(FaultKind::bad_address, warp, static_cast<int>(lane),
                   "bad address: index beyond the branch table");
    uint32_t same = 0;
    for (uint32_t other = left; other; other &= other - 1) {
      if (index[std::countr_zero(other)] == choice) same |= 1u << std::countr_zero(other);
    }
    left &= ~same;
    const uint32_t target = first + *row<uint32_t>(warp, table.slots[choice]);
    const Group group = warp.groups[warp.current];
    branch(warp, same, target, group.depth);
    if (left) warp.groups[warp.current].pc = group.pc;  // the rest is still here
  }
}

void Scheduler::call(Warp& warp, const Instr& in) {
  const CallSite& site = program_.calls[in.slot_count];
  uint32_t* back = reinterpret_cast<uint32_t*>(warp.base[0] + site.return_row);
  each_lane(warp.active, [&](uint32_t lane) {
    char* frame = warp.frame.data() + size_t{lane} * program_.frame_bytes;
    for (const CallSite::Copy& copy : site.arguments)
      std::memmove(frame + copy.to, frame + copy.from, copy.bytes);
    back[lane] = warp.pc;
  });
  branch(warp, warp.active, in.target, static_cast<uint16_t>(warp.groups[warp.current].depth + 1));
}

void Scheduler::ret(Warp& warp, const Instr& in) {
  if (!in.slots[0].present) return leave(warp, warp.active);
  const uint32_t* back = row<uint32_t>(warp, in.slots[0]);
  uint32_t left = warp.active;
  while (left) {
    const uint32_t caller = back[std::countr_zero(left)];
    uint32_t same = 0;
    for (uint32_t other = left; other; other &= other - 1) {
      if (back[std::countr_zero(other)] == caller) same |= 1u << std::countr_zero(other);
    }
    left &= ~same;
    const CallSite& site = program_.calls[program_.code[caller].slot_count];
    each_lane(same, [&](uint32_t lane) {
      char* frame = warp.frame.data() + size_t{lane} * program_.frame_bytes;
      for (const CallSite::Copy& copy : site.returns)
        std::memmove(frame + copy.to, frame + copy.from, copy.bytes);
    });
    const Group group = warp.groups[warp.current];
    branch(warp, same, caller + 1, static_cast<uint16_t>(group.depth - 1));
    if (left) warp.groups[warp.current].pc = group.pc;
  }
}

void Scheduler::leave(Warp& warp, uint32_t lanes) {
  Group& group = warp.groups[warp.current];
  warp.alive &= ~lanes;
  warp.block->exited += static_cast<uint32_t>(std::popcount(lanes));
  group.mask &= ~lanes;
  ++group.pc;
  if (group.mask == 0) warp.groups.erase(warp.groups.begin() + warp.current);
  if (warp.current >= warp.groups.size()) warp.current = 0;
}

// The group stays at this instruction until others have joined it.
void Scheduler::wait_for_others(Warp& warp, FaultKind kind) {
  warp.groups[warp.current].state = Group::waiting;
  for (const Group& group : warp.groups) {
    if (group.state != Group::waiting) return;
  }
  // Nobody else is coming.
  const Group& group = warp.groups[warp.current];
  std::string what = std::string(fault_words(kind)) + ": reached by lanes " +
                     std::to_string(std::popcount(group.mask)) + " of " +
                     std::to_string(std::popcount(warp.alive)) + " that live; the others ";
  if (warp.groups.size() == 1) {
    what += "have exited or are masked out";
  } else {
    const Group& other = warp.groups[warp.current == 0 ? 1 : 0];
    what += "wait at " + program_.location(other.pc);
  }
  launch_.fail(kind, warp, std::countr_zero(group.mask), what);
}

void Scheduler::collective(Warp& warp, const Instr& in) {
  Group& group = warp.groups[warp.current];
  if (warp.active == 0) {
    ++group.pc;
    return;
  }
  if (in.members == kWholeWarp) {
    if (warp.active != kAllLanes) {
      if (warp.alive != kAllLanes || warp.active != group.mask) {
        launch_.fail(FaultKind::divergent_collective, warp, std::countr_zero(warp.active),
                     "divergent collective: executed by " + std::to_string(std::popcount(warp.active)) +
                         " lanes, it needs all 32 of the warp");
      }
      return wait_for_others(warp, FaultKind::divergent_collective);
    }
    in.run(warp, in);
    ++group.pc;
    return;
  }
  // Lanes may name different masks: each set of lanes with one mask executes on its own.
  const uint32_t* members = row<uint32_t>(warp, in.slots[in.members]);
  const uint32_t all = warp.active;
  for (uint32_t left = all; left;) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left)), mask = members[lane];
    if (!(mask >> lane & 1)) {
      launch_.fail(FaultKind::divergent_collective, warp, static_cast<int>(lane),
                   "divergent collective: the lane is not in its own member mask");
    }
    // A full mask is often written for a last warp that is not full.
    const uint32_t exist = mask & warp.block_lanes;
    if (exist & ~warp.alive) {
      launch_.fail(FaultKind::divergent_collective, warp, static_cast<int>(lane),
                   "divergent collective: the member mask names lanes that have exited");
    }
    if (exist & ~all) {
      warp.active = all;
      if (exist & ~all & group.mask) {
        launch_.fail(FaultKind::divergent_collective, warp, static_cast<int>(lane),
                     "divergent collective: the member mask names lanes that the guard masks out");
      }
      return wait_for_others(warp, FaultKind::divergent_collective);
    }
    left &= ~exist;
  }
  for (uint32_t left = all; left;) {
    warp.active = members[std::countr_zero(left)] & warp.block_lanes;
    in.run(warp, in);
    left &= ~warp.active;
  }
  ++group.pc;
}

// With several groups: joins those at one place, then goes on with the deepest call and, there, the lowest
// place. From time to time another group gets a turn, so that one that spins cannot starve the one it waits
// for.
void Scheduler::reschedule(Warp& warp) {
  std::vector<Group>& groups = warp.groups;
  for (size_t i = 0; i < groups.size(); ++i) {
    for (size_t j = i + 1; j < groups.size();) {
      if (groups[i].pc == groups[j].pc && groups[i].depth == groups[j].depth &&
          groups[i].state != Group::at_barrier && groups[j].state != Group::at_barrier) {
        groups[i].mask |= groups[j].mask;
        groups[i].state = Group::ready;
        groups.erase(groups.begin() + static_cast<std::ptrdiff_t>(j));
      } else {
        ++j;
      }
    }
  }
  const bool take_turns = (++warp.diverged_steps & 4095) >= 3072;
  int best = -1;
  for (size_t i = 0; i < groups.size(); ++i) {
    if (groups[i].state != Group::ready) continue;
    if (best < 0) {
      best = static_cast<int>(i);
      continue;
    }
    const Group& held = groups[static_cast<size_t>(best)];
    const bool first = groups[i].depth != held.depth ? groups[i].depth > held.depth : groups[i].pc < held.pc;
    if (first != take_turns) best = static_cast<int>(i);
  }
  warp.current = best < 0 ? 0 : static_cast<uint32_t>(best);
}

}  // namespace bitloom::ptx
