// A device: its context, limits, modules, memory and streams. One object per device for the life of the
// process; a reset makes all handles of earlier generations void.
#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "allocator.h"
#include "driver.h"
#include "queue.h"
#include "staging.h"

namespace bitloom::cuda {

class Device;

struct LoadedModule {
  DriverModule handle = nullptr;
  struct Kernel {
    Function function = nullptr;
    uint32_t shared_bytes = 48 << 10;  // what it may ask for so far
  };
  std::map<std::string, Kernel> kernels;
};

}  // namespace bitloom::cuda

// The C ABI's handles.
struct bl_stream final : bitloom::cuda::Queue {
  explicit bl_stream(bitloom::cuda::Device& owner) : device(owner) {}

  const bitloom::cuda::Limits& limits() const override;
  bool has_code(const bitloom::cuda::ModuleImages& module) const override;
  bl_status allocate_scratch(uint64_t bytes, void** out, bl_error* error) override;
  bl_status allocate_table(const void* host, uint64_t bytes, void** out, bl_error* error) override;
  void free_scratch(void* memory) override;
  bl_status download(void* output, const void* input, uint64_t bytes, bl_error* error) override;
  bl_status fill_zero(void* output, uint64_t bytes, bl_error* error) override;
  bl_status launch_bytes(const bitloom::cuda::ModuleImages& module, const char* name,
                         const bitloom::cuda::LaunchShape& shape, const void* params,
                         bl_error* error) override;

  bitloom::cuda::Device& device;
  bitloom::cuda::DriverStream handle = nullptr;
  bitloom::cuda::DriverEvent event = nullptr;  // for others that wait for this one
  uint64_t generation = 0;
  bool has_work = false;      // queued since the last time it was waited for
  bool is_recording = false;  // of a graph
  uint64_t reused = 0;    // when memory of it went to its next user, and until when others have waited for
  uint64_t followed = 0;  // such streams: Device::reuses_ counts
  std::set<bitloom::cuda::Block*> scratch;
  std::vector<bitloom::cuda::Block*> held;   // freed while recording: the graph's
  std::vector<bitloom::cuda::Block*> spare;  // so is scratch, which the operators after it take again
};

struct bl_memory {
  bitloom::cuda::Device* device;
  bitloom::cuda::Block* block;
  uint64_t generation;
};

struct bl_event {
  bitloom::cuda::Device* device;
  bitloom::cuda::DriverEvent handle;
  uint64_t generation;
};

struct bl_graph {
  bitloom::cuda::Device* device;
  bitloom::cuda::Graph graph;
  bitloom::cuda::GraphExec exec;
  std::vector<bitloom::cuda::Block*> held;
  uint64_t generation;
};

namespace bitloom::cuda {

// Devices of the driver, [0, device_count()).
int device_count();
const char* unavailable();  // why there is none, or null
bl_status find_device(int32_t index, Device** out, bl_error* error);

class Device {
 public:
  explicit Device(int index);

  // Makes the device ready, in this thread: context, default stream. Fails where it is too old or lost.
  bl_status enter(bl_error* error);
  // `stream` or the default one, which must belong to this device and generation.
  bl_status resolve(bl_stream* stream, bl_stream** out, bl_error* error);
  // Remembers an error after which nothing works; gives the status.
  bl_status failed(int result, const char* what, bl_error* error);

  bl_status info(bl_device_info* out, bl_error* error);
  bl_status set_limit(uint64_t bytes, bl_error* error);
  bl_status reset(bl_error* error);

  bl_status create_stream(bl_stream** out, bl_error* error);
  void destroy_stream(bl_stream* stream);
  bl_status allocate(bl_stream* stream, uint64_t bytes, Block** out, bl_error* error);
  // Memory that streams other than `stream` may use, as soon as they are resolved anew.
  bl_status allocate_shared(bl_stream* stream, uint64_t bytes, Block** out, bl_error* error);
  void free(Block* block);
  // A kernel that may ask for `shared_bytes`.
  bl_status find_kernel(const ModuleImages& images, const char* name, uint32_t shared_bytes, Function* out,
                        bl_error* error);
  bl_status copy_to_device(bl_stream& stream, Address output, const void* input, uint64_t bytes,
                           bl_error* error);
  // At once, by the default stream; it has happened when this returns.
  bl_status copy_now(Address output, const void* input, uint64_t bytes, bl_error* error);
  bl_status copy_from_device(bl_stream& stream, void* output, Address input, uint64_t bytes, bl_error* error);
  bl_status wait_for(bl_stream& stream, bl_stream& other, bl_error* error);

  std::recursive_mutex mutex;
  uint64_t generation = 1;
  const Limits& limits() const { return limits_; }
  const char* name() const { return name_; }

 private:
  bl_status start(bl_error* error);
  bl_status load(const ModuleImages& images, LoadedModule* out, bl_error* error);
  int wait_all();

  int index_;
  char name_[128] = "";
  char unusable_[256] = "";
  char lost_[400] = "";
  bool is_started_ = false;
  Ordinal ordinal_ = 0;
  Context context_ = nullptr;
  Limits limits_{};
  Allocator allocator_;
  Staging staging_;
  bl_stream* default_stream_ = nullptr;
  uint64_t reuses_ = 0;
  // Default streams of before a reset: a thread may be in a call with one.
  std::vector<std::unique_ptr<bl_stream>> retired_;
  std::set<bl_stream*> streams_;
  std::map<const ModuleImages*, LoadedModule> modules_;
};

}  // namespace bitloom::cuda
