// atom, red, fence and membar: PTX ISA "Parallel Synchronization and Communication Instructions".
#include <algorithm>
#include <cstring>
#include <type_traits>

#include "access.h"
#include "binder.h"
#include "formats.h"
#include "half_ops.h"
#include "memory_modifiers.h"

namespace bitloom::ptx {
namespace {

enum AtomicOp : uint8_t { op_add, op_min, op_max, op_inc, op_dec, op_and, op_or, op_xor, op_exch, op_cas };

template <typename T>
T updated(uint8_t op, T old, T x, T y) {
  if constexpr (std::is_floating_point_v<T>) {
    switch (op) {
      case op_add:
        return old + x;
      case op_min:
        return std::min(old, x);
      case op_max:
        return std::max(old, x);
      case op_exch:
        return x;
      default:
        return old;
    }
  } else {
    using U = std::make_unsigned_t<T>;
    switch (op) {
      case op_add:
        return static_cast<T>(static_cast<U>(old) + static_cast<U>(x));
      case op_min:
        return std::min(old, x);
      case op_max:
        return std::max(old, x);
      case op_inc:
        return static_cast<U>(old) >= static_cast<U>(x) ? 0 : static_cast<T>(old + 1);
      case op_dec:
        return old == 0 || static_cast<U>(old) > static_cast<U>(x) ? x : static_cast<T>(old - 1);
      case op_and:
        return static_cast<T>(old & x);
      case op_or:
        return static_cast<T>(old | x);
      case op_xor:
        return static_cast<T>(old ^ x);
      case op_exch:
        return x;
      case op_cas:
        return old == x ? y : old;
      default:
        return old;
    }
  }
}

// Pairs and single halves, add only (.noftz).
template <typename Narrow>
uint32_t add_halves(uint32_t old, uint32_t x, uint32_t count, Narrow narrow) {
  uint32_t result = 0;
  for (uint32_t i = 0; i < count; ++i) {
    const auto p = decltype(narrow(0.0f)){static_cast<uint16_t>(old >> 16 * i)};
    const auto q = decltype(narrow(0.0f)){static_cast<uint16_t>(x >> 16 * i)};
    result |= static_cast<uint32_t>(narrow(to_float(p) + to_float(q)).bits) << 16 * i;
  }
  return result;
}

template <typename T>
T updated_typed(const Instr& in, T old, T x, T y) {
  if constexpr (std::is_same_v<T, uint32_t> || std::is_same_v<T, uint16_t>) {
    const uint32_t count = sizeof(T) / 2;
    if (in.type == Type::f16 || in.type == Type::f16x2)
      return static_cast<T>(add_halves(old, x, count, to_half));
    if (in.type == Type::bf16 || in.type == Type::bf16x2)
      return static_cast<T>(add_halves(old, x, count, to_brain));
  }
  return updated(in.a, old, x, y);
}

// Slots: address, old value or absent, then `d` values per operand and, for cas, `d` more. Instr: a =
// operation, b = 1 for red, c = order, d = elements of the vector.
template <typename T>
void run_atomic(Warp& warp, const Instr& in) {
  const MemoryOrder order = order_of(in);
  const uint32_t vector = in.d, bytes = vector * sizeof(T);
  uint64_t address[32];
  read_addresses(warp, in.slots[0], address);
  AccessMode mode;
  mode.reads = mode.writes = mode.strong = true;
  mode.device = order.scope == Scope::device;
  count_request(warp, in.space, address, warp.active, bytes);
  Accessor memory(warp, in.space, mode);
  const Slot* targets = in.slots + 1;
  const Slot* sources = targets + vector;
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    uint8_t* at = memory.at(lane, address[lane], bytes);
    for (uint32_t i = 0; i < vector; ++i) {
      T old;
      std::memcpy(&old, at + i * sizeof(T), sizeof(T));
      const T x = row<T>(warp, sources[i])[lane];
      const T y = in.a == op_cas ? row<T>(warp, sources[vector + i])[lane] : x;
      const T now = updated_typed(in, old, x, y);
      std::memcpy(at + i * sizeof(T), &now, sizeof(T));
      if (!in.b) row<T>(warp, targets[i])[lane] = old;
    }
    acquire_at(warp, lane, in.space, address[lane], order.scope, order.acquire);
    release_at(warp, lane, in.space, address[lane], order.scope, order.release, true);
  }
}

void bind_atomic(Binder& b, bool red) {
  static const char* const names[] = {"add", "min", "max", "inc", "dec", "and", "or", "xor", "exch", "cas"};
  const MemoryModifiers modifiers = take_memory_modifiers(b, true);
  bool found = false;
  for (uint8_t i = 0; i < 10 && !found; ++i) {
    if ((found = b.has(names[i]))) b.instr.a = i;
  }
  if (!found || (red && b.instr.a >= op_exch)) b.fail("operation");
  b.has("noftz");
  const uint32_t vector = b.has("v2") ? 2 : b.has("v4") ? 4 : b.has("v8") ? 8 : 1;
  const Type type = b.type();
  const uint32_t bytes = type_bytes(type);
  const bool half = type == Type::f16 || type == Type::f16x2 || type == Type::bf16 || type == Type::bf16x2;
  if (bytes > 8 || bytes < 2 || (half && b.instr.a != op_add)) b.fail("type");
  b.instr.space = modifiers.space;
  b.instr.type = type;
  b.instr.b = red;
  b.instr.d = static_cast<uint8_t>(vector);
  store_order(b.instr, modifiers.order);
  const size_t first = red ? 0 : 1;  // operands: [d,] address, x [, y] [, policy]
  b.address(b.operand(first));
  const auto each = [&](const Operand& operand, auto&& body) {
    if (vector == 1) return body(operand);
    if (operand.elements.size() != vector) b.fail("length of the vector");
    for (const Operand& element : operand.elements) body(element);
  };
  if (red) {
    for (uint32_t i = 0; i < vector; ++i) b.absent();
  } else {
    each(b.operand(0), [&](const Operand& o) { b.dest(o, bytes); });
  }
  const size_t sources = b.instr.a == op_cas ? 2 : 1;
  if (b.count() != first + 1 + sources + (modifiers.cache_hint ? 1 : 0)) b.fail("number of operands");
  for (size_t i = 0; i < sources; ++i) {
    each(b.operand(first + 1 + i), [&](const Operand& o) { b.source(o, bytes, type_class(type) == 'f'); });
  }
  switch (type) {
    case Type::s32:
      b.instr.run = run_atomic<int32_t>;
      break;
    case Type::s64:
      b.instr.run = run_atomic<int64_t>;
      break;
    case Type::f32:
      b.instr.run = run_atomic<float>;
      break;
    case Type::f64:
      b.instr.run = run_atomic<double>;
      break;
    default:
      b.instr.run = bytes == 2   ? run_atomic<uint16_t>
                    : bytes == 4 ? run_atomic<uint32_t>
                                 : run_atomic<uint64_t>;
  }
}

template <Scope S>
void run_fence(Warp& warp, const Instr&) {
  fence(warp, S);
}

}  // namespace

void bind_atom(Binder& b) { bind_atomic(b, false); }
void bind_red(Binder& b) { bind_atomic(b, true); }

// fence[.sc | .acq_rel | .acquire | .release].scope, membar.{cta, gl, sys}. All are taken as acq_rel; fences
// of the async proxy are no fences of anything that is emulated.
void bind_fence(Binder& b) {
  if (b.statement.opcode == "membar") {
    const bool block = b.has("cta");
    if (!block && !b.has("gl") && !b.has("sys")) b.fail("level");
    b.instr.run = block ? run_fence<Scope::block> : run_fence<Scope::device>;
    return;
  }
  if (!b.has("sc") && !b.has("acq_rel") && !b.has("acquire") && !b.has("release")) b.fail("semantics");
  b.instr.run =
      take_scope(b, Scope::device) == Scope::block ? run_fence<Scope::block> : run_fence<Scope::device>;
}

}  // namespace bitloom::ptx
