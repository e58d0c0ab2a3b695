#include "settings.h"

#include <algorithm>
#include <cstdlib>

namespace bitloom::cuda_emulation {
namespace {

std::vector<std::string> split(const std::string& text, char separator) {
  std::vector<std::string> parts;
  size_t at = 0;
  while (at <= text.size()) {
    const size_t end = std::min(text.find(separator, at), text.size());
    if (end > at) parts.push_back(text.substr(at, end - at));
    at = end + 1;
  }
  return parts;
}

bool parse_number(const std::string& text, uint64_t& value) {
  if (text.empty() || text[0] < '0' || text[0] > '9') return false;
  char* end = nullptr;
  value = std::strtoull(text.c_str(), &end, 10);
  const std::string unit = end;
  const uint64_t factor = unit.empty()  ? 1
                          : unit == "K" ? 1 << 10
                          : unit == "M" ? 1 << 20
                          : unit == "G" ? 1 << 30
                                        : 0;
  value *= factor;
  return factor != 0;
}

// Applies one setting with a number. False: no such name or no such value.
bool apply_number(Settings& s, const std::string& name, uint64_t value) {
  if (name == "devices" && value <= 16) return s.devices = static_cast<int>(value), true;
  if (name == "arch" && arch_limits(static_cast<int>(value))) return s.arch = static_cast<int>(value), true;
  if (name == "driver" && value >= 11000 && value < 20000) return s.driver = static_cast<int>(value), true;
  if (name == "memory") return s.memory = value, true;
  if (name == "sms" && value > 0 && value < 1000) return s.multiprocessors = static_cast<int>(value), true;
  if (name == "seed") return s.seed = value, true;
  if (name == "delay") return s.delay_microseconds = value, true;
  if (name == "pinned" && value <= 1) return s.verify_pinned = value != 0, true;
  if (name == "mma" && (value == 0 || value == 4 || value == 8 || value == 16))
    return s.launch.mma_block = static_cast<uint32_t>(value), true;
  if (name == "checks" && value <= 1)
    return s.launch.check_memory = s.launch.count_requests = value != 0, true;
  if (name == "resident" && value > 0) return s.launch.resident_blocks = static_cast<uint32_t>(value), true;
  if (name == "limit" && value > 0) return s.launch.max_warp_instructions = value, true;
  return false;
}

bool apply_delivery(Settings& s, const std::string& value) {
  if (value == "poisoned") return s.launch.copy_delivery = ptx::CopyDelivery::poisoned, true;
  if (value == "early") return s.launch.copy_delivery = ptx::CopyDelivery::early, true;
  if (value == "late") return s.launch.copy_delivery = ptx::CopyDelivery::late, true;
  return false;
}

}  // namespace

const ArchLimits* arch_limits(int arch) {
  static const ArchLimits all[] = {
      {80, 163 << 10, 164 << 10, 2048, 32},  {86, 99 << 10, 100 << 10, 1536, 16},
      {89, 99 << 10, 100 << 10, 1536, 24},   {90, 227 << 10, 228 << 10, 2048, 32},
      {100, 227 << 10, 228 << 10, 2048, 32}, {120, 99 << 10, 100 << 10, 1536, 24},
  };
  for (const ArchLimits& limits : all) {
    if (limits.arch == arch) return &limits;
  }
  return nullptr;
}

std::string apply_settings(Settings& settings, const std::string& text) {
  Settings changed = settings;
  for (const std::string& part : split(text, ',')) {
    const size_t equals = part.find('=');
    if (equals == std::string::npos) return "setting '" + part + "' is not name=value";
    const std::string name = part.substr(0, equals), value = part.substr(equals + 1);
    uint64_t number = 0;
    const bool applied = name == "delivery"
                             ? apply_delivery(changed, value)
                             : parse_number(value, number) && apply_number(changed, name, number);
    if (!applied) return "setting '" + part + "': no such name or value";
  }
  settings = changed;
  return {};
}

std::string Failures::add(const std::string& text) {
  std::vector<Rule> rules;
  std::set<std::string> missing;
  for (const std::string& part : split(text, ',')) {
    const size_t colon = part.find(':');
    if (colon == std::string::npos) return "failure '" + part + "' is not name:count=code or missing:name";
    const std::string name = part.substr(0, colon), rest = part.substr(colon + 1);
    if (name == "missing") {
      missing.insert(rest);
      continue;
    }
    const size_t equals = rest.find('=');
    if (equals == std::string::npos || equals == 0) return "failure '" + part + "' is not name:count=code";
    Rule rule{name, 0, rest[equals - 1] == '+', CUDA_SUCCESS};
    uint64_t code = 0;
    if (!parse_number(rest.substr(0, equals - (rule.from_then_on ? 1 : 0)), rule.count) || rule.count == 0 ||
        !parse_number(rest.substr(equals + 1), code)) {
      return "failure '" + part + "': count and code are numbers, count from 1";
    }
    rule.code = static_cast<CUresult>(code);
    rules.push_back(rule);
  }
  rules_.insert(rules_.end(), rules.begin(), rules.end());
  missing_.insert(missing.begin(), missing.end());
  return {};
}

void Failures::clear() {
  rules_.clear();
  missing_.clear();
}

CUresult Failures::next(const std::string& name) {
  ++calls_[name];
  CUresult code = CUDA_SUCCESS;
  for (Rule& rule : rules_) {
    if (rule.name != name) continue;
    ++rule.seen;
    const bool due = rule.from_then_on ? rule.seen >= rule.count : rule.seen == rule.count;
    if (due && code == CUDA_SUCCESS) code = rule.code;
  }
  return code;
}

}  // namespace bitloom::cuda_emulation
