#include "parser.h"

#include <cstring>

namespace bitloom::ptx {

std::shared_ptr<const Module> Module::parse(std::string text) {
  auto module = std::make_shared<Module>();
  module->text = std::move(text);
  Parser(*module).run();
  return module;
}

void Parser::run() {
  bool is_extern = false;
  while (!lexer_.token().empty()) {
    Space space;
    if (lexer_.is(".version") || lexer_.is(".address_size")) {
      lexer_.next();
      lexer_.next();
    } else if (lexer_.accept(".target")) {
      module_.target = std::string(lexer_.take());
      while (lexer_.accept(",")) lexer_.next();
    } else if (lexer_.is(".file")) {
      parse_file();
    } else if (lexer_.is(".section")) {
      parse_section();
    } else if (lexer_.is(".loc")) {
      parse_loc();
    } else if (lexer_.is(".visible") || lexer_.is(".weak") || lexer_.is(".common")) {
      lexer_.next();
    } else if (lexer_.accept(".extern")) {
      is_extern = true;
    } else if (lexer_.accept(".entry")) {
      parse_function(true);
      is_extern = false;
    } else if (lexer_.accept(".func")) {
      parse_function(false);
      is_extern = false;
    } else if (space_named(lexer_.token(), space)) {
      lexer_.next();
      module_.variables.push_back(parse_variable(space));
      module_.variables.back().is_extern = is_extern;
      is_extern = false;
      lexer_.expect(";");
    } else if (lexer_.is(".pragma") || lexer_.is(".alias")) {
      while (!lexer_.accept(";")) lexer_.next();
    } else {
      lexer_.fail("unknown directive '" + std::string(lexer_.token()) + "'");
    }
  }
}

bool Parser::space_named(std::string_view directive, Space& space) const {
  if (directive == ".global") return space = Space::global, true;
  if (directive == ".const") return space = Space::constant, true;
  if (directive == ".shared") return space = Space::shared, true;
  if (directive == ".local") return space = Space::local, true;
  if (directive == ".param") return space = Space::param, true;
  return false;
}

// .file 1 "name" [, time, size]
void Parser::parse_file() {
  lexer_.next();
  const int32_t number = static_cast<int32_t>(parse_integer());
  std::string name(lexer_.take());
  if (name.size() >= 2) name = name.substr(1, name.size() - 2);
  const size_t slash = name.rfind('/');
  module_.files[number] = slash == std::string::npos ? name : name.substr(slash + 1);
  while (lexer_.accept(",")) lexer_.next();
}

// .section name { ... }: debug information, not read.
void Parser::parse_section() {
  lexer_.next();
  lexer_.next();
  lexer_.expect("{");
  for (int depth = 1; depth > 0; lexer_.next()) {
    if (lexer_.token().empty()) lexer_.fail("section without end");
    depth += lexer_.is("{") ? 1 : lexer_.is("}") ? -1 : 0;
  }
}

// .loc file line column [, function_name label [+ offset], inlined_at file line column]
void Parser::parse_loc() {
  lexer_.next();
  const auto read = [&] {
    Location at;
    at.file = static_cast<int32_t>(parse_integer());
    at.line = static_cast<int32_t>(parse_integer());
    at.column = static_cast<int32_t>(parse_integer());
    return at;
  };
  location_ = outer_ = read();
  if (!lexer_.accept(",")) return;
  lexer_.expect("function_name");
  lexer_.next();
  if (lexer_.accept("+")) lexer_.next();
  lexer_.expect(",");
  lexer_.expect("inlined_at");
  outer_ = read();
  inlined_at_[location_] = outer_;
  // The call may itself stand in inlined code, which an earlier .loc told. The bound ends a cycle of
  // recursion.
  for (int depth = 0; depth < 32; ++depth) {
    const auto further = inlined_at_.find(outer_);
    if (further == inlined_at_.end()) break;
    outer_ = further->second;
  }
}

uint64_t Parser::parse_integer() {
  const bool negative = lexer_.accept("-");
  if (!is_number(lexer_.token()))
    lexer_.fail("expected an integer before '" + std::string(lexer_.token()) + "'");
  const uint64_t value = std::strtoull(std::string(lexer_.take()).c_str(), nullptr, 0);
  return negative ? 0 - value : value;
}

// [(.param returns)] name [(.param parameters)] directives { body } or ;
void Parser::parse_function(bool is_entry) {
  Function function;
  function.is_entry = is_entry;
  inlined_at_.clear();
  scopes_.clear();
  scope_ = -1;
  if (!is_entry && lexer_.is("(")) function.returns = parse_parameters();
  function.name = std::string(lexer_.take());
  if (lexer_.is("(")) function.parameters = parse_parameters();
  while (!lexer_.is("{") && !lexer_.is(";")) {
    if (lexer_.accept(".maxntid") || lexer_.accept(".reqntid")) {
      uint64_t product = parse_integer();
      while (lexer_.accept(",")) product *= parse_integer();
      function.max_threads = static_cast<uint32_t>(product);
    } else if (lexer_.accept(".minnctapersm") || lexer_.accept(".maxnreg") ||
               lexer_.accept(".maxnctapersm")) {
      parse_integer();
    } else if (lexer_.accept(".pragma")) {
      while (!lexer_.accept(";")) lexer_.next();
    } else if (!lexer_.accept(".noreturn")) {
      lexer_.fail("unknown directive '" + std::string(lexer_.token()) + "' of function " + function.name);
    }
  }
  if (!lexer_.accept(";")) {
    function.has_body = true;
    parse_body(function);
  } else if (module_.functions.count(function.name)) {
    return;  // a second declaration
  }
  const std::string name = function.name;
  module_.functions[name] = std::move(function);
}

std::vector<Variable> Parser::parse_parameters() {
  std::vector<Variable> parameters;
  lexer_.expect("(");
  while (!lexer_.accept(")")) {
    lexer_.expect(".param");
    parameters.push_back(parse_variable(Space::param));
    if (!lexer_.is(")")) lexer_.expect(",");
  }
  return parameters;
}

// [.align n] .type [.ptr [.space] .align n] name [[n]...] [= initializer]
Variable Parser::parse_variable(Space space) {
  Variable variable;
  variable.space = space;
  uint32_t vector = 1;
  uint32_t align = 0;
  while (lexer_.token().size() > 1 && lexer_.token()[0] == '.') {
    const std::string_view word = lexer_.take().substr(1);
    const Type type = type_named(word);
    if (word == "align") {
      const uint32_t value = static_cast<uint32_t>(parse_integer());
      if (variable.type == Type::none) align = value;  // after the type, .align is the pointer's
    } else if (type != Type::none) {
      variable.type = type;
    } else if (word == "v2" || word == "v4") {
      vector = word == "v2" ? 2 : 4;
    } else if (word != "ptr" && word != "global" && word != "shared" && word != "const" && word != "local" &&
               word != "attribute" && word != "managed") {
      lexer_.fail("unknown attribute '." + std::string(word) + "' of a variable");
    }
  }
  if (variable.type == Type::none) lexer_.fail("a variable without a type");
  variable.align = align ? align : type_bytes(variable.type) * vector;
  variable.name = std::string(lexer_.take());
  uint64_t count = vector;
  bool open = false;
  while (lexer_.accept("[")) {
    if (lexer_.accept("]")) {
      open = true;
      count = 0;
      continue;
    }
    count *= parse_integer();
    lexer_.expect("]");
  }
  variable.bytes = count * type_bytes(variable.type);
  if (lexer_.accept("=")) {
    parse_initializer(variable);
    if (open) variable.bytes = variable.initial.size();
    variable.initial.resize(variable.bytes);
  }
  return variable;
}

void Parser::parse_initializer(Variable& variable) {
  uint64_t at = 0;
  if (!lexer_.is("{")) return parse_initial_value(variable, at);
  int depth = 0;
  do {
    if (lexer_.accept("{")) {
      ++depth;
    } else if (lexer_.accept("}")) {
      --depth;
    } else if (!lexer_.accept(",")) {
      parse_initial_value(variable, at);
    }
  } while (depth > 0);
}

void Parser::parse_initial_value(Variable& variable, uint64_t& at) {
  const uint32_t size = type_bytes(variable.type);
  uint64_t bits = 0;
  if (lexer_.is("-") || is_number(lexer_.token())) {
    const bool negative = lexer_.accept("-");
    const Operand value = parse_number(negative);
    bits = value.bits;
    if (variable.type == Type::f32 && value.kind == Operand::real64) {
      double wide;
      std::memcpy(&wide, &value.bits, 8);
      const float narrow = static_cast<float>(wide);
      bits = 0;
      std::memcpy(&bits, &narrow, 4);
    }
  } else {
    const bool generic = lexer_.accept("generic");
    if (generic) lexer_.expect("(");
    Variable::Reference reference{at, std::string(lexer_.take()), 0, generic};
    if (lexer_.accept("+")) reference.addend = static_cast<int64_t>(parse_integer());
    if (generic) lexer_.expect(")");
    variable.references.push_back(reference);
  }
  variable.initial.resize(at + size);
  std::memcpy(variable.initial.data() + at, &bits, size);
  at += size;
}

}  // namespace bitloom::ptx
