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
  // Without the target: architectures may have the same code. Without names and times of source files, which
  // stand at the end.
  const size_t target = text.find("\n.target"), line = text.find('\n', target + 1);
  const std::string code = text.substr(0, target) + text.substr(line, text.find("\n\t.file\t") - line);
  const std::string key = std::to_string(hash_of(code)) + ":" + std::to_string(mutant.line) + ":" +
                          std::to_string(hash_of(mutant.now));
  const auto at = kept_.find(key);
  // What nobody noticed in an earlier run is tried again: the calls may be better now.
  if (at != kept_.end() && (at->second || found_.count(key) != 0)) return at->second;
  const bool noticed = find();
  if (!path_.empty() && (at == kept_.end() || at->second != noticed))
    std::ofstream(path_, std::ios::app) << key << ' ' << noticed << '\n';
  kept_[key] = noticed;
  found_.insert(key);
  return noticed;
}

}  // namespace bitloom::cuda::testing
