#include "mutants.h"

#include <algorithm>
#include <set>
#include <sstream>

namespace bitloom::cuda::testing {
namespace {

using ptx::Operand;
using ptx::Statement;

bool synchronizes(const Statement& s) {
  if (s.opcode == "bar" || s.opcode == "barrier" || s.opcode == "fence" || s.opcode == "membar") return true;
  if (s.opcode != "cp" || s.modifiers.size() < 2) return false;
  return s.modifiers[1] == "commit_group" || s.modifiers[1].substr(0, 4) == "wait";
}

bool has(const Statement& s, std::string_view modifier) {
  return std::find(s.modifiers.begin(), s.modifiers.end(), modifier) != s.modifiers.end();
}

bool is_of_integers(const Statement& s) {
  if (s.modifiers.empty()) return false;
  const std::string_view type = s.modifiers.back();
  return type[0] == 's' || type[0] == 'u' || type == "b16" || type == "b32" || type == "b64";
}

std::string replaced(const std::string& text, const std::string& from, const std::string& to) {
  std::string result = text;
  const size_t at = result.find(from);
  if (at == std::string::npos) return "";
  return result.replace(at, from.size(), to);
}

// The last operand, a constant, becomes another one.
std::string with_constant(const std::string& text, uint64_t value) {
  const size_t comma = text.rfind(',');
  return text.substr(0, comma) + ", " + std::to_string(static_cast<int64_t>(value)) + ";";
}

std::string bound_mutant(const Statement& s) {
  const std::string text(s.text);
  if (s.opcode == "setp" && is_of_integers(s)) {
    static const char* const kOther[][2] = {{".lt.", ".le."}, {".le.", ".lt."}, {".gt.", ".ge."},
                                            {".ge.", ".gt."}, {".eq.", ".ne."}, {".ne.", ".eq."}};
    for (const auto& [from, to] : kOther) {
      if (text.find(from) != std::string::npos) return replaced(text, from, to) + ";";
    }
  }
  if ((s.opcode == "min" || s.opcode == "max") && is_of_integers(s)) {
    const std::string type(s.modifiers.back()), first = text.substr(0, text.rfind(','));
    return "mov." + type + first.substr(first.find_first_of(" \t")) + ";";
  }
  return "";
}

std::string address_mutant(const Statement& s, bool bits_only) {
  if (s.operands.size() < 3 || !is_of_integers(s)) return "";
  const std::string text(s.text);
  const Operand& last = s.operands.back();
  const bool bits =
      s.opcode == "and" || s.opcode == "xor" || s.opcode == "or" || s.opcode == "shl" || s.opcode == "shr";
  if (!bits && bits_only) return "";
  if (last.kind != Operand::integer) {
    if (s.opcode != "xor") return "";
    const std::string first = text.substr(0, text.rfind(','));
    return "mov." + std::string(s.modifiers.back()) + first.substr(first.find_first_of(" \t")) + ";";
  }
  const uint64_t value = last.bits, lowest = value & -value;
  if (s.opcode == "shl" || s.opcode == "shr") return with_constant(text, value + 1);
  if (s.opcode == "and" || s.opcode == "xor" || s.opcode == "or")
    return value == 0 ? "" : with_constant(text, value ^ lowest);
  if (s.opcode == "add" || s.opcode == "sub" || s.opcode == "mul" || s.opcode == "div" || s.opcode == "rem")
    return with_constant(text, value + std::max<uint64_t>(lowest, 1));
  return "";
}

// Signed divisions by a power of two round towards zero by `shr.s32 sign, x, 31; shr.u32 rest, sign, 32 -
// log2; add x, rest` (by two: `shr.u32 rest, x, 31`), which adds something to negative x alone. What is
// divided so are numbers of threads, tiles, rows and units, which are never negative: `sign` and `rest` are
// 0, and 0 shifted otherwise is 0. No mutants are made of the two shifts.
class Signs {
 public:
  explicit Signs(const ptx::Function& function) {
    for (const Statement& s : function.body) {
      if (is_sign(s)) signs_.insert(s.operands[0].index);
    }
  }
  bool rounds(const Statement& s) const {
    return is_sign(s) || (s.opcode == "shr" && s.operands.size() == 3 && s.operands[1].kind == Operand::reg &&
                          signs_.count(s.operands[1].index) != 0);
  }

