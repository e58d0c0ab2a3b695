#include "coverage.h"

#include <cstdio>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <vector>

#include "test/ptx/interpreter/program.h"
#include "test_queue.h"

namespace bitloom::cuda::testing {
namespace {

struct Unreachable {
  const char *kernels, *file, *source, *reason;
};
constexpr Unreachable kUnreachable[] = {
#define BL_UNREACHABLE(kernels, file, source, reason) {kernels, file, source, reason},
#include "unreachable.inc"
#undef BL_UNREACHABLE
    {"", "no file", "", ""},
};

// An instruction, kept beyond its program.
struct Place {
  std::string text;          // as described
  std::string file, source;  // of the innermost line; empty: none
  size_t block = 0;
};
struct Kernel {
  std::vector<bool> executed;
  std::vector<Place> places;
  std::vector<std::set<size_t>> before;  // blocks that lead to a block
  std::set<size_t> entries;              // blocks that functions begin with
};
std::map<std::string, std::map<std::string, Kernel>>& kernels() {
  static std::map<std::string, std::map<std::string, Kernel>> all;
  return all;
}

size_t& executed_count() {
  static size_t count = 0;
  return count;
}

bool ends_block(const ptx::Instr& instr) {
  return instr.flow == ptx::Flow::branch || instr.flow == ptx::Flow::branch_table ||
         instr.flow == ptx::Flow::ret || instr.flow == ptx::Flow::exit;
}
bool goes_on(const ptx::Instr& instr) { return !ends_block(instr) || instr.guard != ~0u; }

// Instructions that `pc` jumps to.
std::vector<size_t> targets_of(const ptx::Program& program, size_t pc, size_t function_begin) {
  const ptx::Instr& instr = program.code[pc];
  if (instr.flow == ptx::Flow::branch || instr.flow == ptx::Flow::call) return {instr.target};
  std::vector<size_t> targets;
  if (instr.flow != ptx::Flow::branch_table) return targets;
  for (const ptx::Operand& label : program.info[function_begin + instr.target].statement->operands)
    targets.push_back(function_begin + static_cast<size_t>(label.index));
  return targets;
}

void find_blocks(const ptx::Program& program, Kernel& kernel) {
  const size_t count = program.code.size();
  std::vector<bool> begins(count + 1);
  std::vector<std::vector<size_t>> targets(count);
  const auto is_first = [&](size_t pc) {
    return pc == 0 || program.info[pc].function != program.info[pc - 1].function;
  };
  for (size_t pc = 0, function_begin = 0; pc < count; ++pc) {
    if (is_first(pc)) function_begin = pc, begins[pc] = true;
    targets[pc] = targets_of(program, pc, function_begin);
    for (size_t target : targets[pc]) begins[target] = true;
    if (ends_block(program.code[pc])) begins[pc + 1] = true;
  }
  size_t block = 0;
  for (size_t pc = 0; pc < count; ++pc) {
    block += pc > 0 && begins[pc] ? 1 : 0;
    kernel.places[pc].block = block;
  }
  kernel.before.resize(block + 1);
  for (size_t pc = 0; pc < count; ++pc) {
    const size_t from = kernel.places[pc].block;
    if (is_first(pc)) kernel.entries.insert(from);
    for (size_t target : targets[pc]) kernel.before[kernel.places[target].block].insert(from);
    if (pc + 1 < count && begins[pc + 1] && goes_on(program.code[pc]) && !is_first(pc + 1))
      kernel.before[kernel.places[pc + 1].block].insert(from);
  }
}

void describe(const std::string& module, const ptx::Program& program, Kernel& kernel) {
  for (uint32_t pc = 0; pc < program.code.size(); ++pc) {
    const ptx::Statement& statement = *program.info[pc].statement;
    Place place;
    place.text = program.describe(pc);
    const auto file = program.module->files.find(statement.file);
    if (file != program.module->files.end()) {
      place.file = file->second.substr(file->second.rfind('/') + 1);
      place.source = source_line(module, place.file, statement.line);
    }
    kernel.places.push_back(place);
  }
  find_blocks(program, kernel);
}

// is_alone: the block has no other instruction.
bool matches(const Unreachable& row, const std::string& kernel, const Place& place, bool is_alone) {
  if (place.file != row.file || !is_one_of(kernel, row.kernels)) return false;
  if (*row.source == '\0') return place.source.empty();
  const std::string source = row.source;
  // Many a block ends with a jump: of that a row excuses no more than blocks that are one.
  if (source == "bra.uni" && !is_alone) return false;
  return place.source.find(source) != std::string::npos || place.text.find("`" + source) != std::string::npos;
}

// Blocks that the list excuses; used: its rows that did.
std::vector<bool> excused_blocks(const std::string& name, const Kernel& kernel, std::set<size_t>& used) {
  std::vector<bool> excused(kernel.before.size()), executed(kernel.before.size());
  std::vector<size_t> sizes(kernel.before.size());
  for (const Place& place : kernel.places) ++sizes[place.block];
  for (size_t pc = 0; pc < kernel.places.size(); ++pc) {
    const Place& place = kernel.places[pc];
    if (kernel.executed[pc]) {
      executed[place.block] = true;
      continue;
    }
    for (size_t row = 0; row < std::size(kUnreachable); ++row) {
      if (!matches(kUnreachable[row], name, place, sizes[place.block] == 1)) continue;
      excused[place.block] = true;
      used.insert(row);
    }
  }
  for (bool again = true; again;) {
    again = false;
    for (size_t block = 0; block < excused.size(); ++block) {
      if (excused[block] || executed[block] || kernel.entries.count(block)) continue;
      bool all = true;
      for (size_t from : kernel.before[block]) all = all && (excused[from] || from == block);
      if (all) excused[block] = again = true;
    }
  }
  return excused;
}

}  // namespace

const std::string& source_line(const std::string& module, const std::string& file, int32_t number) {
  static std::map<std::string, std::vector<std::string>> files;
  static const std::string none;
  auto at = files.find(module + "/" + file);
  if (at == files.end()) {
    at = files.emplace(module + "/" + file, std::vector<std::string>{}).first;
    // Of modules <family> and <family>_<kind>.
    const std::string family = module.substr(0, module.find('_'));
    for (const std::string& folder : {"ops/" + family, std::string("tile"), std::string("ptx")}) {
      std::ifstream stream(BITLOOM_CUDA_SOURCES "/" + folder + "/" + file);
      if (!stream) continue;
      for (std::string line; std::getline(stream, line);) at->second.push_back(line);
      break;
    }
  }
  const bool there = number > 0 && static_cast<size_t>(number) <= at->second.size();
  return there ? at->second[static_cast<size_t>(number) - 1] : none;
}

bool is_one_of(const std::string& kernel, const std::string& names) {
  std::stringstream list(names);
  for (std::string name; list >> name;) {
    const size_t star = name.find('*');
    if (name == kernel) return true;
    if (star == std::string::npos || kernel.size() + 1 < name.size()) continue;
    const size_t behind = name.size() - star - 1;
    if (kernel.compare(0, star, name, 0, star) == 0 &&
        kernel.compare(kernel.size() - behind, behind, name, star + 1, behind) == 0)
      return true;
  }
  return false;
}

void remember_executed(const std::string& image, const std::string& name, const ptx::Counters& counters) {
  Kernel& kernel = kernels()[image][name];
  if (kernel.places.empty()) {
    kernel.executed.assign(counters.counts.size(), false);
    describe(image.substr(0, image.find('.')), *counters.program, kernel);
  }
  std::vector<bool> now(counters.counts.size(), true);
  for (uint32_t pc : counters.never_executed()) now[pc] = false;
  for (size_t pc = 0; pc < now.size(); ++pc) {
    if (!now[pc] || kernel.executed[pc]) continue;
    kernel.executed[pc] = true;
    ++executed_count();
  }
}

size_t instructions_executed() { return executed_count(); }

size_t print_unexecuted() {
  size_t instructions = 0, unexpected = 0, excuses = 0, unreached = 0;
  std::set<size_t> used;
  for (const auto& [image, launched] : kernels()) {
    for (const auto& [name, kernel] : launched) {
      const std::vector<bool> excused = excused_blocks(name, kernel, used);
      instructions += kernel.places.size();
      for (size_t pc = 0; pc < kernel.places.size(); ++pc) {
        if (kernel.executed[pc]) continue;
        if (excused[kernel.places[pc].block]) {
          ++excuses;
          continue;
        }
        ++unreached;
        std::printf("never executed: %s: %s\n", image.c_str(), kernel.places[pc].text.c_str());
      }
    }
    for (const std::string& name : kernels_of_image(image)) {
      if (launched.count(name)) continue;
      ++unexpected;
      std::printf("never launched: %s: %s\n", image.c_str(), name.c_str());
    }
  }
  // Other architectures' code has blocks of its own.
  for (size_t row = 0; row + 1 < std::size(kUnreachable) && first_arch() == 80; ++row) {
    if (used.count(row)) continue;
    ++unexpected;
    std::printf("unreachable.inc: a row excuses nothing: %s, %s, `%s`\n", kUnreachable[row].kernels,
                kUnreachable[row].file, kUnreachable[row].source);
  }
  std::printf("%zu instructions, %zu of them unreachable, %zu not reached\n", instructions, excuses,
              unreached);
  return unexpected + unreached;
}

}  // namespace bitloom::cuda::testing
