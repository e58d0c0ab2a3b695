// ld, st, mov, cvta and the like: PTX ISA "Data Movement and Conversion Instructions".
#include <cstring>
#include <type_traits>

#include "access.h"
#include "binder.h"
#include "memory_modifiers.h"

namespace bitloom::ptx {
namespace {

// Slots: address, values. Instr: a = bytes of an element, b = 1 if sign extended, c and d = MemoryOrder.
template <typename T>
void move_in(Warp& warp, const Slot& slot, uint32_t lane, const uint8_t* from, bool is_signed) {
  T value;
  std::memcpy(&value, from, sizeof(T));
  char* target = row<char>(warp, slot);
  if (slot.bytes == sizeof(T)) {
    std::memcpy(target + size_t{lane} * sizeof(T), &value, sizeof(T));
    return;
  }
  int64_t wide = static_cast<int64_t>(value);
  if (is_signed) wide = static_cast<int64_t>(static_cast<std::make_signed_t<T>>(value));
  std::memcpy(target + size_t{lane} * slot.bytes, &wide, slot.bytes);
}

template <typename T>
void run_load(Warp& warp, const Instr& in) {
  const MemoryOrder order = order_of(in);
  const uint32_t values = in.slot_count - 1, bytes = values * sizeof(T);
  uint64_t address[32];
  read_addresses(warp, in.slots[0], address);
  AccessMode mode;
  mode.reads = true;
  mode.strong = order.strong;
  mode.device = order.strong && order.scope == Scope::device;
  mode.read_only = order.read_only;
  count_request(warp, in.space, address, warp.active, bytes);
  Accessor memory(warp, in.space, mode);
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    const uint8_t* from = memory.at(lane, address[lane], bytes);
    for (uint32_t i = 0; i < values; ++i) move_in<T>(warp, in.slots[1 + i], lane, from + i * sizeof(T), in.b);
    if (order.strong) acquire_at(warp, lane, in.space, address[lane], order.scope, order.acquire);
  }
}

template <typename T>
void run_store(Warp& warp, const Instr& in) {
  const MemoryOrder order = order_of(in);
  const uint32_t values = in.slot_count - 1, bytes = values * sizeof(T);
  uint64_t address[32];
  read_addresses(warp, in.slots[0], address);
  AccessMode mode;
  mode.writes = true;
  mode.strong = order.strong;
  mode.device = order.strong && order.scope == Scope::device;
  count_request(warp, in.space, address, warp.active, bytes);
  Accessor memory(warp, in.space, mode);
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    uint8_t* to = memory.at(lane, address[lane], bytes);
    for (uint32_t i = 0; i < values; ++i) {
      const Slot& slot = in.slots[1 + i];
      std::memcpy(to + i * sizeof(T), row<char>(warp, slot) + size_t{lane} * slot.bytes, sizeof(T));
    }
    if (order.strong) release_at(warp, lane, in.space, address[lane], order.scope, order.release, false);
  }
}

// Param variables of functions: a frame per lane, addressed by constants only.
template <typename T, bool Load>
void run_frame(Warp& warp, const Instr& in) {
  const uint32_t frame_bytes = warp.launch->program->frame_bytes;
  const uint64_t offset = *row<uint64_t>(warp, in.slots[0]) + static_cast<uint64_t>(in.slots[0].add);
  for (uint32_t left = warp.active; left; left &= left - 1) {
    const uint32_t lane = static_cast<uint32_t>(std::countr_zero(left));
    char* frame = warp.frame.data() + size_t{lane} * frame_bytes + offset;
    for (uint32_t i = 1; i < in.slot_count; ++i) {
      const Slot& slot = in.slots[i];
      if (Load) {
        move_in<T>(warp, slot, lane, reinterpret_cast<uint8_t*>(frame) + (i - 1) * sizeof(T), in.b);
      } else {
        std::memcpy(frame + (i - 1) * sizeof(T), row<char>(warp, slot) + size_t{lane} * slot.bytes,
                    sizeof(T));
      }
    }
  }
}

