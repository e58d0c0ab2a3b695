// The modifiers that memory instructions share: space, ordering, scope, cache hints.
#pragma once

#include "access.h"
#include "binder.h"

namespace bitloom::ptx {

struct MemoryOrder {
  bool strong = false, acquire = false, release = false, read_only = false;
  Scope scope = Scope::device;
};

struct MemoryModifiers {
  Space space = Space::generic;
  MemoryOrder order;
  bool cache_hint = false;  // a policy operand follows
};

inline void store_order(Instr& in, const MemoryOrder& order) {
  in.c = static_cast<uint8_t>(order.strong | order.acquire << 1 | order.release << 2 | order.read_only << 3 |
                              (order.scope == Scope::device) << 4);
}
inline MemoryOrder order_of(const Instr& in) {
  MemoryOrder order;
  order.strong = in.c & 1;
  order.acquire = in.c & 2;
  order.release = in.c & 4;
  order.read_only = in.c & 8;
  order.scope = in.c & 16 ? Scope::device : Scope::block;
  return order;
}

inline Space take_space(Binder& b) {
  if (b.has("global")) return Space::global;
  if (b.has("shared") || b.has("shared::cta")) return Space::shared;
  if (b.has("local")) return Space::local;
  if (b.has("const")) return Space::constant;
  if (b.has("param") || b.has("param::entry") || b.has("param::func")) return Space::param;
  return Space::generic;
}

// The scope of an operation that names none is `fallback`.
inline Scope take_scope(Binder& b, Scope fallback) {
  if (b.has("cta")) return Scope::block;
  if (b.has("cluster")) return Scope::block;  // a cluster here is one block
  if (b.has("gpu") || b.has("sys")) return Scope::device;
  return fallback;
}

// Hints that change speed only. Takes all it finds.
inline void take_cache_hints(Binder& b) {
  static const char* const hints[] = {"ca",
                                      "cg",
                                      "cs",
                                      "lu",
                                      "cv",
                                      "wb",
                                      "wt",
                                      "L1::evict_normal",
                                      "L1::evict_unchanged",
                                      "L1::evict_first",
                                      "L1::evict_last",
                                      "L1::no_allocate",
                                      "L2::evict_first",
                                      "L2::evict_last",
                                      "L2::evict_normal",
                                      "L2::64B",
                                      "L2::128B",
                                      "L2::256B",
                                      "uni"};
  for (const char* hint : hints) b.has(hint);
}

// Of ld, st, atom and red (the order of atom is relaxed where none is named).
inline MemoryModifiers take_memory_modifiers(Binder& b, bool is_atomic = false) {
  MemoryModifiers modifiers;
  MemoryOrder& order = modifiers.order;
  order.strong = is_atomic;
  b.has("weak");
  if (b.has("volatile") || b.has("relaxed") || b.has("mmio")) order.strong = true;
  if (b.has("acquire")) order.strong = order.acquire = true;
  if (b.has("release")) order.strong = order.release = true;
  if (b.has("acq_rel")) order.strong = order.acquire = order.release = true;
  if (b.has("nc")) order.read_only = true;
  order.scope = take_scope(b, Scope::device);
  modifiers.space = take_space(b);
  if (modifiers.space == Space::constant) order.read_only = true;
  modifiers.cache_hint = b.has("L2::cache_hint");
  take_cache_hints(b);
  return modifiers;
}

}  // namespace bitloom::ptx
