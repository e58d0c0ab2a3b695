// Page-locked host memory through which copies go: the device reads and writes it by itself, while the
// caller's own memory may change or is written later. Not thread-safe: its device locks.
#pragma once

#include <memory>
#include <vector>

#include "driver.h"

namespace bitloom::cuda {

// A copy from a chunk to the caller's memory, made by the driver's thread when the stream gets there.
struct HostCopy {
  void* output;
  const void* input;
  uint64_t bytes;
};

struct Chunk {
  uint8_t* memory = nullptr;
  uint64_t bytes = 0;
  DriverEvent done = nullptr;  // of its last use
  bool is_used = false;        // between acquire and release
  std::vector<std::unique_ptr<HostCopy>> copies;
};

class Staging {
 public:
  static constexpr uint64_t kSmall = 64 << 10;
  static constexpr uint64_t kLarge = 4 << 20;

  // A chunk of at least min(bytes, kLarge); waits for the device where there are kMostChunks of the size
  // already.
  int acquire(uint64_t bytes, Chunk** out);
  // Its use ends when what is on `stream` by now has run.
  int release(Chunk* chunk, DriverStream stream);
  void forget();  // after a reset of the device
  uint64_t bytes() const;

 private:
  static constexpr size_t kMostChunks = 4;
  std::vector<std::unique_ptr<Chunk>> chunks_;
  size_t next_ = 0;
};

}  // namespace bitloom::cuda
