// The parser: parser.cc reads directives and variables, parse_body.cc the bodies of functions.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "lexer.h"
#include "module.h"

namespace bitloom::ptx {

struct Location {
  int32_t file = 0, line = 0, column = 0;
  bool operator<(const Location& o) const {
    return std::tie(file, line, column) < std::tie(o.file, o.line, o.column);
  }
};

class Parser {
 public:
  explicit Parser(Module& module) : module_(module), lexer_(module.text) {}
  void run();

 private:
  // What a `{` of a body opens: names of registers, variables and labels are looked up from the inside out.
  struct Scope {
    std::unordered_map<std::string_view, int32_t> registers;
    std::vector<std::pair<std::string_view, std::pair<int32_t, int32_t>>>
        ranges;                                                        // %r<10>: prefix, first, count
    std::unordered_map<std::string_view, std::string_view> variables;  // name -> unique name
    std::unordered_map<std::string_view, int32_t> labels;              // name -> statement
    int32_t parent = -1;
  };

  // parser.cc
  void parse_file();
  void parse_section();
  void parse_loc();
  void parse_function(bool is_entry);
  std::vector<Variable> parse_parameters();
  Variable parse_variable(Space space);
  void parse_initializer(Variable& variable);
  void parse_initial_value(Variable& variable, uint64_t& at);
  uint64_t parse_integer();
  bool space_named(std::string_view directive, Space& space) const;

  // parse_body.cc
  void parse_body(Function& function);
  void parse_registers(Function& function);
  void parse_statement(Function& function);
  void parse_call(Statement& statement);
  Operand parse_operand(Function& function);
  Operand parse_address(Function& function);
  Operand parse_word(Function& function);
  Operand parse_number(bool negative);
  int32_t find_register(std::string_view name) const;
  std::string_view find_variable(std::string_view name) const;
  void resolve_labels(Function& function);
  std::string_view keep(std::string name);

  Module& module_;
  Lexer lexer_;
  Location location_, outer_;
  std::map<Location, Location> inlined_at_;  // of the .loc lines of this function
  std::vector<Scope> scopes_;
  int32_t scope_ = -1;
  std::vector<int32_t> statement_scopes_;
};

}  // namespace bitloom::ptx