void bind_access(Binder& b, bool load) {
  const MemoryModifiers modifiers = take_memory_modifiers(b);
  const uint32_t vector = b.has("v2") ? 2 : b.has("v4") ? 4 : b.has("v8") ? 8 : 1;
  const Type type = b.type();
  const uint32_t bytes = type_bytes(type);
  if (bytes > 8 || type == Type::pred || vector * bytes > 32) b.fail("type");
  Operand address = b.operand(load ? 1 : 0), values = b.operand(load ? 0 : 1);
  if (modifiers.cache_hint ? b.count() != 3 : b.count() != 2) b.fail("number of operands");
  b.instr.space = modifiers.space;
  b.instr.type = type;
  b.instr.a = static_cast<uint8_t>(bytes);
  b.instr.b = type_class(type) == 's';
  store_order(b.instr, modifiers.order);
  b.address(address);
  if ((values.kind == Operand::vector ? values.elements.size() : 1) != vector) b.fail("length of the vector");
  const auto value = [&](const Operand& operand) {
    load ? b.dest(operand, bytes, false) : b.source(operand, bytes, type_class(type) == 'f', false);
  };
  if (values.kind == Operand::vector) {
    for (const Operand& element : values.elements) value(element);
  } else {
    value(values);
  }
  if (modifiers.space == Space::param && address.index < 0) {
    const Place place = b.place(address.name);
    if (place.frame) {
      if (address.offset < 0 || static_cast<uint64_t>(address.offset) + bytes * vector > place.bytes)
        b.fail("offset in a param variable");
      b.instr.run = load ? (bytes == 1   ? run_frame<uint8_t, true>
                            : bytes == 2 ? run_frame<uint16_t, true>
                            : bytes == 4 ? run_frame<uint32_t, true>
                                         : run_frame<uint64_t, true>)
                         : (bytes == 1   ? run_frame<uint8_t, false>
                            : bytes == 2 ? run_frame<uint16_t, false>
                            : bytes == 4 ? run_frame<uint32_t, false>
                                         : run_frame<uint64_t, false>);
      return;
    }
  }
  if (!load && (modifiers.space == Space::param || modifiers.space == Space::constant))
    b.fail("store to this space");
  b.instr.run = load ? (bytes == 1   ? run_load<uint8_t>
                        : bytes == 2 ? run_load<uint16_t>
                        : bytes == 4 ? run_load<uint32_t>
                                     : run_load<uint64_t>)
                     : (bytes == 1   ? run_store<uint8_t>
                        : bytes == 2 ? run_store<uint16_t>
                        : bytes == 4 ? run_store<uint32_t>
                                     : run_store<uint64_t>);
}

template <typename T>
T op_mov(T x) {
  return x;
}

void run_mov_predicate(Warp& warp, const Instr& in) {
  set_predicate(warp, in.slots[0], predicate(warp, in.slots[1]));
}

// Instr: a = bytes of an element. Slots: whole, elements.
void run_unpack(Warp& warp, const Instr& in) {
  const char* whole = row<char>(warp, in.slots[0]);
  const uint32_t bytes = in.a, all = bytes * (in.slot_count - 1);
  for (uint32_t i = 1; i < in.slot_count; ++i) {
    char* part = row<char>(warp, in.slots[i]);
    each_lane(warp.active, [&](uint32_t lane) {
      std::memcpy(part + lane * bytes, whole + lane * all + (i - 1) * bytes, bytes);
    });
  }
}
void run_pack(Warp& warp, const Instr& in) {
  char* whole = row<char>(warp, in.slots[0]);
  const uint32_t bytes = in.a, all = bytes * (in.slot_count - 1);
  for (uint32_t i = 1; i < in.slot_count; ++i) {
    const char* part = row<char>(warp, in.slots[i]);
    each_lane(warp.active, [&](uint32_t lane) {
      std::memcpy(whole + lane * all + (i - 1) * bytes, part + lane * bytes, bytes);
    });
  }
}

