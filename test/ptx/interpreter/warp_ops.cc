// Instructions among the lanes of a warp: shfl, vote, match, redux, activemask, elect. The scheduler has made
// sure that the active lanes are the members the mask names.
#include <algorithm>

#include "binder.h"

namespace bitloom::ptx {
namespace {

enum Shuffle : uint8_t { shuffle_up, shuffle_down, shuffle_bfly, shuffle_idx };

// Slots: member mask, d, p, a, b, c. PTX ISA "shfl.sync": pseudo code.
void run_shfl(Warp& warp, const Instr& in) {
  uint32_t* d = row<uint32_t>(warp, in.slots[1]);
  const uint32_t* a = row<uint32_t>(warp, in.slots[3]);
  const uint32_t* b = row<uint32_t>(warp, in.slots[4]);
  const uint32_t* c = row<uint32_t>(warp, in.slots[5]);
  uint32_t result[32], valid = 0;
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const int32_t lane = std::countr_zero(left);
    const int32_t value = static_cast<int32_t>(b[lane] & 0x1f), clamp = static_cast<int32_t>(c[lane] & 0x1f);
    const int32_t segment = static_cast<int32_t>(c[lane] >> 8 & 0x1f);
    const int32_t max_lane = (lane & segment) | (clamp & ~segment), min_lane = lane & segment;
    int32_t from = 0;
    bool in_range = false;
    switch (in.a) {
      case shuffle_up:
        from = lane - value;
        in_range = from >= max_lane;
        break;
      case shuffle_down:
        from = lane + value;
        in_range = from <= max_lane;
        break;
      case shuffle_bfly:
        from = lane ^ value;
        in_range = from <= max_lane;
        break;
      default:
        from = min_lane | (value & ~segment);
        in_range = from <= max_lane;
        break;
    }
    if (!in_range) from = lane;
    if (!(warp.active >> from & 1)) {
      warp.launch->fail(FaultKind::divergent_collective, warp, lane,
                        "divergent collective: the value of lane " + std::to_string(from) +
                            " is read, which takes no part");
    }
    result[lane] = a[from];
    valid |= uint32_t{in_range} << lane;
  }
  each_lane(warp.active, [&](uint32_t lane) { d[lane] = result[lane]; });
  set_predicate(warp, in.slots[2], valid);
}

enum Vote : uint8_t { vote_all, vote_any, vote_uni, vote_ballot };

// Slots: member mask, d, p.
void run_vote(Warp& warp, const Instr& in) {
  const uint32_t yes = predicate(warp, in.slots[2]) & warp.active;
  if (in.a == vote_ballot) {
    uint32_t* d = row<uint32_t>(warp, in.slots[1]);
    each_lane(warp.active, [&](uint32_t lane) { d[lane] = yes; });
    return;
  }
  const bool result = in.a == vote_all   ? yes == warp.active
                      : in.a == vote_any ? yes != 0
                                         : yes == 0 || yes == warp.active;
  set_predicate(warp, in.slots[1], result ? kAllLanes : 0);
}

// Slots: member mask, d, p, a.
template <typename T, bool All>
void run_match(Warp& warp, const Instr& in) {
  const T* a = row<T>(warp, in.slots[3]);
  uint32_t result[32], same_everywhere = 0;
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    uint32_t same = 0;
    for (uint32_t other = warp.active; other; other &= other - 1) {
      same |= uint32_t{a[std::countr_zero(other)] == a[lane]} << std::countr_zero(other);
    }
    const bool all = same == warp.active;
    result[lane] = All ? (all ? same : 0) : same;
    same_everywhere |= uint32_t{all} << lane;
  }
  uint32_t* d = row<uint32_t>(warp, in.slots[1]);
  each_lane(warp.active, [&](uint32_t lane) { d[lane] = result[lane]; });
  set_predicate(warp, in.slots[2], same_everywhere);
}

enum Reduction : uint8_t { redux_add, redux_min, redux_max, redux_and, redux_or, redux_xor };

// Slots: member mask, d, a.
template <typename T>
void run_redux(Warp& warp, const Instr& in) {
  const T* a = row<T>(warp, in.slots[2]);
  T result = a[std::countr_zero(warp.active)];
  for (uint32_t left = warp.active & (warp.active - 1); left; left &= left - 1) {
    const T value = a[std::countr_zero(left)];
    switch (in.a) {
      case redux_add:
        result = static_cast<T>(static_cast<uint32_t>(result) + static_cast<uint32_t>(value));
        break;
      case redux_min:
        result = std::min(result, value);
        break;
      case redux_max:
        result = std::max(result, value);
        break;
      case redux_and:
        result &= value;
        break;
      case redux_or:
        result |= value;
        break;
      default:
        result ^= value;
        break;
    }
  }
  T* d = row<T>(warp, in.slots[1]);
  each_lane(warp.active, [&](uint32_t lane) { d[lane] = result; });
}

