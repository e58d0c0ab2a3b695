// Commands of tests that run in the same process.
#include <cstring>

#include "report.h"
#include "state.h"

namespace bitloom::cuda_emulation {
namespace {

// Takes everything down and starts over with the settings: as if the process had just begun.
std::string restart(Driver& driver, const std::string& text, Lock& lock) {
  Settings settings;
  std::string wrong = apply_settings(settings, text);
  if (!wrong.empty()) return wrong;
  for (const auto& device : driver.devices) {
    tear_down(driver, device->context, lock);
    device->context.retained = 0;
  }
  create_devices(driver);
  driver.devices.clear();
  driver.is_initialized = false;
  driver.environment_error.clear();
  driver.settings = settings;
  driver.random.seed(settings.seed);
  driver.launches = 0;
  driver.failures = {};
  driver.counters.clear();
  driver.faults.clear();
  return {};
}

std::string set(Driver& driver, const std::string& text) {
  Settings changed = driver.settings;
  const std::string wrong = apply_settings(changed, text);
  if (!wrong.empty()) return wrong;
  const bool moved = changed.devices != driver.settings.devices || changed.arch != driver.settings.arch;
  if (moved && driver.is_initialized) return "devices and arch are fixed after cuInit; use restart";
  if (changed.seed != driver.settings.seed) driver.random.seed(changed.seed);
  driver.settings = changed;
  return {};
}

std::string run(Driver& driver, const std::string& command, Lock& lock) {
  const size_t space = command.find(' ');
  const std::string verb = command.substr(0, space);
  const std::string rest = space == std::string::npos ? "" : command.substr(space + 1);
  const auto answer = [](const std::string& wrong) {
    return wrong.empty() ? std::string("ok") : "error: " + wrong;
  };
  if (verb == "set") return answer(set(driver, rest));
  if (verb == "restart") return answer(restart(driver, rest, lock));
  if (verb == "fail") return answer(driver.failures.add(rest));
  if (verb == "clear-failures") return driver.failures.clear(), "ok";
  if (verb == "counters") return counters_json(driver);
  if (verb == "clear-counters") return driver.counters.clear(), "ok";
  if (verb == "faults") return faults_json(driver);
  if (verb == "clear-faults") return driver.faults.clear(), "ok";
  if (verb == "live") return live_json(driver);
  return "error: unknown command '" + verb + "'";
}

}  // namespace
}  // namespace bitloom::cuda_emulation

const char* bitloom_cuda_emulation_control(const char* command) {
  using namespace bitloom::cuda_emulation;
  thread_local std::string answer;
  try {
    Driver& driver = Driver::get();
    Lock lock(driver.mutex);
    answer = command ? run(driver, command, lock) : "error: no command";
  } catch (const std::exception& error) {
    answer = std::string("error: ") + error.what();
  }
  return answer.c_str();
}
