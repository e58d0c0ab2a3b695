// A kernel made ready to run: each instruction bound to a handler and to the places of its operands.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "module.h"

namespace bitloom::ptx {

struct Warp;
struct Instr;
using Handler = void (*)(Warp&, const Instr&);

// Where an operand lies: a row of 32 values of `bytes` bytes (a predicate: one word of 32 bits). `base` tells
// the registers of the warp (0) from the constants of the program (1). For an address, `add` is added to each
// value.
struct Slot {
  uint32_t offset = 0;
  uint8_t base = 0;
  uint8_t bytes = 0;
  bool negated = false;  // a predicate read as !p
  bool present = true;   // false: `_`, or an operand that was left out
  int64_t add = 0;
};

// What an instruction does to the flow of a warp; everything but `plain` is handled by the scheduler.
enum class Flow : uint8_t { plain, branch, branch_table, call, ret, exit, barrier, collective };

constexpr uint8_t kWholeWarp = 0xff;

struct Instr {
  Handler run = nullptr;
  const Slot* slots = nullptr;
  uint32_t first_slot = 0;  // in Program::slots, until the program is complete
  uint32_t slot_count = 0;
  uint32_t guard = ~0u;  // offset of the guard's row
  bool guard_negated = false;
  Flow flow = Flow::plain;
  uint8_t members = 0;  // collective: slot of the member mask, or kWholeWarp
  Space space = Space::generic;
  Type type = Type::none;
  uint8_t a = 0, b = 0, c = 0, d = 0;  // small facts that the binder leaves for the handler
  uint32_t target = 0;                 // branch, call: instruction; lop3: table
};

struct CallSite {  // of Flow::call; byte ranges of the frame (param variables of bodies and functions)
  struct Copy {
    uint32_t from, to, bytes;
  };
  std::vector<Copy> arguments, returns;
  uint32_t return_row = 0;  // offset of the callee's row of return addresses
};

struct InstrInfo {
  const Statement* statement;
  const Function* function;
};

struct Program {
  std::shared_ptr<const Module> module;
  const Function* kernel = nullptr;
  std::vector<Instr> code;
  std::vector<InstrInfo> info;  // one per instruction
  std::vector<Slot> slots;
  std::vector<uint8_t> constants;                          // rows
  std::vector<std::pair<std::string, uint32_t>> specials;  // %tid.x: offset of its row
  std::vector<CallSite> calls;
  uint32_t register_bytes = 0;
  uint32_t frame_bytes = 0;  // of .param variables per lane
  uint32_t local_bytes = 0;  // of .local variables per lane
  uint32_t static_shared = 0;
  uint32_t dynamic_shared_offset = 0;
  uint32_t parameter_bytes = 0;
  struct Parameter {
    uint32_t offset, bytes;
  };
  std::vector<Parameter> parameters;  // of the kernel, in order, in the packed block
  std::vector<std::string> unknown;   // texts of instructions without a handler

  // "kernel k, file.cu:12 (PTX line 40): text"
  std::string describe(uint32_t pc) const;
  // "file.cu:12 (PTX line 40)"
  std::string location(uint32_t pc) const;
};

// Addresses within the spaces. Shared memory does not start at zero and is 1 KiB aligned, so that swizzles
// that XOR whole addresses work and null is found. Generic addresses of the narrow spaces lie in windows of
// their own.
constexpr uint64_t kSharedBase = 0x400;
constexpr uint64_t kLocalBase = 0x100;
constexpr uint64_t kSharedWindow = 0x700000000000;
constexpr uint64_t kLocalWindow = 0x710000000000;
constexpr uint64_t kParamWindow = 0x720000000000;
constexpr uint64_t kWindowBytes = 0x100000000;

}  // namespace bitloom::ptx
