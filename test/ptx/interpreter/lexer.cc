#include "lexer.h"

#include <cctype>

namespace bitloom::ptx {
namespace {

bool is_word(char c) {
  return std::isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '$' || c == '%' || c == '.';
}

}  // namespace

void Lexer::skip_blanks() {
  while (at_ < text_.size()) {
    const char c = text_[at_];
    if (c == '\n') {
      ++line_;
      ++at_;
    } else if (std::isspace(static_cast<unsigned char>(c))) {
      ++at_;
    } else if (text_.compare(at_, 2, "//") == 0) {
      while (at_ < text_.size() && text_[at_] != '\n') ++at_;
    } else if (text_.compare(at_, 2, "/*") == 0) {
      const size_t end = text_.find("*/", at_ + 2);
      if (end == std::string_view::npos) fail("comment without end");
      for (; at_ < end + 2; ++at_) line_ += text_[at_] == '\n';
    } else {
      return;
    }
  }
}

void Lexer::next() {
  previous_end_ = token_.data() + token_.size();
  skip_blanks();
  const size_t begin = at_;
  if (at_ == text_.size()) {
    token_ = {};
    return;
  }
  if (text_[at_] == '"') {
    const size_t end = text_.find('"', at_ + 1);
    if (end == std::string_view::npos) fail("string without end");
    at_ = end + 1;
  } else if (is_word(text_[at_])) {
    // "::" belongs to the word (ld.shared::cta); a single ':' ends a label. A directive ends at the next dot:
    // headers write ".reg.b16".
    const bool directive = text_[at_] == '.';
    do {
      at_ += text_[at_] == ':' ? 2 : 1;
    } while (at_ < text_.size() && !(directive && text_[at_] == '.') &&
             (is_word(text_[at_]) || text_.compare(at_, 2, "::") == 0));
  } else {
    ++at_;
  }
  token_ = text_.substr(begin, at_ - begin);
}

}  // namespace bitloom::ptx
