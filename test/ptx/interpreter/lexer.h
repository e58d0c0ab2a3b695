// Cuts PTX text into tokens. A token is a view of the text.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "fault.h"

namespace bitloom::ptx {

class Lexer {
 public:
  explicit Lexer(std::string_view text) : text_(text) { next(); }

  std::string_view token() const { return token_; }  // empty at the end of the text
  int32_t line() const { return line_; }             // 1-based line of token()
  const char* position() const { return token_.data(); }
  const char* previous_end() const { return previous_end_; }

  void next();
  bool is(std::string_view what) const { return token_ == what; }
  bool accept(std::string_view what) {
    if (token_ != what) return false;
    next();
    return true;
  }
  std::string_view take() {
    const std::string_view taken = token_;
    next();
    return taken;
  }
  void expect(std::string_view what) {
    if (!accept(what)) fail("expected '" + std::string(what) + "' before '" + std::string(token_) + "'");
  }
  [[noreturn]] void fail(const std::string& what) const {
    throw Fault(FaultKind::syntax, "PTX line " + std::to_string(line_) + ": syntax error: " + what);
  }

 private:
  void skip_blanks();
  std::string_view text_;
  size_t at_ = 0;
  int32_t line_ = 1;
  std::string_view token_;
  const char* previous_end_ = nullptr;
};

inline bool is_number(std::string_view token) { return !token.empty() && token[0] >= '0' && token[0] <= '9'; }

}  // namespace bitloom::ptx
