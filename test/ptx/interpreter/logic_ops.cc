// Logic and shifts: PTX ISA "Logic and Shift Instructions".
#include <algorithm>

#include "by_type.h"

namespace bitloom::ptx {
namespace {

template <typename T>
T op_and(T x, T y) {
  return x & y;
}
template <typename T>
T op_or(T x, T y) {
  return x | y;
}
template <typename T>
T op_xor(T x, T y) {
  return x ^ y;
}
template <typename T>
T op_not(T x) {
  return static_cast<T>(~x);
}
// Amounts above the width count as the width.
template <typename T>
T op_shl(T x, uint32_t n) {
  return n >= 8 * sizeof(T) ? 0 : static_cast<T>(static_cast<std::make_unsigned_t<T>>(x) << n);
}
template <typename T>
T op_shr(T x, uint32_t n) {
  if (n >= 8 * sizeof(T)) return std::is_signed_v<T> && x < 0 ? static_cast<T>(-1) : 0;
  return static_cast<T>(x >> n);
}

enum Logic : uint8_t { logic_and, logic_or, logic_xor };

// Predicates are words of 32 lanes.
void run_predicate_logic(Warp& warp, const Instr& in) {
  const uint32_t x = predicate(warp, in.slots[1]);
  const uint32_t y = in.slot_count > 2 ? predicate(warp, in.slots[2]) : kAllLanes;
  set_predicate(warp, in.slots[0], in.a == logic_and ? x & y : in.a == logic_or ? x | y : x ^ y);
}

bool bind_predicate_logic(Binder& b, Type type, Logic logic) {
  if (type != Type::pred) return false;
  b.dest_predicate(b.operand(0));
  for (size_t i = 1; i < b.count(); ++i) b.source_predicate(b.operand(i));
  b.instr.a = logic;
  b.instr.run = run_predicate_logic;
  return true;
}

void run_lop3(Warp& warp, const Instr& in) {
  uint32_t* d = row<uint32_t>(warp, in.slots[0]);
  const uint32_t* x = row<uint32_t>(warp, in.slots[1]);
  const uint32_t* y = row<uint32_t>(warp, in.slots[2]);
  const uint32_t* z = row<uint32_t>(warp, in.slots[3]);
  uint32_t use[8];
  for (int i = 0; i < 8; ++i) use[i] = in.target >> i & 1 ? ~0u : 0;
  each_lane(warp.active, [&](uint32_t lane) {
    const uint32_t p = x[lane], q = y[lane], r = z[lane];
    d[lane] = (use[0] & ~p & ~q & ~r) | (use[1] & ~p & ~q & r) | (use[2] & ~p & q & ~r) |
              (use[3] & ~p & q & r) | (use[4] & p & ~q & ~r) | (use[5] & p & ~q & r) | (use[6] & p & q & ~r) |
              (use[7] & p & q & r);
  });
}

}  // namespace

void bind_and(Binder& b) {
  const Type type = b.type();
  if (!bind_predicate_logic(b, type, logic_and)) BITLOOM_PTX_BY_INTEGER(type, op_and)
}
void bind_or(Binder& b) {
  const Type type = b.type();
  if (!bind_predicate_logic(b, type, logic_or)) BITLOOM_PTX_BY_INTEGER(type, op_or)
}
void bind_xor(Binder& b) {
  const Type type = b.type();
  if (!bind_predicate_logic(b, type, logic_xor)) BITLOOM_PTX_BY_INTEGER(type, op_xor)
}
void bind_not(Binder& b) {
  const Type type = b.type();
  if (!bind_predicate_logic(b, type, logic_xor)) BITLOOM_PTX_BY_INTEGER(type, op_not)  // p xor true
}
void bind_shl(Binder& b) { BITLOOM_PTX_BY_INTEGER(b.type(), op_shl) }
void bind_shr(Binder& b) { BITLOOM_PTX_BY_INTEGER(b.type(), op_shr) }

void bind_shf(Binder& b) {
  const bool left = b.has("l");
  if (!left && !b.has("r")) b.fail("shf without .l or .r");
  const bool wrap = b.has("wrap");
  if (!wrap && !b.has("clamp")) b.fail("shf without .wrap or .clamp");
  if (b.type() != Type::b32) b.fail("type");
  // Of the 64 bits y:x the upper word shifted left, or the lower word shifted right.
  if (left && wrap) {
    return b.alu<[](uint32_t x, uint32_t y, uint32_t n) {
      return static_cast<uint32_t>((uint64_t{y} << 32 | x) << (n & 31) >> 32);
    }>();
  }
  if (left) {
    return b.alu<[](uint32_t x, uint32_t y, uint32_t n) {
      return static_cast<uint32_t>((uint64_t{y} << 32 | x) << std::min(n, 32u) >> 32);
    }>();
  }
  if (wrap) {
    return b.alu<[](uint32_t x, uint32_t y, uint32_t n) {
      return static_cast<uint32_t>((uint64_t{y} << 32 | x) >> (n & 31));
    }>();
  }
  return b.alu<[](uint32_t x, uint32_t y, uint32_t n) {
    return static_cast<uint32_t>((uint64_t{y} << 32 | x) >> std::min(n, 32u));
  }>();
}

void bind_lop3(Binder& b) {
  if (b.type() != Type::b32 || b.count() != 5) b.fail("form of lop3");
  b.dest(b.operand(0), 4);
  for (size_t i = 1; i < 4; ++i) b.source(b.operand(i), 4);
  b.instr.target = static_cast<uint32_t>(b.constant(b.operand(4)));
  b.instr.run = run_lop3;
}

}  // namespace bitloom::ptx
