// Aligned memory for one call. Kernels get pointers into it; they never allocate.
#pragma once

#include <cstdint>
#include <cstdlib>

namespace bitloom {

constexpr int64_t kScratchAlignment = 64;

constexpr uint64_t align_up(uint64_t bytes) {
  return (bytes + kScratchAlignment - 1) / kScratchAlignment * kScratchAlignment;
}

class Scratch {
 public:
  // Uses the caller's block when it is large enough (its first bytes are skipped up to alignment), else
  // allocates. data() is null when that failed.
  Scratch(void* workspace, uint64_t workspace_bytes, uint64_t bytes) {
    const uint64_t shift =
        (kScratchAlignment - reinterpret_cast<uintptr_t>(workspace) % kScratchAlignment) % kScratchAlignment;
    if (workspace != nullptr && workspace_bytes >= shift + bytes) {
      data_ = static_cast<uint8_t*>(workspace) + shift;
    } else {
      owned_ = std::aligned_alloc(kScratchAlignment, align_up(bytes == 0 ? 1 : bytes));
      data_ = static_cast<uint8_t*>(owned_);
    }
  }
  explicit Scratch(uint64_t bytes) : Scratch(nullptr, 0, bytes) {}
  ~Scratch() { std::free(owned_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;

  uint8_t* data() const { return data_; }

 private:
  void* owned_ = nullptr;
  uint8_t* data_ = nullptr;
};

// A caller's block, given out piece by piece.
class Workspace {
 public:
  Workspace(void* data, uint64_t bytes) : next_(static_cast<uint8_t*>(data)), left_(bytes) {
    if (data == nullptr) left_ = 0;
    skip((kScratchAlignment - reinterpret_cast<uintptr_t>(data) % kScratchAlignment) % kScratchAlignment);
  }

  // The next `bytes` of it, or memory of their own where it has no more.
  Scratch take(uint64_t bytes) {
    uint8_t* data = next_;
    const uint64_t had = left_;
    if (had >= bytes) skip(align_up(bytes));
    return Scratch(data, had, bytes);
  }

 private:
  void skip(uint64_t bytes) {
    bytes = bytes < left_ ? bytes : left_;
    next_ += bytes;
    left_ -= bytes;
  }

  uint8_t* next_;
  uint64_t left_;
};

}  // namespace bitloom
