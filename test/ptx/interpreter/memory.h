// Device memory: allocations with guard gaps between them, each with its shadow.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "shadow.h"

namespace bitloom::ptx {

struct Allocation {
  uint64_t base = 0;
  uint64_t bytes = 0;
  std::string name;  // of a variable; empty for allocate()
  bool is_const = false;
  std::vector<uint8_t> data;
  Shadow shadow;
};

// Addresses are 256-byte aligned, never used twice, and at least 4 KiB apart, so that an index that runs over
// the end of one buffer does not land in the next. All calls but find() throw Fault(bad_address) on what lies
// outside.
class DeviceMemory {
 public:
  uint64_t allocate(uint64_t bytes, std::string name = {}, uint64_t align = 256);
  // The same at an address of the caller's choice, which must lie apart from all others. For drivers that
  // give addresses out before the memory exists (stream-ordered allocation).
  void allocate_at(uint64_t address, uint64_t bytes);
  // allocate() gives addresses from here on, so that those before are left to allocate_at().
  void start_at(uint64_t address) { next_ = address; }
  void free(uint64_t address);
  void write(uint64_t address, const void* source, uint64_t bytes);
  void read(void* target, uint64_t address, uint64_t bytes) const;
  void fill(uint64_t address, uint8_t value, uint64_t bytes);
  // Copies between disjoint ranges; what was not written in the source is not written in the target either.
  void copy(uint64_t target, uint64_t source, uint64_t bytes);
  // Whether every byte of the range has been written.
  bool is_written(uint64_t address, uint64_t bytes);
  // Forgets that the range was written: a test's way to find reads of padding.
  void mark_unwritten(uint64_t address, uint64_t bytes);

  // The allocation that holds the address (one past the end included), or null.
  Allocation* find(uint64_t address) const;
  // "7 bytes past the end of the 1024 bytes at 0x..." and the like, for messages.
  std::string describe(uint64_t address) const;
  void start_launch();
  uint64_t bytes_allocated() const { return bytes_allocated_; }

 private:
  Allocation& range(uint64_t address, uint64_t bytes, const char* what) const;
  void insert(uint64_t base, uint64_t bytes, std::string name);
  std::map<uint64_t, std::unique_ptr<Allocation>> allocations_;
  std::map<uint64_t, uint64_t> freed_;  // base -> bytes
  uint64_t next_ = 0x1000000000;        // above 4 GiB: an address cut to 32 bits is noticed
  uint64_t bytes_allocated_ = 0;
  uint32_t launch_ = 0;
};

}  // namespace bitloom::ptx
