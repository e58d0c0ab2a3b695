// Which mutants were noticed: of code that several architectures have once, and kept in a file from run to
// run, because the full run takes long.
#pragma once

#include <functional>
#include <map>
#include <set>
#include <string>

#include "mutants.h"

namespace bitloom::cuda::testing {

// FNV-1a of 64 bits.
uint64_t hash_of(const std::string& text);

class Verdicts {
 public:
  // path: of the file, or null for none. It is read now, and each new verdict is added at once.
  explicit Verdicts(const char* path);
  // Of this mutant of a text: as kept, or what `find` says.
  bool get(const std::string& text, const Mutant& mutant, const std::function<bool()>& find);

 private:
  std::string path_;
  std::map<std::string, bool> kept_;
  std::set<std::string> found_;  // by this run
};

}  // namespace bitloom::cuda::testing
