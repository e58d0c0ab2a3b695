// What an operator's host code needs of a device: its limits, scratch memory, launches. All of a queue runs
// in the order it was put there, after the call returned.
#pragma once

#include <cstdint>

#include "../../native/include/bitloom.h"
#include "images.h"

namespace bitloom::cuda {

struct Dim {
  uint32_t x = 1;
  uint32_t y = 1;
  uint32_t z = 1;
};

struct LaunchShape {
  Dim grid;
  Dim block;
  uint32_t shared_bytes = 0;  // dynamic
};

struct Limits {
  int32_t arch;  // compute capability * 10: 80, 120
  int32_t multiprocessors;
  int32_t shared_bytes_per_block;  // that a kernel may ask for
  int32_t shared_bytes_per_multiprocessor;
  int32_t threads_per_multiprocessor;
};

class Queue {
 public:
  virtual const Limits& limits() const = 0;

  // Whether the module has code for the device: machine code, or PTX that it compiles.
  virtual bool has_code(const ModuleImages& module) const = 0;

  // Launches kernel `name` of the module with one parameter, a struct that is copied before this returns. The
  // kernel takes it as `const __grid_constant__ Params params`.
  template <typename Params>
  bl_status launch(const ModuleImages& module, const char* name, const LaunchShape& shape,
                   const Params& params, bl_error* error) {
    return launch_bytes(module, name, shape, &params, error);
  }

  // Device memory that lives until what is on the queue by the time of free_scratch has run. Aligned to 256.
  virtual bl_status allocate_scratch(uint64_t bytes, void** out, bl_error* error) = 0;
  // The same, with a copy of host memory, which is read before this returns: a table that an operator brings
  // along. Where it is recorded, the graph keeps the table for all its runs.
  virtual bl_status allocate_table(const void* host, uint64_t bytes, void** out, bl_error* error) = 0;
  virtual void free_scratch(void* memory) = 0;

  virtual bl_status fill_zero(void* device, uint64_t bytes, bl_error* error) = 0;
  // Copies device memory to the host once all of the queue so far has run, and returns after that: the one
  // call that waits. Only for operators whose result is host memory (sample).
  virtual bl_status download(void* host, const void* device, uint64_t bytes, bl_error* error) = 0;

 protected:
  ~Queue() = default;
  virtual bl_status launch_bytes(const ModuleImages& module, const char* name, const LaunchShape& shape,
                                 const void* params, bl_error* error) = 0;
};

// Scratch for the rest of a scope.
class Scratch {
 public:
  explicit Scratch(Queue& queue) : queue_(queue) {}
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  ~Scratch() {
    if (memory_ != nullptr) queue_.free_scratch(memory_);
  }
  bl_status allocate(uint64_t bytes, bl_error* error) {
    return queue_.allocate_scratch(bytes, &memory_, error);
  }
  bl_status allocate_table(const void* host, uint64_t bytes, bl_error* error) {
    return queue_.allocate_table(host, bytes, &memory_, error);
  }
  template <typename T>
  T* as() const {
    return static_cast<T*>(memory_);
  }

 private:
  Queue& queue_;
  void* memory_ = nullptr;
};

}  // namespace bitloom::cuda