void run_clock(Warp& warp, const Instr& in) {
  char* d = row<char>(warp, in.slots[0]);
  each_lane(warp.active, [&](uint32_t lane) {
    std::memcpy(d + lane * in.slots[0].bytes, &warp.launch->clock, in.slots[0].bytes);
  });
}

template <bool ToGeneric>
void run_cvta(Warp& warp, const Instr& in) {
  const uint64_t window = in.space == Space::shared  ? kSharedWindow
                          : in.space == Space::local ? kLocalWindow
                          : in.space == Space::param ? kParamWindow
                                                     : 0;
  const Slot& source = in.slots[1];
  uint64_t* d = row<uint64_t>(warp, in.slots[0]);
  const uint64_t* s = row<uint64_t>(warp, source);
  each_lane(warp.active, [&](uint32_t lane) { d[lane] = ToGeneric ? s[lane] + window : s[lane] - window; });
}

void run_isspacep(Warp& warp, const Instr& in) {
  const uint64_t* s = row<uint64_t>(warp, in.slots[1]);
  uint32_t mask = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const uint64_t at = s[lane];
    const Space space = at - kSharedWindow < kWindowBytes  ? Space::shared
                        : at - kLocalWindow < kWindowBytes ? Space::local
                        : at - kParamWindow < kWindowBytes ? Space::param
                                                           : Space::global;
    mask |= uint32_t{space == in.space ||
                     (in.space == Space::constant && space == Space::global &&
                      warp.launch->memory->find(at) && warp.launch->memory->find(at)->is_const)}
            << lane;
  }
  set_predicate(warp, in.slots[0], mask);
}

}  // namespace

void bind_ld(Binder& b) { bind_access(b, true); }
void bind_st(Binder& b) { bind_access(b, false); }

void bind_mov(Binder& b) {
  const Type type = b.type();
  const Operand& d = b.operand(0);
  const Operand& s = b.operand(1);
  if (b.count() != 2) b.fail("number of operands");
  if (type == Type::pred) {
    b.dest_predicate(d);
    b.source_predicate(s);
    b.instr.run = run_mov_predicate;
    return;
  }
  const uint32_t bytes = type_bytes(type);
  const bool unpack = d.kind == Operand::vector;
  if (unpack || s.kind == Operand::vector) {
    const Operand& parts = unpack ? d : s;
    const uint32_t part = bytes / static_cast<uint32_t>(parts.elements.size());
    b.instr.a = static_cast<uint8_t>(part);
    unpack ? b.source(s, bytes) : b.dest(d, bytes);
    for (const Operand& element : parts.elements) unpack ? b.dest(element, part) : b.source(element, part);
    b.instr.run = unpack ? run_unpack : run_pack;
    return;
  }
  if (s.kind == Operand::special && (s.name == "%clock" || s.name == "%clock64" || s.name == "%globaltimer" ||
                                     s.name == "%clock_hi" || s.name == "%globaltimer_lo")) {
    b.dest(d, bytes);
    b.instr.run = run_clock;
    return;
  }
  switch (bytes) {
    case 1:
      return b.alu<op_mov<uint8_t>>();
    case 2:
      return b.alu<op_mov<uint16_t>>();
    case 4:
      return b.alu<op_mov<uint32_t>>();
    case 8:
      return b.alu<op_mov<uint64_t>>();
    default:
      b.fail("type");
  }
}

void bind_cvta(Binder& b) {
  const bool to_space = b.has("to");
  b.instr.space = take_space(b);
  if (b.type() != Type::u64) b.fail("type");
  b.dest(b.operand(0), 8);
  b.source(b.operand(1), 8);
  b.instr.run = to_space ? run_cvta<false> : run_cvta<true>;
}

void bind_isspacep(Binder& b) {
  b.instr.space = take_space(b);
  b.dest_predicate(b.operand(0));
  b.source(b.operand(1), 8);
  b.instr.run = run_isspacep;
}

}  // namespace bitloom::ptx
