// A cache of device memory. Blocks are cut from segments that the driver gave, and go back to the free blocks
// of the stream they were used on, where the next user comes after the last one in stream order: neither
// allocating nor freeing waits for the device. Not thread-safe: its device locks.
//
// BITLOOM_CUDA_ALLOCATOR=exact, for tests: no cache; each block is an allocation of the driver's, of exactly
// as many bytes as were asked for, so that a checking driver sees an access one byte past its end, or after
// its end of life.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <vector>

#include "driver.h"

namespace bitloom::cuda {

struct Block {
  Address address = 0;
  uint64_t bytes = 0;
  bl_stream* stream = nullptr;  // whose order it follows
  bool is_free = false;
  bool was_used = false;      // it, or a part of it, had another user before
  Block* previous = nullptr;  // neighbours in the segment
  Block* next = nullptr;
};

struct MemoryStatistics {
  uint64_t used = 0;
  uint64_t reserved = 0;
  uint64_t peak = 0;
  uint64_t limit = 0;  // 0: none
  uint64_t allocations = 0;
  uint64_t driver_calls = 0;
};

class Allocator {
 public:
  Allocator();
  // A result of the driver. Before it says out of memory, what is free in other streams is used: `wait_all`
  // must make the device finish everything.
  template <typename WaitAll>
  int allocate(bl_stream* stream, uint64_t bytes, WaitAll wait_all, Block** out) {
    int result = try_allocate(stream, bytes, out);
    if (result != kOutOfMemory) return result;
    if (const int waited = wait_all(); waited != kSuccess) return waited;
    give_back();
    return try_allocate(stream, bytes, out);
  }
  void free(Block* block);

  // Frees every segment that is not in use. The device must have finished.
  void give_back();
  // Blocks of a stream that ends belong to `heir` from now on.
  void inherit(bl_stream* stream, bl_stream* heir);
  // After a reset of the device: its memory is gone already.
  void forget();
  void set_limit(uint64_t bytes) { statistics_.limit = bytes; }
  const MemoryStatistics& statistics() const { return statistics_; }

 private:
  struct BySize {
    bool operator()(const Block* a, const Block* b) const {
      return a->bytes != b->bytes ? a->bytes < b->bytes : a->address < b->address;
    }
  };
  int try_allocate(bl_stream* stream, uint64_t bytes, Block** out);
  int add_segment(bl_stream* stream, uint64_t bytes, Block** out);
  Block* take(Block* block, uint64_t bytes);
  void merge(Block* left, Block* right);

  bool exact_;
  std::map<bl_stream*, std::set<Block*, BySize>> free_;
  std::map<Address, std::unique_ptr<Block>> blocks_;
  MemoryStatistics statistics_;
};

}  // namespace bitloom::cuda
