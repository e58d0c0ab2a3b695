#include "machine.h"

#include <algorithm>

#include "compiler.h"
#include "scheduler.h"

namespace bitloom::ptx {

std::string Program::location(uint32_t pc) const {
  const Statement& s = *info[pc].statement;
  const auto file_line = [&](int32_t file, int32_t line) {
    const auto name = module->files.find(file);
    return (name == module->files.end() ? "file " + std::to_string(file) : name->second) + ":" +
           std::to_string(line);
  };
  std::string text;
  if (s.file != 0) {
    text = file_line(s.file, s.line);
    if (s.outer_file != s.file || s.outer_line != s.line)
      text += " (inlined at " + file_line(s.outer_file, s.outer_line) + ")";
    text += ", ";
  }
  return text + "PTX line " + std::to_string(s.ptx_line);
}

std::string Program::describe(uint32_t pc) const {
  return "kernel " + kernel->name + ", " + location(pc) + ": `" + std::string(info[pc].statement->text) + "`";
}

std::string Launch::thread_name(ThreadId thread) const {
  const uint32_t warps = (block[0] * block[1] * block[2] + 31) / 32;
  const uint32_t bits = static_cast<uint32_t>(std::bit_width(warps - 1));
  const uint32_t number = thread / 32 >> bits, warp = thread / 32 & ((1u << bits) - 1);
  return "block (" + std::to_string(number % grid[0]) + "," + std::to_string(number / grid[0] % grid[1]) +
         "," + std::to_string(number / grid[0] / grid[1]) + ") warp " + std::to_string(warp) + " lane " +
         std::to_string(thread % 32);
}

void Launch::fail(FaultKind kind, const Warp& warp, int lane, const std::string& what) const {
  std::string who = thread_name(warp.first_thread + static_cast<uint32_t>(std::max(lane, 0)));
  if (lane < 0) who = who.substr(0, who.rfind(" lane"));
  throw Fault(kind, program->describe(warp.pc) + ": " + who + ": " + what);
}

const Program& LoadedModule::program(const std::string& kernel) const {
  std::unique_ptr<Program>& program = programs_[kernel];
  if (!program) program = Compiler::compile(module, kernel, addresses);
  return *program;
}

const LoadedModule& Machine::load(std::shared_ptr<const Module> module) {
  auto loaded = std::make_unique<LoadedModule>();
  loaded->module = module;
  for (const Variable& variable : module->variables) {
    if (variable.space != Space::global && variable.space != Space::constant) continue;
    if (variable.is_extern)
      throw Fault(FaultKind::bad_launch,
                  "variable " + variable.name + " is external: modules are not linked");
    loaded->addresses[variable.name] = memory.allocate(variable.bytes, variable.name, variable.align);
  }
  for (const Variable& variable : module->variables) {
    const auto at = loaded->addresses.find(variable.name);
    if (at == loaded->addresses.end()) continue;
    std::vector<uint8_t> initial = variable.initial;
    initial.resize(variable.bytes);  // what has no initializer is zero
    for (const Variable::Reference& reference : variable.references) {
      const auto target = loaded->addresses.find(reference.symbol);
      if (target == loaded->addresses.end())
        throw Fault(FaultKind::bad_launch,
                    "initializer of " + variable.name + ": unknown " + reference.symbol);
      const uint64_t address = target->second + static_cast<uint64_t>(reference.addend);
      std::memcpy(initial.data() + reference.offset, &address, 8);
    }
    memory.write(at->second, initial.data(), initial.size());
    memory.find(at->second)->is_const = variable.space == Space::constant;
  }
  modules_.push_back(std::move(loaded));
  return *modules_.back();
}

void Machine::unload(const LoadedModule& module) {
  for (const auto& [name, address] : module.addresses) memory.free(address);
  std::erase_if(modules_, [&](const auto& loaded) { return loaded.get() == &module; });
}

LaunchReport Machine::launch(const LoadedModule& module, const std::string& kernel,
                             const LaunchConfig& config) {
  const Program& program = module.program(kernel);
  const auto refuse = [&](const std::string& what) {
    throw Fault(FaultKind::bad_launch, "kernel " + kernel + ": bad launch: " + what);
  };
  const uint64_t threads = uint64_t{config.block[0]} * config.block[1] * config.block[2];
  const uint64_t blocks = uint64_t{config.grid[0]} * config.grid[1] * config.grid[2];
  if (threads == 0 || threads > max_threads_per_block) refuse(std::to_string(threads) + " threads per block");
  if (program.kernel->max_threads && threads > program.kernel->max_threads) {
    refuse(std::to_string(threads) + " threads per block, .maxntid allows " +
           std::to_string(program.kernel->max_threads));
  }
  if (config.grid[1] > 65535 || config.grid[2] > 65535) refuse("grid of more than 65535 in y or z");
  if (blocks == 0 || blocks * ((threads + 31) / 32) * 2 > (1u << 26))
    refuse(std::to_string(blocks) + " blocks");
  if (program.dynamic_shared_offset + uint64_t{config.shared_bytes} > max_shared_bytes) {
    refuse(std::to_string(program.dynamic_shared_offset + config.shared_bytes) +
           " bytes of shared memory, at most " + std::to_string(max_shared_bytes));
  }
  if (config.parameters.size() != program.parameter_bytes) {
    refuse(std::to_string(config.parameters.size()) + " bytes of parameters, expected " +
           std::to_string(program.parameter_bytes));
  }
  LaunchReport report;
  report.counters.reset(program);
  Launch launch;
  launch.program = &program;
  launch.memory = &memory;
  launch.options = config.options;
  std::copy(config.grid, config.grid + 3, launch.grid);
  std::copy(config.block, config.block + 3, launch.block);
  launch.shared_bytes = config.shared_bytes;
  launch.parameters = config.parameters;
  launch.counters = &report.counters;
  memory.start_launch();
  Scheduler(launch).run();
  report.bytes_moved = report.counters.total("").sectors * 32;
  return report;
}

}  // namespace bitloom::ptx
