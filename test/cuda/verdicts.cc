#include "verdicts.h"

#include <fstream>

namespace bitloom::cuda::testing {

uint64_t hash_of(const std::string& text) {
  uint64_t hash = 14695981039346656037ull;
  for (char c : text) hash = (hash ^ static_cast<uint8_t>(c)) * 1099511628211ull;
  return hash;
}

Verdicts::Verdicts(const char* path) : path_(path == nullptr ? "" : path) {
  if (path_.empty()) return;
  std::ifstream file(path_);
  std::string key;
  for (bool noticed; file >> key >> noticed;) kept_[key] = noticed;
}

bool Verdicts::get(const std::string& text, const Mutant& mutant, const std::function<bool()>& find) {
  if (path_.empty()) return find();
  // Without names and times of source files, which stand at the end.
  const std::string code = text.substr(0, text.find("\n\t.file\t"));
  const std::string key = std::to_string(hash_of(code)) + ":" + std::to_string(mutant.line) + ":" +
                          std::to_string(hash_of(mutant.now));
  const auto at = kept_.find(key);
  // What nobody noticed is tried again: the calls may be better now.
  if (at != kept_.end() && at->second) return true;
  const bool noticed = find();
  if (at == kept_.end() || at->second != noticed)
    std::ofstream(path_, std::ios::app) << key << ' ' << noticed << '\n';
  kept_[key] = noticed;
  return noticed;
}

}  // namespace bitloom::cuda::testing
