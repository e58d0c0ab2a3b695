// A PTX module as parsed: functions, variables and instructions by name, before anything has an address.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "fault.h"
#include "types.h"

namespace bitloom::ptx {

// A variable of any state space. `bytes` is zero for `extern .shared x[]`, whose size the launch gives.
struct Variable {
  std::string name;
  Space space = Space::global;
  Type type = Type::none;
  uint32_t align = 1;
  uint64_t bytes = 0;
  bool is_extern = false;
  std::vector<uint8_t> initial;  // empty: zeros (global, const) or unwritten (shared, local)
  struct Reference {             // an initializer that is the address of another variable
    uint64_t offset;
    std::string symbol;
    int64_t addend;
    bool generic;
  };
  std::vector<Reference> references;
};

struct Operand {
  enum Kind : uint8_t { reg, special, integer, real32, real64, symbol, label, address, vector, pair, sink };
  Kind kind = sink;
  bool negated = false;   // !p
  int32_t index = -1;     // reg: register of the function; label: instruction; address: base register or -1
  uint64_t bits = 0;      // integer (two's complement), real32 and real64 (IEEE bits)
  int64_t offset = 0;     // address, symbol: added bytes
  std::string_view name;  // symbol, special, label; address: symbol or empty
  std::vector<Operand> elements;  // vector {a, b}; pair d|p
};

struct Statement {
  std::string_view opcode;                  // "mad"
  std::vector<std::string_view> modifiers;  // "lo", "s32"
  int32_t guard = -1;                       // register of the predicate or -1
  bool guard_negated = false;
  std::vector<Operand> operands;
  // call only: operands hold returns, the function's symbol, arguments; `returns` of them come first.
  uint32_t returns = 0;
  std::string_view text;  // as written, for messages
  int32_t ptx_line = 0;   // 1-based
  // From .loc: where the instruction stands, and, for inlined code, the outermost call it came from.
  int32_t file = 0, line = 0;
  int32_t outer_file = 0, outer_line = 0;
};

struct Function {
  std::string name;
  bool is_entry = false;
  bool has_body = false;
  std::vector<Variable> returns, parameters;
  std::vector<Variable>
      variables;  // shared, local and param variables of the body, names made unique by scope
  std::vector<Type> registers;
  std::vector<Statement> body;
  uint32_t max_threads = 0;  // .maxntid product or 0
};

class Module {
 public:
  // Throws Fault(syntax) that names the line. The module keeps the text, which names point into.
  static std::shared_ptr<const Module> parse(std::string text);

  std::string text;
  std::string target;  // "sm_80"
  std::map<int32_t, std::string> files;
  std::vector<Variable> variables;  // global, const and module-level shared
  std::map<std::string, Function, std::less<>> functions;
  std::vector<std::unique_ptr<std::string>> made_names;  // storage of names that are not in the text
};

}  // namespace bitloom::ptx
