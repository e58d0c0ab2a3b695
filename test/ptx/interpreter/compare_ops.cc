// Comparison: PTX ISA "Comparison and Selection Instructions": set, setp.
#include <bit>
#include <cmath>

#include "by_type.h"
#include "formats.h"

namespace bitloom::ptx {
namespace {

enum Comparison : uint8_t { eq, ne, lt, le, gt, ge, equ, neu, ltu, leu, gtu, geu, num, nan };
enum Combine : uint8_t { combine_none, combine_and, combine_or, combine_xor };

template <typename T>
bool compare(Comparison comparison, T x, T y) {
  bool unordered = false;
  if constexpr (std::is_floating_point_v<T>) unordered = std::isnan(x) || std::isnan(y);
  switch (comparison) {
    case eq:
      return x == y;
    case ne:
      return !unordered && x != y;
    case lt:
      return x < y;
    case le:
      return x <= y;
    case gt:
      return x > y;
    case ge:
      return x >= y;
    case equ:
      return unordered || x == y;
    case neu:
      return unordered || x != y;
    case ltu:
      return unordered || x < y;
    case leu:
      return unordered || x <= y;
    case gtu:
      return unordered || x > y;
    case geu:
      return unordered || x >= y;
    case num:
      return !unordered;
    case nan:
      return unordered;
  }
  return false;
}

inline float widen(Half h) { return to_float(h); }
inline float widen(Brain b) { return to_float(b); }
template <typename T>
T widen(T value) {
  return value;
}

// A mask of the lanes for which the comparison holds. The comparison is fixed outside of the loop.
template <typename T, Comparison C, bool Ftz>
uint32_t compare_rows(const T* x, const T* y, uint32_t active) {
  uint32_t mask = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    auto p = widen(x[lane]);
    auto q = widen(y[lane]);
    if constexpr (Ftz) {
      p = flush(p);
      q = flush(q);
    }
    mask |= static_cast<uint32_t>(compare(C, p, q)) << lane;
  }
  return mask & active;
}

template <typename T, bool Ftz>
uint32_t compare_lanes(Comparison comparison, const T* x, const T* y, uint32_t active) {
  switch (comparison) {
#define BITLOOM_PTX_COMPARE(name) \
  case name:                      \
    return compare_rows<T, name, Ftz>(x, y, active);
    // clang-format off
    BITLOOM_PTX_COMPARE(eq) BITLOOM_PTX_COMPARE(ne) BITLOOM_PTX_COMPARE(lt) BITLOOM_PTX_COMPARE(le)
    BITLOOM_PTX_COMPARE(gt) BITLOOM_PTX_COMPARE(ge) BITLOOM_PTX_COMPARE(equ) BITLOOM_PTX_COMPARE(neu)
    BITLOOM_PTX_COMPARE(ltu) BITLOOM_PTX_COMPARE(leu) BITLOOM_PTX_COMPARE(gtu) BITLOOM_PTX_COMPARE(geu)
    BITLOOM_PTX_COMPARE(num) BITLOOM_PTX_COMPARE(nan)
    // clang-format on
#undef BITLOOM_PTX_COMPARE
  }
  return 0;
}

uint32_t combined(Warp& warp, const Instr& in, uint32_t result, uint32_t slot) {
  if (in.b == combine_none) return result;
  const uint32_t other = predicate(warp, in.slots[slot]);
  return in.b == combine_and ? result & other : in.b == combine_or ? result | other : result ^ other;
}

// Slots: p, q or absent, x, y, [c].
template <typename T, bool Ftz>
void run_setp(Warp& warp, const Instr& in) {
  const uint32_t result = compare_lanes<T, Ftz>(static_cast<Comparison>(in.a), row<T>(warp, in.slots[2]),
                                                row<T>(warp, in.slots[3]), warp.active);
  const uint32_t first = combined(warp, in, result, 4), second = combined(warp, in, ~result, 4);
  set_predicate(warp, in.slots[0], first);
  set_predicate(warp, in.slots[1], second);
}

// Two comparisons of a pair: p for the lower half, q for the upper.
template <typename T>
void run_setp_pair(Warp& warp, const Instr& in) {
  const T* x = row<T>(warp, in.slots[2]);
  const T* y = row<T>(warp, in.slots[3]);
  uint32_t low = 0, high = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    low |= uint32_t{compare(static_cast<Comparison>(in.a), to_float(x[lane].lo), to_float(y[lane].lo))}
           << lane;
    high |= uint32_t{compare(static_cast<Comparison>(in.a), to_float(x[lane].hi), to_float(y[lane].hi))}
            << lane;
  }
  low = combined(warp, in, low, 4);
  high = combined(warp, in, high, 4);
  set_predicate(warp, in.slots[0], low);
  set_predicate(warp, in.slots[1], high);
}

// d = all ones, or 1.0 for a floating d. Slots: d, x, y, [c].
template <typename T, bool Ftz>
void run_set(Warp& warp, const Instr& in) {
  const uint32_t result =
      combined(warp, in,
               compare_lanes<T, Ftz>(static_cast<Comparison>(in.a), row<T>(warp, in.slots[1]),
                                     row<T>(warp, in.slots[2]), warp.active),
               3);
  uint32_t* d = row<uint32_t>(warp, in.slots[0]);
  const uint32_t yes = in.type == Type::f32 ? 0x3f800000 : ~0u;
  each_lane(warp.active, [&](uint32_t lane) { d[lane] = result >> lane & 1 ? yes : 0; });
}

