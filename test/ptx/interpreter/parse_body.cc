#include <cctype>
#include <cstring>
#include <limits>

#include "parser.h"

namespace bitloom::ptx {

std::string_view Parser::keep(std::string name) {
  module_.made_names.push_back(std::make_unique<std::string>(std::move(name)));
  return *module_.made_names.back();
}

void Parser::parse_body(Function& function) {
  statement_scopes_.clear();
  int depth = 0;
  do {
    Space space;
    if (lexer_.accept("{")) {
      ++depth;
      scopes_.push_back({});
      scopes_.back().parent = scope_;
      scope_ = static_cast<int32_t>(scopes_.size()) - 1;
    } else if (lexer_.accept("}")) {
      --depth;
      scope_ = scopes_[static_cast<size_t>(scope_)].parent;
    } else if (lexer_.is(".loc")) {
      parse_loc();
    } else if (lexer_.accept(".reg")) {
      parse_registers(function);
    } else if (space_named(lexer_.token(), space)) {
      lexer_.next();
      Variable variable = parse_variable(space);
      const std::string_view name = keep(variable.name);
      std::string unique = variable.name;
      for (const Variable& other : function.variables) {
        if (other.name == unique) unique = variable.name + "@" + std::to_string(function.variables.size());
      }
      variable.name = unique;
      scopes_[static_cast<size_t>(scope_)].variables[name] = keep(unique);
      function.variables.push_back(std::move(variable));
      lexer_.expect(";");
    } else if (lexer_.accept(".pragma")) {
      while (!lexer_.accept(";")) lexer_.next();
    } else if (lexer_.token().empty()) {
      lexer_.fail("function " + function.name + " without end");
    } else if (!lexer_.accept(";")) {
      parse_statement(function);
    }
  } while (depth > 0);
  resolve_labels(function);
}

// .reg .type a, b, %r<10>;
void Parser::parse_registers(Function& function) {
  Type type = type_named(lexer_.take().substr(1));
  if (type == Type::none) lexer_.fail("registers of an unknown type");
  Scope& scope = scopes_[static_cast<size_t>(scope_)];
  do {
    const std::string_view name = lexer_.take();
    const int32_t first = static_cast<int32_t>(function.registers.size());
    if (lexer_.accept("<")) {
      const int32_t count = static_cast<int32_t>(parse_integer());
      lexer_.expect(">");
      scope.ranges.push_back({name, {first, count}});
      function.registers.resize(function.registers.size() + static_cast<size_t>(count), type);
    } else {
      scope.registers[name] = first;
      function.registers.push_back(type);
    }
  } while (lexer_.accept(","));
  lexer_.expect(";");
}

int32_t Parser::find_register(std::string_view name) const {
  for (int32_t s = scope_; s >= 0; s = scopes_[static_cast<size_t>(s)].parent) {
    const Scope& scope = scopes_[static_cast<size_t>(s)];
    const auto single = scope.registers.find(name);
    if (single != scope.registers.end()) return single->second;
    for (const auto& [prefix, range] : scope.ranges) {
      if (name.size() <= prefix.size() || name.substr(0, prefix.size()) != prefix) continue;
      int32_t number = 0;
      bool digits = true;
      for (char c : name.substr(prefix.size())) {
        digits = digits && c >= '0' && c <= '9';
        number = digits ? number * 10 + (c - '0') : 0;
      }
      if (digits && number < range.second) return range.first + number;
    }
  }
  return -1;
}

std::string_view Parser::find_variable(std::string_view name) const {
  for (int32_t s = scope_; s >= 0; s = scopes_[static_cast<size_t>(s)].parent) {
    const auto& names = scopes_[static_cast<size_t>(s)].variables;
    const auto found = names.find(name);
    if (found != names.end()) return found->second;
  }
  return name;
}

// [label:] [@[!]p] opcode operands ;
void Parser::parse_statement(Function& function) {
  const int32_t index = static_cast<int32_t>(function.body.size());
  Statement statement;
  statement.ptx_line = lexer_.line();
  const char* begin = lexer_.position();
  if (lexer_.accept("@")) {
    statement.guard_negated = lexer_.accept("!");
    statement.guard = find_register(lexer_.token());
    if (statement.guard < 0) lexer_.fail("unknown predicate '" + std::string(lexer_.token()) + "'");
    lexer_.next();
  }
  std::string_view word = lexer_.take();
  if (lexer_.accept(":")) {
    scopes_[static_cast<size_t>(scope_)].labels[word] = index;
    if (!lexer_.accept(".branchtargets")) return;
    word = "branchtargets";  // the table of brx.idx becomes a statement that does nothing
  }
  for (size_t dot = word.find('.'); dot != std::string_view::npos; dot = word.find('.')) {
    (statement.opcode.empty() ? statement.opcode : statement.modifiers.emplace_back()) = word.substr(0, dot);
    word = word.substr(dot + 1);
  }
  (statement.opcode.empty() ? statement.opcode : statement.modifiers.emplace_back()) = word;
  statement.file = location_.file;
  statement.line = location_.line;
  statement.outer_file = outer_.file;
  statement.outer_line = outer_.line;
  if (statement.opcode == "call") {
    parse_call(statement);
  } else {
    if (!lexer_.is(";")) {
      do statement.operands.push_back(parse_operand(function));
      while (lexer_.accept(","));
    }
    if (!lexer_.is(";")) lexer_.fail("expected ';' before '" + std::string(lexer_.token()) + "'");
  }
  statement.text = std::string_view(begin, static_cast<size_t>(lexer_.position() - begin));
  lexer_.expect(";");
  function.body.push_back(std::move(statement));
  statement_scopes_.push_back(scope_);
}

// call[.uni] [(returns),] function [, (arguments)]
void Parser::parse_call(Statement& statement) {
  const auto list = [&] {
    lexer_.expect("(");
    while (!lexer_.accept(")")) {
      Operand operand;
      operand.kind = Operand::symbol;
      operand.name = find_variable(lexer_.take());
      statement.operands.push_back(operand);
      if (!lexer_.is(")")) lexer_.expect(",");
    }
  };
  if (lexer_.is("(")) {
    list();
    statement.returns = static_cast<uint32_t>(statement.operands.size());
    lexer_.expect(",");
  }
  Operand callee;
  callee.kind = Operand::symbol;
  callee.name = lexer_.take();
  statement.operands.push_back(callee);
  if (lexer_.accept(",") && lexer_.is("(")) list();
  while (lexer_.accept(",")) lexer_.next();
}

Operand Parser::parse_operand(Function& function) {
  Operand operand;
  if (lexer_.accept("{")) {
    operand.kind = Operand::vector;
    while (!lexer_.accept("}")) {
      operand.elements.push_back(parse_operand(function));
      if (!lexer_.is("}")) lexer_.expect(",");
    }
    return operand;
  }
  if (lexer_.is("[")) return parse_address(function);
  if (lexer_.accept("!")) {
    operand = parse_word(function);
    operand.negated = true;
    return operand;
  }
  if (lexer_.accept("-")) return parse_number(true);
  if (is_number(lexer_.token())) return parse_number(false);
  operand = parse_word(function);
  if (lexer_.accept("|")) {
    Operand both;
    both.kind = Operand::pair;
    both.elements = {operand, parse_word(function)};
    return both;
  }
  return operand;
}

// [register], [symbol], either with + integer, [integer]
Operand Parser::parse_address(Function& function) {
  lexer_.expect("[");
  Operand operand;
  operand.kind = Operand::address;
  if (is_number(lexer_.token())) {
    operand.offset = static_cast<int64_t>(parse_integer());
  } else {
    const Operand base = parse_word(function);
    if (base.kind == Operand::reg) {
      operand.index = base.index;
    } else if (base.kind == Operand::symbol) {
      operand.name = base.name;
      operand.offset = base.offset;
    } else {
      lexer_.fail("a base of an address that is neither register nor variable");
    }
    if (lexer_.accept("+")) operand.offset += static_cast<int64_t>(parse_integer());
    if (lexer_.is("-")) operand.offset += static_cast<int64_t>(parse_integer());
  }
  lexer_.expect("]");
  return operand;
}

// A register, special register, variable (+ integer), label or `_`.
Operand Parser::parse_word(Function&) {
  Operand operand;
  const char first = lexer_.token().empty() ? 0 : lexer_.token()[0];
  if (!std::isalpha(static_cast<unsigned char>(first)) && !std::strchr("_$%", first)) {
    lexer_.fail("expected an operand before '" + std::string(lexer_.token()) + "'");
  }
  const std::string_view word = lexer_.take();
  if (word == "_") return operand;
  operand.index = find_register(word);
  operand.name = word;
  if (operand.index >= 0) {
    operand.kind = Operand::reg;
  } else if (word[0] == '%') {
    operand.kind = Operand::special;
  } else {
    operand.kind = Operand::symbol;  // or a label: resolve_labels decides
    operand.name = find_variable(word);
    if (lexer_.accept("+")) operand.offset = static_cast<int64_t>(parse_integer());
  }
  return operand;
}

Operand Parser::parse_number(bool negative) {
  const std::string text(lexer_.take());
  Operand operand;
  const bool hex_real = text.size() > 2 && text[0] == '0' && std::strchr("fFdD", text[1]);
  if (hex_real) {
    operand.kind = text[1] == 'f' || text[1] == 'F' ? Operand::real32 : Operand::real64;
    operand.bits = std::strtoull(text.c_str() + 2, nullptr, 16);
    if (negative) operand.bits ^= operand.kind == Operand::real32 ? 1ull << 31 : 1ull << 63;
  } else if (text.find('.') != std::string::npos) {
    operand.kind = Operand::real64;
    const double value = negative ? -std::stod(text) : std::stod(text);
    std::memcpy(&operand.bits, &value, 8);
  } else {
    operand.kind = Operand::integer;
    operand.bits = std::strtoull(text.c_str(), nullptr, 0);
    if (negative) operand.bits = 0 - operand.bits;
  }
  return operand;
}

void Parser::resolve_labels(Function& function) {
  for (size_t i = 0; i < function.body.size(); ++i) {
    for (Operand& operand : function.body[i].operands) {
      if (operand.kind != Operand::symbol) continue;
      for (int32_t s = statement_scopes_[i]; s >= 0; s = scopes_[static_cast<size_t>(s)].parent) {
        const auto& labels = scopes_[static_cast<size_t>(s)].labels;
        const auto found = labels.find(operand.name);
        if (found == labels.end()) continue;
        operand.kind = Operand::label;
        operand.index = found->second;
        break;
      }
    }
  }
}

}  // namespace bitloom::ptx
