#include "harness.h"

#include <cstdio>
#include <cstring>
#include <fstream>
#include <sstream>

namespace bitloom::ptx::testing {
namespace {

int passed = 0, failed = 0;
std::set<std::string>& tested() {
  static std::set<std::string> opcodes;
  return opcodes;
}

// The first words of the statements of a body.
void remember_text(const std::string& body) {
  std::string statement;
  const auto finish_statement = [&] {
    std::istringstream words(statement);
    std::string word;
    while (words >> word && (word[0] == '@' || word.back() == ':')) {
    }
    if (word[0] == '.') word = word.substr(1);  // .branchtargets
    tested().insert(word.substr(0, word.find('.')));
    statement.clear();
  };
  int braces = 0;
  for (char c : body) {
    if (c == ';') {
      finish_statement();
      braces = 0;
    } else if (c == '{' && statement.find_first_not_of(" \n\t") == std::string::npos) {
      continue;
    } else {
      braces += c == '{' ? 1 : c == '}' ? -1 : 0;
      if (braces < 0) {
        braces = 0;
        continue;
      }
      statement += c;
    }
  }
}

const char* register_type(uint32_t bytes) { return bytes <= 2 ? ".b16" : bytes == 4 ? ".b32" : ".b64"; }

}  // namespace

void check(bool condition, const std::string& what) {
  if (condition) {
    ++passed;
    return;
  }
  ++failed;
  if (failed < 60) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

void check_fault(FaultKind kind, const std::vector<std::string>& parts, const std::string& what,
                 const std::function<void()>& body) {
  try {
    body();
    check(false, what + ": no fault");
  } catch (const Fault& fault) {
    check(fault.kind == kind, what + ": another fault: " + fault.what());
    if (fault.kind != kind) return;
    for (const std::string& part : parts) {
      check(std::string(fault.what()).find(part) != std::string::npos,
            what + ": no '" + part + "' in: " + fault.what());
    }
  }
}

int finish() {
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}

std::string module_text(const std::string& body, const std::string& globals, const std::string& target) {
  return ".version 9.0\n.target " + target + "\n.address_size 64\n" + globals +
         "\n.extern .shared .align 16 .b8 dynamic[];\n"
         ".visible .entry k(.param .u64 k_param_0, .param .u64 k_param_1)\n{\n"
         ".reg .pred %p<10>; .reg .b16 %h<20>; .reg .b32 %r<40>; .reg .f32 %f<20>; .reg .b64 %d<20>; .reg "
         ".f64 %e<8>;\n"
         ".reg .b64 %in, %out; .reg .b32 %t;\n"
         "ld.param.u64 %in, [k_param_0];\nld.param.u64 %out, [k_param_1];\nmov.u32 %t, %tid.x;\n" +
         body + "\nret;\n}\n";
}

std::vector<Values> run_rows(const std::string& instruction, const std::vector<Column>& results,
                             const std::vector<Column>& sources, const std::vector<Values>& inputs) {
  remember_text(instruction + ";");
  std::string declarations, loads, stores, text = instruction;
  const auto name = [](size_t i) { return "%v" + std::to_string(i) + "_"; };
  const size_t columns = results.size() + sources.size();
  for (size_t i = 0; i < columns; ++i) {
    const Column& column = i < results.size() ? results[i] : sources[i - results.size()];
    declarations += std::string(".reg ") + (column.predicate ? ".pred" : register_type(column.bytes)) + " " +
                    name(i) + ";\n";
    const std::string bits = std::to_string(8 * column.bytes);
    if (i >= results.size()) {
      const std::string at = "[%din+" + std::to_string(8 * (i - results.size())) + "]";
      loads += column.predicate ? "ld.global.u32 %rr, " + at + "; setp.ne.u32 " + name(i) + ", %rr, 0;\n"
                                : "ld.global.b" + bits + " " + name(i) + ", " + at + ";\n";
    } else {
      const std::string at = "[%dout+" + std::to_string(8 * i) + "]";
      stores += column.predicate ? "selp.u32 %rr, 1, 0, " + name(i) + "; st.global.u32 " + at + ", %rr;\n"
                                 : "st.global.b" + bits + " " + at + ", " + name(i) + ";\n";
    }
  }
  for (size_t at = text.find('$'); at != std::string::npos; at = text.find('$')) {
    text = text.substr(0, at) + name(static_cast<size_t>(text[at + 1] - '0')) + text.substr(at + 2);
  }
  const size_t rows = (inputs.size() + 31) / 32 * 32, width = std::max<size_t>(columns, 1);
  const std::string module =
      module_text(".reg .b64 %din, %dout; .reg .b32 %rr;\n" + declarations +
                  "mov.u32 %r0, %ctaid.x; mad.lo.u32 %r0, %r0, 32, %t; mul.wide.u32 %d0, %r0, " +
                  std::to_string(8 * width) + "; add.u64 %din, %in, %d0; add.u64 %dout, %out, %d0;\n" +
                  loads + text + ";\n" + stores);
  std::vector<uint64_t> in(rows * width, 0), out(rows * width, 0);
  for (size_t i = 0; i < rows; ++i) {
    const Values& row = inputs[i < inputs.size() ? i : 0];
    for (size_t j = 0; j < sources.size(); ++j) in[i * width + j] = row[j];
  }
  Machine machine;
  const LoadedModule& loaded = machine.load(Module::parse(module));
  const uint64_t bytes = rows * width * 8;
  const uint64_t in_at = machine.memory.allocate(bytes), out_at = machine.memory.allocate(bytes);
  machine.memory.write(in_at, in.data(), bytes);
  machine.memory.fill(out_at, 0, bytes);
  LaunchConfig config;
  config.grid[0] = static_cast<uint32_t>(rows / 32);
  config.block[0] = 32;
  config.shared_bytes = 4096;
  config.parameters = pack(in_at, out_at);
  machine.launch(loaded, "k", config);
  machine.memory.read(out.data(), out_at, bytes);
  std::vector<Values> values;
  for (size_t i = 0; i < inputs.size(); ++i) {
    values.emplace_back(out.begin() + static_cast<std::ptrdiff_t>(i * width),
                        out.begin() + static_cast<std::ptrdiff_t>(i * width + results.size()));
  }
  return values;
}

std::vector<std::string> untested_opcodes() {
  static const char* const all[] = {
#define BITLOOM_PTX_OP(opcode, bind) opcode,
#include "ops.inc"
#undef BITLOOM_PTX_OP
  };
  std::vector<std::string> missing;
  for (const char* opcode : all) {
    if (!tested().count(opcode)) missing.push_back(opcode);
  }
  return missing;
}

std::vector<uint32_t> run_words(const std::string& text, uint32_t grid, uint32_t block, uint32_t words_out,
                                const std::vector<uint32_t>& words_in, const Options& options,
                                uint32_t shared_bytes) {
  const size_t body = text.find("%tid.x;");
  remember_text(text.substr(body == std::string::npos ? 0 : body + 7));
  Machine machine;
  const LoadedModule& loaded = machine.load(Module::parse(text));
  const uint64_t in = machine.memory.allocate(std::max<size_t>(words_in.size(), 1) * 4);
  const uint64_t out = machine.memory.allocate(words_out * 4);
  machine.memory.write(in, words_in.data(), words_in.size() * 4);
  LaunchConfig config;
  config.grid[0] = grid;
  config.block[0] = block;
  config.shared_bytes = shared_bytes;
  config.parameters = pack(in, out);
  config.options = options;
  machine.launch(loaded, "k", config);
  std::vector<uint32_t> words(words_out);
  machine.memory.read(words.data(), out, words_out * 4);
  return words;
}

bool has_kernels() {
#ifdef BITLOOM_PTX_KERNELS
  return true;
#else
  return false;
#endif
}

const std::vector<std::string>& kernel_archs() {
  static const std::vector<std::string> archs = [] {
    std::vector<std::string> all;
#ifdef BITLOOM_PTX_TEST_ARCHS
    for (int arch : {BITLOOM_PTX_TEST_ARCHS}) all.push_back(std::to_string(arch));
#endif
    return all;
  }();
  return archs;
}

std::string kernel_text(const std::string& name, const std::string& arch) {
#ifdef BITLOOM_PTX_KERNELS
  std::ifstream file(std::string(BITLOOM_PTX_KERNELS) + "/" + name + ".compute_" + arch + ".ptx");
  std::stringstream text;
  text << file.rdbuf();
  if (text.str().empty()) throw std::runtime_error("no PTX of " + name + " for compute_" + arch);
  return text.str();
#else
  throw std::runtime_error("built without nvcc: no PTX of " + name + " for compute_" + arch);
#endif
}

}  // namespace bitloom::ptx::testing