void make_collective(Binder& b, const Operand& members) {
  b.source(members, 4);
  b.instr.flow = Flow::collective;
  b.instr.members = 0;
}

}  // namespace

void bind_shfl(Binder& b) {
  if (!b.has("sync")) b.fail("shfl without .sync");
  b.instr.a = b.has("up")     ? shuffle_up
              : b.has("down") ? shuffle_down
              : b.has("bfly") ? shuffle_bfly
                              : shuffle_idx;
  if (b.instr.a == shuffle_idx && !b.has("idx")) b.fail("mode");
  if (b.type() != Type::b32 || b.count() != 5) b.fail("form");
  make_collective(b, b.operand(4));
  const Operand& d = b.operand(0);
  b.dest(d.kind == Operand::pair ? d.elements[0] : d, 4);
  d.kind == Operand::pair ? b.dest_predicate(d.elements[1]) : b.absent();
  for (size_t i = 1; i < 4; ++i) b.source(b.operand(i), 4);
  b.instr.run = run_shfl;
}

void bind_vote(Binder& b) {
  if (!b.has("sync")) b.fail("vote without .sync");
  b.instr.a = b.has("all") ? vote_all : b.has("any") ? vote_any : b.has("uni") ? vote_uni : vote_ballot;
  if (b.instr.a == vote_ballot && !b.has("ballot")) b.fail("mode");
  const Type type = b.type();
  if (type != (b.instr.a == vote_ballot ? Type::b32 : Type::pred) || b.count() != 3) b.fail("form");
  make_collective(b, b.operand(2));
  type == Type::pred ? b.dest_predicate(b.operand(0)) : b.dest(b.operand(0), 4);
  b.source_predicate(b.operand(1));
  b.instr.run = run_vote;
}

void bind_match(Binder& b) {
  const bool all = b.has("all");
  if ((!all && !b.has("any")) || !b.has("sync")) b.fail("form");
  const uint32_t bytes = type_bytes(b.type());
  make_collective(b, b.operand(2));
  const Operand& d = b.operand(0);
  b.dest(d.kind == Operand::pair ? d.elements[0] : d, 4);
  d.kind == Operand::pair ? b.dest_predicate(d.elements[1]) : b.absent();
  b.source(b.operand(1), bytes);
  if (bytes == 4) b.instr.run = all ? run_match<uint32_t, true> : run_match<uint32_t, false>;
  if (bytes == 8) b.instr.run = all ? run_match<uint64_t, true> : run_match<uint64_t, false>;
}

void bind_redux(Binder& b) {
  static const char* const names[] = {"add", "min", "max", "and", "or", "xor"};
  if (!b.has("sync")) b.fail("form");
  bool found = false;
  for (uint8_t i = 0; i < 6 && !found; ++i) {
    if ((found = b.has(names[i]))) b.instr.a = i;
  }
  const Type type = b.type();
  if (!found || type_bytes(type) != 4 || type_class(type) == 'f') b.fail("form");
  make_collective(b, b.operand(2));
  b.dest(b.operand(0), 4);
  b.source(b.operand(1), 4);
  b.instr.run = type == Type::s32 ? run_redux<int32_t> : run_redux<uint32_t>;
}

void bind_activemask(Binder& b) {
  if (b.type() != Type::b32) b.fail("type");
  b.dest(b.operand(0), 4);
  b.instr.run = [](Warp& warp, const Instr& in) {
    uint32_t* d = row<uint32_t>(warp, in.slots[0]);
    each_lane(warp.active, [&](uint32_t lane) { d[lane] = warp.active; });
  };
}

// Slots: member mask, d, p: the lowest member is elected.
void bind_elect(Binder& b) {
  if (!b.has("sync") || b.operand(0).kind != Operand::pair) b.fail("form");
  make_collective(b, b.operand(1));
  b.dest(b.operand(0).elements[0], 4);
  b.dest_predicate(b.operand(0).elements[1]);
  b.instr.run = [](Warp& warp, const Instr& in) {
    const uint32_t leader = static_cast<uint32_t>(std::countr_zero(warp.active));
    uint32_t* d = row<uint32_t>(warp, in.slots[1]);
    each_lane(warp.active, [&](uint32_t lane) { d[lane] = leader; });
    set_predicate(warp, in.slots[2], 1u << leader);
  };
}

}  // namespace bitloom::ptx