 private:
  static bool is_sign(const Statement& s) {
    return s.opcode == "shr" && s.operands.size() == 3 && s.operands[2].kind == Operand::integer &&
           !s.modifiers.empty() && s.operands[2].bits == (s.modifiers.back().substr(1) == "32" ? 31 : 63);
  }
  std::set<int32_t> signs_;
};

// Registers that the addresses of memory of one kind are made of.
class Slice {
 public:
  Slice(const ptx::Function& function, bool shared) : function_(function) {
    for (const Statement& s : function.body) {
      if (s.opcode == "cp" && has(s, "async") && s.operands.size() >= 2) {
        add(s.operands[shared ? 0 : 1]);
        continue;
      }
      const bool memory = s.opcode == "ld" || s.opcode == "st" || s.opcode == "atom" || s.opcode == "red" ||
                          s.opcode == "ldmatrix";
      if (!memory || !has(s, shared ? "shared" : "global")) continue;
      for (const Operand& operand : s.operands) {
        if (operand.kind == Operand::address) add(operand);
      }
    }
    for (bool again = true; again;) {
      const size_t before = registers_.size();
      for (const Statement& s : function.body) {
        if (!makes(s) || s.opcode == "ld" || s.opcode == "atom" || s.opcode == "shfl") continue;
        for (size_t i = 1; i < s.operands.size(); ++i) add(s.operands[i]);
      }
      again = registers_.size() != before;
    }
  }
  // Whether an instruction makes one of them.
  bool makes(const Statement& s) const {
    if (s.operands.empty() || s.opcode == "st" || s.opcode == "cp" || s.opcode == "red") return false;
    const Operand& to = s.operands[0];
    return to.kind == Operand::reg && registers_.count(to.index) != 0;
  }

 private:
  void add(const Operand& operand) {
    if ((operand.kind == Operand::reg || operand.kind == Operand::address) && operand.index >= 0 &&
        function_.registers[static_cast<size_t>(operand.index)] != ptx::Type::pred)
      registers_.insert(operand.index);
  }
  const ptx::Function& function_;
  std::set<int32_t> registers_;
};

}  // namespace

std::map<std::string, std::string> texts_of_kernels(const std::string& module_text) {
  // Pieces of the text between kernels, and kernels, in order.
  std::vector<std::pair<std::string, std::string>> pieces = {{"", ""}};
  // What debuggers read stands at the end, longer than most kernels.
  std::stringstream lines(module_text.substr(0, module_text.find("\n\t.section") + 1));
  for (std::string line; std::getline(lines, line);) {
    const size_t at = line.find(".entry ");
    if (pieces.back().first.empty() && at != std::string::npos)
      pieces.emplace_back(line.substr(at + 7, line.find_first_of("( ", at + 7) - at - 7), "");
    pieces.back().second += line + "\n";
    if (!pieces.back().first.empty() && line == "}") pieces.emplace_back("", "");
  }
  std::map<std::string, std::string> texts;
  for (const auto& [kernel, own] : pieces) {
    if (kernel.empty()) continue;
    for (const auto& [other, text] : pieces) {
      if (other.empty() || other == kernel) texts[kernel] += text;
    }
  }
  return texts;
}

std::vector<Mutant> mutants_of(const std::string& text, const std::string& kernel) {
  const auto module = ptx::Module::parse(text);
  std::vector<Mutant> all;
  for (const auto& [name, function] : module->functions) {
    if (!function.has_body || (function.is_entry && name != kernel)) continue;
    const Slice shared(function, true), global(function, false);
    const Signs signs(function);
    for (const Statement& s : function.body) {
      const auto file = module->files.find(s.file);
      const std::string path = file == module->files.end() ? "" : file->second;
      const auto make = [&](MutantKind kind, const std::string& now) {
        all.push_back({kind, s.ptx_line, now, std::string(s.text), path.substr(path.rfind('/') + 1), s.line});
      };
      if (synchronizes(s)) {
        make(MutantKind::synchronization, "");
        continue;
      }
      if (s.guard >= 0 || signs.rounds(s)) continue;
      std::string now = bound_mutant(s);
      if (!now.empty()) {
        make(MutantKind::bound, now);
      } else if (shared.makes(s) && !(now = address_mutant(s, true)).empty()) {
        make(MutantKind::shared_address, now);
      } else if (global.makes(s) && !(now = address_mutant(s, false)).empty()) {
        make(MutantKind::global_address, now);
      }
    }
  }
  return all;
}

std::string mutated(const std::string& text, const Mutant& mutant) {
  size_t at = 0;
  for (int32_t line = 1; line < mutant.line; ++line) at = text.find('\n', at) + 1;
  const size_t end = text.find('\n', at);
  return text.substr(0, at) + "\t" + mutant.now + text.substr(end);
}

}  // namespace bitloom::cuda::testing
