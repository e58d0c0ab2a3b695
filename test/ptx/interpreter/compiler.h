// Compiles a kernel of a module, and the functions it calls, into a Program.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "binder.h"

namespace bitloom::ptx {

class Compiler {
 public:
  // places: addresses of the module's global and const variables. Throws Fault(bad_launch) if there is no
  // such kernel.
  static std::unique_ptr<Program> compile(std::shared_ptr<const Module> module, const std::string& kernel,
                                          const std::map<std::string, uint64_t>& places);

 private:
  friend class Binder;
  struct FunctionLayout {
    uint32_t first_instr = 0;
    uint32_t return_row = 0;
    std::vector<uint32_t> registers;      // offsets of rows
    std::map<std::string, Place> places;  // of its own variables
  };

  void collect(const Function& function);
  void lay_out(const Function& function);
  void lay_out_shared(const Variable& variable, std::map<std::string, Place>& places);
  void bind(const Function& function, const Statement& statement, Instr& instr, uint32_t pc);
  void bind_call(const Function& function, const Statement& statement, Instr& instr);
  uint32_t new_row(uint32_t bytes_per_lane);

  std::unique_ptr<Program> program_ = std::make_unique<Program>();
  std::vector<const Function*> functions_;
  std::vector<const Function*> path_;  // of collect(): finds recursion
  std::map<const Function*, FunctionLayout> layouts_;
  std::map<std::string, Place> module_places_;
  std::map<std::pair<uint64_t, uint32_t>, uint32_t> constants_;
  std::map<std::string, uint32_t> specials_;
  uint32_t scratch_ = ~0u;
  uint32_t dynamic_align_ = 16;
};

}  // namespace bitloom::ptx
