// Binds one statement to a handler: takes its modifiers one by one, turns its operands into slots.
//
// A bind function (one per opcode, listed in ops.inc) that meets something it does not know calls fail();
// modifiers that nobody took count as unknown too. The instruction then becomes one that faults when
// executed.
#pragma once

#include <map>
#include <stdexcept>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "program.h"
#include "warp.h"

namespace bitloom::ptx {

struct Unsupported : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Where a variable lies. `frame`: a param variable of a function or body, in the frame of the lane.
struct Place {
  Space space;
  bool frame;
  uint64_t address;
  uint64_t bytes;
};

// One handler for a pure function of the lanes: apply<[](float a, float b) { return a + b; }>.
template <auto F, typename R, typename... A, size_t... I>
inline void apply_rows(Warp& warp, const Instr& in, R (*)(A...), std::index_sequence<I...>) {
  R* d = row<R>(warp, in.slots[0]);
  const auto body = [d](uint32_t lane, const A*... s) { d[lane] = F(s[lane]...); };
  each_lane(warp.active, [&, rows = std::tuple<const A*...>(row<const A>(warp, in.slots[I + 1])...)](
                             uint32_t lane) { body(lane, std::get<I>(rows)...); });
}
template <auto F, typename R, typename... A>
inline void apply_unpacked(Warp& warp, const Instr& in, R (*f)(A...)) {
  apply_rows<F>(warp, in, f, std::index_sequence_for<A...>{});
}
template <auto F>
void apply(Warp& warp, const Instr& in) {
  apply_unpacked<F>(warp, in, +F);
}

class Compiler;

class Binder {
 public:
  Binder(Compiler& compiler, const Function& function, const Statement& statement, Instr& instr)
      : instr(instr),
        statement(statement),
        compiler_(compiler),
        function_(function),
        taken_(statement.modifiers.size()) {}

  Instr& instr;
  const Statement& statement;

  // Modifiers.
  bool has(std::string_view name);  // takes it
  Type type();                      // takes the next modifier that is a type; fails if there is none
  Type type_or_none();
  std::string_view any();  // takes the next modifier, empty if none is left
  void finish() const;     // fails if a modifier is left
  [[noreturn]] void fail(const std::string& why) const { throw Unsupported(why); }

  // Operands. Sources may be registers of `bytes` bytes or constants; slots are appended in the order of
  // calls.
  size_t count() const { return statement.operands.size(); }
  const Operand& operand(size_t i) const;
  void dest(const Operand& operand, uint32_t bytes,
            bool exact = true);  // not exact: the register may be wider
  void source(const Operand& operand, uint32_t bytes, bool real = false, bool exact = true);
  void dest_predicate(const Operand& operand);
  void source_predicate(const Operand& operand);
  void address(const Operand& operand);  // slot of 4 or 8 bytes, or a constant; Slot::add is added
  void absent();                         // a slot with present = false
  Place place(std::string_view name) const;
  uint32_t constant_row(uint64_t bits, uint32_t bytes);
  uint32_t special_row(std::string_view name);
  uint32_t scratch_row();
  bool is_register(const Operand& operand, uint32_t bytes) const;
  bool is_predicate(const Operand& operand) const;
  uint64_t constant(const Operand& operand) const;  // of an integer operand; fails on others

  // d = F(a, b, ...) with operands 0, 1, 2, ... of the sizes of F's signature.
  template <auto F>
  void alu() {
    alu_of<F>(+F);
  }

 private:
  template <auto F, typename R, typename... A>
  void alu_of(R (*)(A...)) {
    if (count() != sizeof...(A) + 1) fail("number of operands");
    dest(operand(0), sizeof(R));
    size_t i = 1;
    (source(operand(i++), sizeof(A), std::is_floating_point_v<A>), ...);
    instr.run = apply<F>;
  }
  void append(const Slot& slot);

  Compiler& compiler_;
  const Function& function_;
  std::vector<bool> taken_;
};

// The list of opcodes.
#define BITLOOM_PTX_OP(opcode, bind) void bind(Binder& b);
#include "ops.inc"
#undef BITLOOM_PTX_OP

}  // namespace bitloom::ptx