// The comparison of halves in pairs, as 1.0 per half (f16x2) or all ones per half (integers).
template <typename T, bool AsFloat>
void run_set_pair(Warp& warp, const Instr& in) {
  const T* x = row<T>(warp, in.slots[1]);
  const T* y = row<T>(warp, in.slots[2]);
  uint32_t* d = row<uint32_t>(warp, in.slots[0]);
  const uint32_t yes = !AsFloat ? 0xffff : std::is_same_v<T, Half2> ? 0x3c00 : 0x3f80;
  each_lane(warp.active, [&](uint32_t lane) {
    const bool low = compare(static_cast<Comparison>(in.a), to_float(x[lane].lo), to_float(y[lane].lo));
    const bool high = compare(static_cast<Comparison>(in.a), to_float(x[lane].hi), to_float(y[lane].hi));
    d[lane] = (low ? yes : 0) | (high ? yes << 16 : 0);
  });
}

void take_comparison(Binder& b, bool integers) {
  static const char* const names[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                      "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};
  static const char* const unsigned_names[] = {"lo", "ls", "hi", "hs"};
  static constexpr Comparison unsigned_values[] = {lt, le, gt, ge};
  bool found = false;
  for (uint8_t i = 0; i < 14 && !found; ++i) {
    if ((found = b.has(names[i]))) b.instr.a = i;
  }
  for (uint8_t i = 0; i < 4 && integers && !found; ++i) {
    if ((found = b.has(unsigned_names[i]))) b.instr.a = unsigned_values[i];
  }
  if (!found) b.fail("comparison");
  b.instr.b = b.has("and")   ? combine_and
              : b.has("or")  ? combine_or
              : b.has("xor") ? combine_xor
                             : combine_none;
}

#define BITLOOM_PTX_COMPARE_TYPES(type, body, ftz)                \
  switch (type) {                                                 \
    case Type::b16:                                               \
    case Type::u16:                                               \
      b.instr.run = body<uint16_t, false>;                        \
      break;                                                      \
    case Type::s16:                                               \
      b.instr.run = body<int16_t, false>;                         \
      break;                                                      \
    case Type::b32:                                               \
    case Type::u32:                                               \
      b.instr.run = body<uint32_t, false>;                        \
      break;                                                      \
    case Type::s32:                                               \
      b.instr.run = body<int32_t, false>;                         \
      break;                                                      \
    case Type::b64:                                               \
    case Type::u64:                                               \
      b.instr.run = body<uint64_t, false>;                        \
      break;                                                      \
    case Type::s64:                                               \
      b.instr.run = body<int64_t, false>;                         \
      break;                                                      \
    case Type::f16:                                               \
      b.instr.run = body<Half, false>;                            \
      break;                                                      \
    case Type::bf16:                                              \
      b.instr.run = body<Brain, false>;                           \
      break;                                                      \
    case Type::f32:                                               \
      b.instr.run = ftz ? body<float, true> : body<float, false>; \
      break;                                                      \
    case Type::f64:                                               \
      b.instr.run = body<double, false>;                          \
      break;                                                      \
    default:                                                      \
      b.fail("type");                                             \
  }

}  // namespace

void bind_setp(Binder& b) {
  const Type type = [&] {
    take_comparison(b, true);
    return b.type();
  }();
  const bool ftz = b.has("ftz");
  const Operand& target = b.operand(0);
  const bool both = target.kind == Operand::pair;
  b.dest_predicate(both ? target.elements[0] : target);
  both ? b.dest_predicate(target.elements[1]) : b.absent();
  const uint32_t bytes = type_bytes(type);
  b.source(b.operand(1), bytes, type_class(type) == 'f');
  b.source(b.operand(2), bytes, type_class(type) == 'f');
  if (b.instr.b != combine_none) b.source_predicate(b.operand(3));
  if (type == Type::f16x2) {
    b.instr.run = run_setp_pair<Half2>;
  } else if (type == Type::bf16x2) {
    b.instr.run = run_setp_pair<Brain2>;
  } else {
    BITLOOM_PTX_COMPARE_TYPES(type, run_setp, ftz)
  }
}

void bind_set(Binder& b) {
  take_comparison(b, true);
  const bool ftz = b.has("ftz");
  const Type to = b.type(), type = b.type();
  if (type_bytes(to) != 4) b.fail("type of the result");
  b.instr.type = to;
  b.dest(b.operand(0), 4);
  b.source(b.operand(1), type_bytes(type), type_class(type) == 'f');
  b.source(b.operand(2), type_bytes(type), type_class(type) == 'f');
  if (b.instr.b != combine_none) b.source_predicate(b.operand(3));
  if (type == Type::f16x2 || type == Type::bf16x2) {
    if (b.instr.b != combine_none) b.fail("set of pairs with a predicate");
    const bool as_float = to == type, half = type == Type::f16x2;
    b.instr.run = half ? (as_float ? run_set_pair<Half2, true> : run_set_pair<Half2, false>)
                       : (as_float ? run_set_pair<Brain2, true> : run_set_pair<Brain2, false>);
    return;
  }
  if (to != Type::u32 && to != Type::s32 && to != Type::f32) b.fail("type of the result");
  BITLOOM_PTX_COMPARE_TYPES(type, run_set, ftz)
}

}  // namespace bitloom::ptx
