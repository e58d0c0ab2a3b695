#include "binder.h"

#include <cstring>

#include "compiler.h"

namespace bitloom::ptx {

bool Binder::has(std::string_view name) {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (taken_[i] || statement.modifiers[i] != name) continue;
    taken_[i] = true;
    return true;
  }
  return false;
}

Type Binder::type_or_none() {
  for (size_t i = 0; i < taken_.size(); ++i) {
    const Type type = type_named(statement.modifiers[i]);
    if (taken_[i] || type == Type::none) continue;
    taken_[i] = true;
    return type;
  }
  return Type::none;
}

Type Binder::type() {
  const Type found = type_or_none();
  if (found == Type::none) fail("no type");
  return found;
}

std::string_view Binder::any() {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (taken_[i]) continue;
    taken_[i] = true;
    return statement.modifiers[i];
  }
  return {};
}

void Binder::finish() const {
  for (size_t i = 0; i < taken_.size(); ++i) {
    if (!taken_[i]) fail("modifier ." + std::string(statement.modifiers[i]));
  }
  if (!instr.run && instr.flow == Flow::plain) fail("no handler");
}

const Operand& Binder::operand(size_t i) const {
  if (i >= count()) fail("number of operands");
  return statement.operands[i];
}

void Binder::append(const Slot& slot) {
  compiler_.program_->slots.push_back(slot);
  ++instr.slot_count;
}

bool Binder::is_register(const Operand& operand, uint32_t bytes) const {
  return operand.kind == Operand::reg &&
         type_bytes(function_.registers[static_cast<size_t>(operand.index)]) == bytes;
}

bool Binder::is_predicate(const Operand& operand) const {
  return operand.kind == Operand::reg &&
         function_.registers[static_cast<size_t>(operand.index)] == Type::pred;
}

void Binder::dest(const Operand& operand, uint32_t bytes, bool exact) {
  Slot slot;
  if (operand.kind == Operand::sink) {
    slot.offset = scratch_row();
    slot.bytes = static_cast<uint8_t>(bytes);
    return append(slot);
  }
  if (operand.kind != Operand::reg) fail("destination that is no register");
  const Type type = function_.registers[static_cast<size_t>(operand.index)];
  const uint32_t wide = type_bytes(type);
  if (type == Type::pred || (exact ? wide != bytes : wide < bytes)) fail("width of the destination");
  slot.offset = compiler_.layouts_[&function_].registers[static_cast<size_t>(operand.index)];
  slot.bytes = static_cast<uint8_t>(wide);
  append(slot);
}

void Binder::source(const Operand& operand, uint32_t bytes, bool real, bool exact) {
  Slot slot;
  slot.bytes = static_cast<uint8_t>(bytes);
  if (operand.kind == Operand::reg) {
    const Type type = function_.registers[static_cast<size_t>(operand.index)];
    const uint32_t wide = type_bytes(type);
    if (type == Type::pred || (exact ? wide != bytes : wide < bytes)) fail("width of a source");
    slot.offset = compiler_.layouts_[&function_].registers[static_cast<size_t>(operand.index)];
    slot.bytes = static_cast<uint8_t>(wide);
    return append(slot);
  }
  if (operand.kind == Operand::special) {
    if (bytes != (operand.name == "%gridid" ? 8u : 4u)) fail("width of a special register");
    slot.offset = special_row(operand.name);
    return append(slot);
  }
  uint64_t bits = operand.bits;
  if (operand.kind == Operand::symbol) {
    bits = place(operand.name).address + static_cast<uint64_t>(operand.offset);
  } else if (operand.kind == Operand::real64 && bytes == 4) {
    double wide;
    std::memcpy(&wide, &bits, 8);
    const float narrow = static_cast<float>(wide);
    bits = 0;
    std::memcpy(&bits, &narrow, 4);
  } else if (operand.kind == Operand::real32 && bytes == 8 && real) {
    float narrow;
    std::memcpy(&narrow, &bits, 4);
    const double wide = narrow;
    std::memcpy(&bits, &wide, 8);
  } else if (operand.kind == Operand::integer && real) {
    const double wide = static_cast<double>(static_cast<int64_t>(bits));
    const float narrow = static_cast<float>(wide);
    bits = 0;
    bytes == 8 ? std::memcpy(&bits, &wide, 8) : std::memcpy(&bits, &narrow, 4);
  } else if (operand.kind != Operand::integer && operand.kind != Operand::real32 &&
             operand.kind != Operand::real64) {
    fail("kind of a source");
  }
  slot.base = 1;
  slot.offset = constant_row(bits, bytes);
  append(slot);
}

