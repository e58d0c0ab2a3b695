#include "compiler.h"

#include <algorithm>
#include <cstring>
#include <unordered_map>

namespace bitloom::ptx {
namespace {

using BindFunction = void (*)(Binder&);

const std::unordered_map<std::string_view, BindFunction>& table() {
  static const std::unordered_map<std::string_view, BindFunction> functions = {
#define BITLOOM_PTX_OP(opcode, bind) {opcode, &bind},
#include "ops.inc"
#undef BITLOOM_PTX_OP
  };
  return functions;
}

void run_unknown(Warp& warp, const Instr&) {
  warp.launch->fail(FaultKind::unknown_instruction, warp, -1, fault_words(FaultKind::unknown_instruction));
}

uint64_t align_up(uint64_t value, uint64_t align) { return (value + align - 1) / align * align; }

}  // namespace

uint32_t Compiler::new_row(uint32_t bytes_per_lane) {
  const uint32_t offset = program_->register_bytes;
  program_->register_bytes += static_cast<uint32_t>(align_up(uint64_t{bytes_per_lane} * 32, 64));
  return offset;
}

void Compiler::collect(const Function& function) {
  if (std::find(path_.begin(), path_.end(), &function) != path_.end()) {
    throw Fault(FaultKind::bad_launch,
                "kernel " + program_->kernel->name + ": " + function.name + " is recursive");
  }
  if (std::find(functions_.begin(), functions_.end(), &function) != functions_.end()) return;
  functions_.push_back(&function);
  path_.push_back(&function);
  for (const Statement& statement : function.body) {
    if (statement.opcode != "call") continue;
    const auto callee = program_->module->functions.find(statement.operands[statement.returns].name);
    if (callee != program_->module->functions.end() && callee->second.has_body) collect(callee->second);
  }
  path_.pop_back();
}

void Compiler::lay_out_shared(const Variable& variable, std::map<std::string, Place>& places) {
  if (variable.bytes == 0) {
    dynamic_align_ = std::max(dynamic_align_, variable.align);
    places[variable.name] = {Space::shared, false, 0, 0};  // address known once all static variables are
    return;
  }
  program_->static_shared = static_cast<uint32_t>(align_up(program_->static_shared, variable.align));
  places[variable.name] = {Space::shared, false, kSharedBase + program_->static_shared, variable.bytes};
  program_->static_shared += static_cast<uint32_t>(variable.bytes);
}

void Compiler::lay_out(const Function& function) {
  FunctionLayout& layout = layouts_[&function];
  const auto in_frame = [&](const Variable& variable) {
    program_->frame_bytes =
        static_cast<uint32_t>(align_up(program_->frame_bytes, std::max(variable.align, 16u)));
    layout.places[variable.name] = {Space::param, true, program_->frame_bytes, variable.bytes};
    program_->frame_bytes += static_cast<uint32_t>(variable.bytes);
  };
  for (Type type : function.registers) {
    // A predicate's row is one word of 32 bits.
    layout.registers.push_back(type == Type::pred ? new_row(2) : new_row(type_bytes(type)));
  }
  if (function.is_entry) {
    for (const Variable& parameter : function.parameters) {
      program_->parameter_bytes = static_cast<uint32_t>(align_up(program_->parameter_bytes, parameter.align));
      layout.places[parameter.name] = {Space::param, false, program_->parameter_bytes, parameter.bytes};
      program_->parameters.push_back({program_->parameter_bytes, static_cast<uint32_t>(parameter.bytes)});
      program_->parameter_bytes += static_cast<uint32_t>(parameter.bytes);
    }
  } else {
    layout.return_row = new_row(4);
    for (const Variable& variable : function.returns) in_frame(variable);
    for (const Variable& variable : function.parameters) in_frame(variable);
  }
  for (const Variable& variable : function.variables) {
    if (variable.space == Space::shared) {
      lay_out_shared(variable, layout.places);
    } else if (variable.space == Space::local) {
      program_->local_bytes =
          static_cast<uint32_t>(align_up(program_->local_bytes, std::max(variable.align, 16u)));
      layout.places[variable.name] = {Space::local, false, kLocalBase + program_->local_bytes,
                                      variable.bytes};
      program_->local_bytes += static_cast<uint32_t>(variable.bytes);
    } else if (variable.space == Space::param) {
      in_frame(variable);
    } else {
      throw Fault(FaultKind::syntax,
                  "function " + function.name + ": variable " + variable.name + " of this space in a body");
    }
  }
}

std::unique_ptr<Program> Compiler::compile(std::shared_ptr<const Module> module, const std::string& kernel,
                                           const std::map<std::string, uint64_t>& places) {
  Compiler compiler;
  Program& program = *compiler.program_;
  const auto found = module->functions.find(kernel);
  if (found == module->functions.end() || !found->second.is_entry) {
    throw Fault(FaultKind::bad_launch, "no kernel " + kernel + " in the module");
  }
  program.module = module;
  program.kernel = &found->second;
  for (const Variable& variable : module->variables) {
    if (variable.space == Space::shared) {
      compiler.lay_out_shared(variable, compiler.module_places_);
    } else if (places.count(variable.name)) {
      compiler.module_places_[variable.name] = {variable.space, false, places.at(variable.name),
                                                variable.bytes};
    }
  }
  compiler.collect(found->second);
  uint32_t instructions = 0;
  for (const Function* function : compiler.functions_) {
    compiler.lay_out(*function);
    compiler.layouts_[function].first_instr = instructions;
    instructions += static_cast<uint32_t>(function->body.size());
  }
  program.dynamic_shared_offset =
      static_cast<uint32_t>(align_up(program.static_shared, compiler.dynamic_align_));
  const uint64_t dynamic_address = kSharedBase + program.dynamic_shared_offset;
  const auto place_dynamic = [&](std::map<std::string, Place>& all) {
    for (auto& [name, place] : all) {
      if (place.space == Space::shared && place.bytes == 0) place.address = dynamic_address;
    }
  };
  place_dynamic(compiler.module_places_);
  for (auto& [function, layout] : compiler.layouts_) place_dynamic(layout.places);

  program.code.resize(instructions);
  for (const Function* function : compiler.functions_) {
    for (const Statement& statement : function->body) {
      const uint32_t pc = static_cast<uint32_t>(program.info.size());
      program.info.push_back({&statement, function});
      compiler.bind(*function, statement, program.code[pc], pc);
    }
  }
  for (Instr& instr : program.code) instr.slots = program.slots.data() + instr.first_slot;
  return std::move(compiler.program_);
}

void Compiler::bind(const Function& function, const Statement& statement, Instr& instr, uint32_t) {
  const auto op = table().find(statement.opcode);
  instr.first_slot = static_cast<uint32_t>(program_->slots.size());
  if (statement.guard >= 0) {
    instr.guard = layouts_[&function].registers[static_cast<size_t>(statement.guard)];
    instr.guard_negated = statement.guard_negated;
  }
  try {
    if (op == table().end()) throw Unsupported("opcode");
    if (statement.opcode == "call") {
      bind_call(function, statement, instr);
      return;
    }
    Binder binder(*this, function, statement, instr);
    op->second(binder);
    binder.finish();
    if (instr.flow == Flow::branch) instr.target += layouts_[&function].first_instr;
    if (instr.flow == Flow::ret) {
      instr.slot_count = 1;
      Slot slot;
      slot.offset = layouts_[&function].return_row;
      slot.present = !function.is_entry;
      program_->slots.push_back(slot);
    }
  } catch (const Unsupported& unsupported) {
    instr.flow = Flow::plain;
    instr.run = run_unknown;
    program_->unknown.push_back(std::string(statement.text) + " (" + unsupported.what() + ")");
  }
}

void Compiler::bind_call(const Function& function, const Statement& statement, Instr& instr) {
  const auto callee = program_->module->functions.find(statement.operands[statement.returns].name);
  if (callee == program_->module->functions.end() || !callee->second.has_body)
    throw Unsupported("function without body");
  const Function& target = callee->second;
  CallSite site;
  const auto copies = [&](size_t first, const std::vector<Variable>& formals, bool into_callee) {
    for (size_t i = 0; i < formals.size(); ++i) {
      const auto actual = layouts_[&function].places.find(std::string(statement.operands[first + i].name));
      if (actual == layouts_[&function].places.end()) throw Unsupported("argument that is no param variable");
      const uint32_t outer = static_cast<uint32_t>(actual->second.address);
      const uint32_t inner = static_cast<uint32_t>(layouts_[&target].places[formals[i].name].address);
      const uint32_t bytes = static_cast<uint32_t>(std::min(actual->second.bytes, formals[i].bytes));
      if (into_callee) {
        site.arguments.push_back({outer, inner, bytes});
      } else {
        site.returns.push_back({inner, outer, bytes});
      }
    }
  };
  if (statement.returns != target.returns.size() ||
      statement.operands.size() != statement.returns + 1 + target.parameters.size()) {
    throw Unsupported("number of arguments");
  }
  copies(statement.returns + 1, target.parameters, true);
  copies(0, target.returns, false);
  site.return_row = layouts_[&target].return_row;
  instr.flow = Flow::call;
  instr.target = layouts_[&target].first_instr;
  instr.slot_count = static_cast<uint32_t>(program_->calls.size());  // index of the call site
  program_->calls.push_back(std::move(site));
}

}  // namespace bitloom::ptx
