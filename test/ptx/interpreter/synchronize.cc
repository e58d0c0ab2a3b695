// What synchronization teaches: barriers of lanes, releases and acquires through addresses, fences.
//
// A release leaves the lane's knowledge at the address; an update (atom, red) adds to what is there, since it
// continues the release sequence; a plain strong store replaces it. A fence before a relaxed store or update
// makes it a release of what was known at the fence; a fence after a relaxed load or update makes it an
// acquire.
#include "access.h"

namespace bitloom::ptx {
namespace {

SyncPoints& points(Warp& warp, Space space) {
  return space == Space::shared ? warp.block->shared_sync : warp.launch->global_sync;
}

void set_lane(Warp& warp, uint32_t lane, KnowledgeRef knowledge) {
  if (warp.by_lane.empty()) warp.by_lane.assign(32, warp.common);
  warp.by_lane[lane] = std::move(knowledge);
}

FenceState& fences(Warp& warp) {
  if (!warp.fences) warp.fences = std::make_unique<FenceState>();
  return *warp.fences;
}

KnowledgeRef with_own(Warp& warp, uint32_t lane) {
  auto mine = std::make_shared<Knowledge>(*warp.knowledge(lane));
  mine->threads[warp.first_thread + lane] = warp.clock;
  return mine;
}

}  // namespace

KnowledgeRef publish(Warp& warp, uint32_t mask) {
  const uint32_t first = static_cast<uint32_t>(std::countr_zero(mask));
  auto all = std::make_shared<Knowledge>(*warp.knowledge(first));
  if (!warp.by_lane.empty()) {
    for (uint32_t left = mask; left; left &= left - 1) all->join(*warp.by_lane[std::countr_zero(left)]);
  }
  if (mask == warp.alive) {
    all->own[warp.index] = warp.clock;
    // Single lanes of this warp are covered now.
    all->threads.erase(all->threads.lower_bound(warp.first_thread),
                       all->threads.lower_bound(warp.first_thread + 32));
  } else {
    for (uint32_t left = mask; left; left &= left - 1) {
      all->threads[warp.first_thread + static_cast<uint32_t>(std::countr_zero(left))] = warp.clock;
    }
  }
  ++warp.clock;
  return all;
}

void learn(Warp& warp, uint32_t mask, const KnowledgeRef& knowledge) {
  if (mask == warp.alive) {
    warp.common = knowledge;
    warp.by_lane.clear();
  } else {
    for (uint32_t left = mask; left; left &= left - 1)
      set_lane(warp, static_cast<uint32_t>(std::countr_zero(left)), knowledge);
  }
}

void synchronize_lanes(Warp& warp, uint32_t mask) { learn(warp, mask, publish(warp, mask)); }

void release_at(Warp& warp, uint32_t lane, Space space, uint64_t address, Scope scope, bool is_release,
                bool is_update) {
  SyncPoints& all = points(warp, space);
  KnowledgeRef device, block;
  if (is_release) {
    (scope == Scope::device ? device : block) = with_own(warp, lane);
    ++warp.clock;
  } else if (warp.fences) {
    device = warp.fences->release_device[lane];
    block = warp.fences->release_block[lane];
  }
  if (scope == Scope::block) {  // an operation of the block's scope publishes to the block only
    block = joined(block, device);
    device = nullptr;
  }
  if (!device && !block) {
    if (!is_update && !all.empty()) all.erase(address);
    return;
  }
  SyncPoint& point = all[address];
  if (!is_update) point = {};
  if (device) point.device = joined(point.device, device);
  if (block) {
    KnowledgeRef& mine = point.block[warp.block->number];
    mine = joined(mine, block);
  }
}

void acquire_at(Warp& warp, uint32_t lane, Space space, uint64_t address, Scope scope, bool is_acquire) {
  const SyncPoints& all = points(warp, space);
  if (all.empty()) return;
  const auto found = all.find(address);
  if (found == all.end()) return;
  KnowledgeRef taken =
      scope == Scope::device || (found->second.device && found->second.device->block == warp.block->number)
          ? found->second.device
          : nullptr;
  const auto own = found->second.block.find(warp.block->number);
  if (own != found->second.block.end()) taken = joined(taken, own->second);
  if (!taken) return;
  if (is_acquire) {
    // `joined` starts from the first argument, which must be of this block.
    set_lane(warp, lane, joined(warp.knowledge(lane), taken));
  } else {
    KnowledgeRef& observed = fences(warp).observed[lane];
    observed = joined(observed ? observed : warp.knowledge(lane), taken);
  }
}

void fence(Warp& warp, Scope scope) {
  FenceState& state = fences(warp);
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    if (state.observed[lane]) {
      set_lane(warp, lane, joined(warp.knowledge(lane), state.observed[lane]));
      state.observed[lane] = nullptr;
    }
    (scope == Scope::device ? state.release_device : state.release_block)[lane] = with_own(warp, lane);
  }
  ++warp.clock;
}

}  // namespace bitloom::ptx