void Binder::dest_predicate(const Operand& operand) {
  Slot slot;
  slot.bytes = 4;
  slot.present = operand.kind != Operand::sink;
  if (slot.present) {
    if (operand.kind != Operand::reg ||
        function_.registers[static_cast<size_t>(operand.index)] != Type::pred) {
      fail("destination that is no predicate");
    }
    slot.offset = compiler_.layouts_[&function_].registers[static_cast<size_t>(operand.index)];
  } else {
    slot.offset = scratch_row();
  }
  append(slot);
}

void Binder::source_predicate(const Operand& operand) {
  Slot slot;
  slot.bytes = 4;
  slot.negated = operand.negated;
  if (operand.kind == Operand::integer) {
    slot.base = 1;
    slot.offset = constant_row(operand.bits ? ~0u : 0u, 4);
    return append(slot);
  }
  if (operand.kind != Operand::reg || function_.registers[static_cast<size_t>(operand.index)] != Type::pred) {
    fail("source that is no predicate");
  }
  slot.offset = compiler_.layouts_[&function_].registers[static_cast<size_t>(operand.index)];
  append(slot);
}

void Binder::address(const Operand& operand) {
  if (operand.kind != Operand::address) fail("operand that is no address");
  Slot slot;
  slot.add = operand.offset;
  if (operand.index >= 0) {
    const uint32_t bytes = type_bytes(function_.registers[static_cast<size_t>(operand.index)]);
    if (bytes != 4 && bytes != 8) fail("width of an address");
    slot.offset = compiler_.layouts_[&function_].registers[static_cast<size_t>(operand.index)];
    slot.bytes = static_cast<uint8_t>(bytes);
  } else {
    const uint64_t base = operand.name.empty() ? 0 : place(operand.name).address;
    slot.base = 1;
    slot.bytes = 8;
    slot.offset = constant_row(base, 8);
  }
  append(slot);
}

void Binder::absent() {
  Slot slot;
  slot.present = false;
  append(slot);
}

Place Binder::place(std::string_view name) const {
  const std::string key(name);
  const auto& own = compiler_.layouts_[&function_].places;
  const auto local = own.find(key);
  if (local != own.end()) return local->second;
  const auto global = compiler_.module_places_.find(key);
  if (global == compiler_.module_places_.end()) fail("unknown name " + key);
  return global->second;
}

uint32_t Binder::constant_row(uint64_t bits, uint32_t bytes) {
  if (bytes < 8) bits &= (1ull << (8 * bytes)) - 1;
  const auto [place, is_new] = compiler_.constants_.try_emplace({bits, bytes}, 0);
  if (is_new) {
    std::vector<uint8_t>& rows = compiler_.program_->constants;
    place->second = static_cast<uint32_t>(rows.size());
    rows.resize(rows.size() + (size_t{bytes} * 32 + 63) / 64 * 64);
    for (uint32_t lane = 0; lane < 32; ++lane)
      std::memcpy(rows.data() + place->second + lane * bytes, &bits, bytes);
  }
  return place->second;
}

uint32_t Binder::special_row(std::string_view name) {
  static const char* const names[] = {
      "%tid.x",          "%tid.y",       "%tid.z",       "%ntid.x",      "%ntid.y",      "%ntid.z",
      "%ctaid.x",        "%ctaid.y",     "%ctaid.z",     "%nctaid.x",    "%nctaid.y",    "%nctaid.z",
      "%laneid",         "%warpid",      "%nwarpid",     "%smid",        "%nsmid",       "%gridid",
      "%lanemask_eq",    "%lanemask_lt", "%lanemask_le", "%lanemask_gt", "%lanemask_ge", "%dynamic_smem_size",
      "%total_smem_size"};
  bool known = false;
  for (const char* candidate : names) known = known || name == candidate;
  if (!known) fail("special register " + std::string(name));
  const auto [place, is_new] = compiler_.specials_.try_emplace(std::string(name), 0);
  if (is_new) {
    place->second = compiler_.new_row(8);
    compiler_.program_->specials.push_back({std::string(name), place->second});
  }
  return place->second;
}

uint32_t Binder::scratch_row() {
  if (compiler_.scratch_ == ~0u) compiler_.scratch_ = compiler_.new_row(16);
  return compiler_.scratch_;
}

uint64_t Binder::constant(const Operand& operand) const {
  if (operand.kind != Operand::integer) fail("operand that is no integer constant");
  return operand.bits;
}

}  // namespace bitloom::ptx
