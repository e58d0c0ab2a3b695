// Runs the blocks of a launch: which warp next, for how long, divergence and reconvergence, barriers,
// deadlock.
#pragma once

#include <memory>
#include <random>
#include <vector>

#include "warp.h"

namespace bitloom::ptx {

enum BarrierKind : uint8_t { barrier_sync, barrier_arrive, barrier_popc, barrier_and, barrier_or };

class Scheduler {
 public:
  explicit Scheduler(Launch& launch);
  void run();

 private:
  // scheduler.cc
  std::unique_ptr<Block> start_block(uint32_t number);
  std::unique_ptr<Warp> start_warp(Block& block, uint32_t index);
  void run_warp(Warp& warp, uint64_t steps);
  bool has_ready_group(const Warp& warp) const;
  [[noreturn]] void fail_stuck(const std::vector<std::unique_ptr<Block>>& blocks) const;

  // flow.cc. Each leaves the pc of the current group where it goes on.
  void step_flow(Warp& warp, const Instr& in);
  void branch(Warp& warp, uint32_t taken, uint32_t target, uint16_t depth);
  void branch_table(Warp& warp, const Instr& in);
  void call(Warp& warp, const Instr& in);
  void ret(Warp& warp, const Instr& in);
  void leave(Warp& warp, uint32_t lanes);
  void collective(Warp& warp, const Instr& in);
  void barrier(Warp& warp, const Instr& in);
  void complete(Block& block, Barrier& barrier);
  void wait_for_others(Warp& warp, FaultKind kind);
  void reschedule(Warp& warp);

  Launch& launch_;
  const Program& program_;
  std::mt19937_64 random_;
  uint64_t launched_threads_ = 0;
};

}  // namespace bitloom::ptx
