#include "scheduler.h"

#include <algorithm>
#include <cstring>

namespace bitloom::ptx {
namespace {

// Turns of a warp in the fixed schedule. A barrier or exit ends one earlier.
constexpr uint64_t kTurn = 4000;
// A random turn has 1 to this many instructions.
constexpr uint64_t kRandomTurn = 96;

uint32_t special_value(const std::string& name, const Launch& launch, const Block& block, uint32_t warp,
                       uint32_t lane) {
  const uint32_t thread = warp * 32 + lane;
  const uint32_t tid[3] = {thread % launch.block[0], thread / launch.block[0] % launch.block[1],
                           thread / (launch.block[0] * launch.block[1])};
  const auto axis = [&](const char* prefix, const uint32_t (&values)[3], uint32_t& value) {
    const size_t length = std::strlen(prefix);
    if (name.compare(0, length, prefix) != 0 || name.size() != length + 1) return false;
    value = values[name[length] - 'x'];
    return true;
  };
  uint32_t value = 0;
  if (axis("%tid.", tid, value) || axis("%ntid.", launch.block, value) || axis("%ctaid.", block.id, value) ||
      axis("%nctaid.", launch.grid, value)) {
    return value;
  }
  if (name == "%laneid") return lane;
  if (name == "%warpid") return warp;
  if (name == "%nwarpid") return static_cast<uint32_t>(block.warps.size());
  if (name == "%smid") return block.number % 4;
  if (name == "%nsmid") return 4;
  if (name == "%lanemask_eq") return 1u << lane;
  if (name == "%lanemask_lt") return (1u << lane) - 1;
  if (name == "%lanemask_le") return (2u << lane) - 1;
  if (name == "%lanemask_gt") return ~((2u << lane) - 1);
  if (name == "%lanemask_ge") return ~((1u << lane) - 1);
  if (name == "%dynamic_smem_size") return launch.shared_bytes;
  if (name == "%total_smem_size") return launch.program->dynamic_shared_offset + launch.shared_bytes;
  return 0;  // %gridid
}

}  // namespace

Scheduler::Scheduler(Launch& launch)
    : launch_(launch), program_(*launch.program), random_(launch.options.seed) {}

std::unique_ptr<Block> Scheduler::start_block(uint32_t number) {
  auto block = std::make_unique<Block>();
  block->number = number;
  block->id[0] = number % launch_.grid[0];
  block->id[1] = number / launch_.grid[0] % launch_.grid[1];
  block->id[2] = number / (launch_.grid[0] * launch_.grid[1]);
  block->threads = launch_.block[0] * launch_.block[1] * launch_.block[2];
  // 0xff: NaN where somebody computes with what was never written, with checks off.
  block->shared.assign(program_.dynamic_shared_offset + launch_.shared_bytes, 0xff);
  block->shared_shadow.reset(block->shared.size());
  const uint32_t warps = (block->threads + 31) / 32;
  for (uint32_t i = 0; i < warps; ++i) block->warps.push_back(nullptr);
  for (uint32_t i = 0; i < warps; ++i) block->warps[i] = start_warp(*block, i);
  return block;
}

std::unique_ptr<Warp> Scheduler::start_warp(Block& block, uint32_t index) {
  auto warp = std::make_unique<Warp>();
  const uint32_t left = block.threads - index * 32;
  const uint32_t warps = static_cast<uint32_t>(block.warps.size());
  const uint32_t warp_bits = static_cast<uint32_t>(std::bit_width(warps - 1));
  warp->launch = &launch_;
  warp->block = &block;
  warp->index = index;
  warp->block_lanes = warp->alive = left >= 32 ? kAllLanes : (1u << left) - 1;
  warp->groups.push_back({0, warp->alive, 0, Group::ready});
  warp->registers.assign(program_.register_bytes + 64, static_cast<char>(0xa5));
  const size_t misaligned = reinterpret_cast<uintptr_t>(warp->registers.data()) % 64;
  warp->base[0] = warp->registers.data() + (misaligned ? 64 - misaligned : 0);
  warp->base[1] = reinterpret_cast<char*>(const_cast<uint8_t*>(program_.constants.data()));
  warp->frame.assign(size_t{program_.frame_bytes} * 32, static_cast<char>(0xa5));
  warp->local.assign(size_t{program_.local_bytes} * 32, static_cast<char>(0xff));
  warp->local_written.assign(size_t{program_.local_bytes} * 32, 0);
  warp->first_thread = ((block.number << warp_bits) + index) * 32;
  warp->common = std::make_shared<Knowledge>(block.number, warp_bits);
  for (const auto& [name, offset] : program_.specials) {
    uint32_t* values = reinterpret_cast<uint32_t*>(warp->base[0] + offset);
    if (name == "%gridid") std::memset(values, 0, 256);
    for (uint32_t lane = 0; lane < 32; ++lane)
      values[lane] = special_value(name, launch_, block, index, lane);
  }
  return warp;
}

bool Scheduler::has_ready_group(const Warp& warp) const {
  for (const Group& group : warp.groups) {
    if (group.state == Group::ready) return true;
  }
  return false;
}

void Scheduler::run_warp(Warp& warp, uint64_t steps) {
  // Here, because a turn may end at a barrier of the loop.
  if (warp.executed > launch_.options.max_warp_instructions) {
    launch_.fail(
        FaultKind::endless_loop, warp, -1,
        "endless loop: the warp has executed " + std::to_string(warp.executed) +
            " instructions (waiting for a block that is not resident looks the same; resident_blocks is " +
            std::to_string(launch_.options.resident_blocks) + ")");
  }
  if (warp.groups[warp.current].state != Group::ready || warp.groups.size() > 1) reschedule(warp);
  std::vector<InstrCount>& counts = launch_.counters->counts;
  const uint32_t dropped =
      launch_.options.drop_instruction < 0 ? ~0u : static_cast<uint32_t>(launch_.options.drop_instruction);
  for (; steps > 0; --steps) {
    Group& group = warp.groups[warp.current];
    const Instr& in = program_.code[group.pc];
    warp.pc = group.pc;
    warp.active = group.mask;
    if (in.guard != ~0u) {
      const uint32_t guard = *reinterpret_cast<const uint32_t*>(warp.base[0] + in.guard);
      warp.active &= in.guard_negated ? ~guard : guard;
    }
    if (group.pc == dropped) {
      ++group.pc;
      continue;
    }
    InstrCount& count = counts[group.pc];
    ++count.warps;
    count.lanes += static_cast<uint64_t>(std::popcount(warp.active));
    ++launch_.clock;
    ++warp.executed;
    if (in.flow == Flow::plain) {
      if (warp.active) in.run(warp, in);
      ++group.pc;
    } else {
      step_flow(warp, in);
      if (warp.groups.empty()) return;
    }
    if (warp.groups.size() > 1) reschedule(warp);
    if (warp.groups[warp.current].state != Group::ready) return;
  }
}

void Scheduler::run() {
  const uint32_t grid = launch_.grid[0] * launch_.grid[1] * launch_.grid[2];
  const bool random = launch_.options.seed != 0;
  const uint32_t residents = std::max(1u, std::min(launch_.options.resident_blocks, grid));
  std::vector<std::unique_ptr<Block>> blocks;
  uint32_t next = 0;
  while (next < grid || !blocks.empty()) {
    while (blocks.size() < residents && next < grid) blocks.push_back(start_block(next++));
    bool progress = false;
    if (random) {
      std::vector<Warp*> ready;
      for (const auto& block : blocks) {
        for (const auto& warp : block->warps) {
          if (!warp->done() && has_ready_group(*warp)) ready.push_back(warp.get());
        }
      }
      if (!ready.empty()) {
        // Now and then one warp runs far ahead of the others: the window of many races.
        const uint64_t turn = random_() % 8 == 0 ? 16 * kRandomTurn : kRandomTurn;
        run_warp(*ready[random_() % ready.size()], 1 + random_() % turn);
        progress = true;
      }
    } else {
      for (const auto& block : blocks) {
        for (const auto& warp : block->warps) {
          if (warp->done() || !has_ready_group(*warp)) continue;
          run_warp(*warp, kTurn);
          progress = true;
        }
      }
    }
    if (!progress) fail_stuck(blocks);
    std::erase_if(blocks, [](const std::unique_ptr<Block>& block) {
      return std::all_of(block->warps.begin(), block->warps.end(),
                         [](const auto& warp) { return warp->done(); });
    });
  }
}

void Scheduler::fail_stuck(const std::vector<std::unique_ptr<Block>>& blocks) const {
  for (const auto& block : blocks) {
    for (const auto& warp : block->warps) {
      for (const Group& group : warp->groups) {
        if (group.state != Group::waiting) continue;
        warp->pc = group.pc;
        const FaultKind kind = program_.code[group.pc].flow == Flow::barrier
                                   ? FaultKind::divergent_barrier
                                   : FaultKind::divergent_collective;
        launch_.fail(kind, *warp, std::countr_zero(group.mask),
                     std::string(fault_words(kind)) + ": the other lanes of the warp do not come here");
      }
    }
  }
  for (const auto& block : blocks) {
    for (uint32_t id = 0; id < block->barriers.size(); ++id) {
      const Barrier& barrier = block->barriers[id];
      if (barrier.waiters.empty()) continue;
      Warp& warp = *barrier.waiters[0].warp;
      warp.pc = barrier.waiters[0].pc;
      const bool left = block->exited > 0;
      const FaultKind kind = left ? FaultKind::divergent_barrier : FaultKind::deadlock;
      launch_.fail(kind, warp, -1,
                   std::string(fault_words(kind)) + ": barrier " + std::to_string(id) + " has " +
                       std::to_string(barrier.arrived) + " of " + std::to_string(barrier.expected) +
                       " threads, " + std::to_string(block->exited) +
                       " threads of the block have exited, and no warp can go on");
    }
  }
  throw Fault(FaultKind::deadlock, "kernel " + program_.kernel->name + ": deadlock");
}

}  // namespace bitloom::ptx
