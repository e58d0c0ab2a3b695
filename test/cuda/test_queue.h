// A Queue that runs on the PTX interpreter, at once and in order. A fault of a kernel (fault.h) is thrown
// through the operator's host code to the test.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "cuda/driver/queue.h"
#include "test/ptx/interpreter/machine.h"

namespace bitloom::cuda::testing {

// Of those that the tests are built for (BITLOOM_CUDA_TEST_ARCHS).
int32_t first_arch();

struct Settings {
  int32_t arch = first_arch();  // which PTX: compute_<arch>
  ptx::Options options = {};    // schedule seed, delivery of copies, sums of mma
  int32_t multiprocessors = 0;  // 0: as the architecture's best known device
};

// Every architecture that the tests are built for, with the default schedule.
std::vector<Settings> all_archs();
// For each of them: every delivery of copies with the fixed and with random schedules.
std::vector<Settings> all_schedules();

struct Launched {
  std::string module, kernel;
  LaunchShape shape;
  ptx::LaunchReport report;
};

class TestQueue : public Queue {
 public:
  explicit TestQueue(const Settings& settings = {});
  virtual ~TestQueue() = default;

  const Limits& limits() const override { return limits_; }
  bool has_code(const ModuleImages& module) const override;
  void set_multiprocessors(int32_t count) { limits_.multiprocessors = count; }
  bl_status allocate_scratch(uint64_t bytes, void** out, bl_error* error) override;
  bl_status allocate_table(const void* host, uint64_t bytes, void** out, bl_error* error) override;
  void free_scratch(void* memory) override;
  bl_status fill_zero(void* device, uint64_t bytes, bl_error* error) override;
  bl_status download(void* host, const void* device, uint64_t bytes, bl_error* error) override;

  // Device memory for a test, not written yet; lives as long as the queue.
  void* allocate(uint64_t bytes);
  void write(void* device, const void* host, uint64_t bytes);
  // Throws if a byte of it was never written.
  void read(void* host, const void* device, uint64_t bytes);
  bool is_written(const void* device, uint64_t bytes);

  Settings settings;
  ptx::Machine machine;
  std::vector<Launched> launches;  // since the test last cleared it
  // For mutation tests: this kernel is that of another module.
  std::string mutated_kernel;
  std::shared_ptr<const ptx::Module> mutated_module;
  // Called with each queue when it is made.
  static std::function<void(TestQueue&)> made;
  bool covers = true;  // what its launches execute counts as tested
  // For recordings: called around each launch, which may be changed.
  std::function<void(const std::string& kernel, ptx::LaunchConfig&)> before_launch;
  std::function<void(const std::string& kernel, const ptx::LaunchReport&)> after_launch;
  // Addresses of what is allocated now, scratch included.
  std::vector<uint64_t> allocations() const;
  uint64_t fail_after_allocations = ~uint64_t{0};  // further ones are out of memory

  // Pieces of scratch that no one has freed: must be 0 after each call.
  size_t scratch_in_use() const { return scratch_.size(); }
  uint64_t scratch_peak = 0;  // bytes

 protected:
  bl_status launch_bytes(const ModuleImages& module, const char* name, const LaunchShape& shape,
                         const void* params, bl_error* error) override;

 private:
  Limits limits_;
  std::map<std::string, const ptx::LoadedModule*> modules_;
  std::map<uint64_t, uint64_t> scratch_;  // address -> bytes
  std::vector<uint64_t> allocated_;       // by allocate()
  uint64_t scratch_bytes_ = 0;
};

// The PTX of "<module>.compute_<arch>".
const std::string& text_of_image(const std::string& image);
// Names of the modules with code for an architecture.
std::vector<std::string> modules_of(int32_t arch);
// Names of the kernels of "<module>.compute_<arch>".
std::vector<std::string> kernels_of_image(const std::string& image);

}  // namespace bitloom::cuda::testing
