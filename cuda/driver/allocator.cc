#include "allocator.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>

namespace bitloom::cuda {

namespace {

constexpr uint64_t kAlignment = 256;
constexpr uint64_t kSegment = 2 << 20;        // the driver maps memory in pages of 2 MB
constexpr uint64_t kSmallSegment = 16 << 20;  // blocks below 1 MB share segments of this size
constexpr uint64_t kSmall = 1 << 20;

bool is_exact() {
  const char* setting = std::getenv("BITLOOM_CUDA_ALLOCATOR");
  return setting != nullptr && std::strcmp(setting, "exact") == 0;
}

uint64_t round_up(uint64_t value, uint64_t to) { return (value + to - 1) / to * to; }

}  // namespace

Allocator::Allocator() : exact_(is_exact()) {}

int Allocator::try_allocate(bl_stream* stream, uint64_t bytes, Block** out) {
  if (bytes > (uint64_t{1} << 62)) return kOutOfMemory;
  const uint64_t rounded =
      exact_ ? std::max<uint64_t>(bytes, 1) : round_up(std::max<uint64_t>(bytes, 1), kAlignment);
  auto& blocks = free_[stream];
  Block wanted;
  wanted.bytes = rounded;
  const auto found = blocks.lower_bound(&wanted);
  Block* block = nullptr;
  // A large block that is twice as large as needed would be cut forever: better a segment of its own.
  if (found != blocks.end() && (rounded < kSmall || (*found)->bytes <= 2 * rounded)) {
    block = *found;
    blocks.erase(found);
  } else if (const int result = add_segment(stream, rounded, &block); result != kSuccess) {
    return result;
  }
  *out = take(block, rounded);
  ++statistics_.allocations;
  statistics_.used += (*out)->bytes;
  statistics_.peak = std::max(statistics_.peak, statistics_.used);
  return kSuccess;
}

int Allocator::add_segment(bl_stream* stream, uint64_t bytes, Block** out) {
  uint64_t size = exact_ ? bytes : bytes < kSmall ? kSmallSegment : round_up(bytes, kSegment);
  const auto fits = [&](uint64_t candidate) {
    return statistics_.limit == 0 || statistics_.reserved + candidate <= statistics_.limit;
  };
  if (!fits(size)) size = bytes;  // a low limit: no more than what is asked for
  if (!fits(size)) return kOutOfMemory;
  Address address = 0;
  ++statistics_.driver_calls;
  if (const int result = driver().memory_allocate(&address, size); result != kSuccess) return result;
  auto block = std::make_unique<Block>();
  block->address = address;
  block->bytes = size;
  block->stream = stream;
  *out = block.get();
  blocks_[address] = std::move(block);
  statistics_.reserved += size;
  return kSuccess;
}

// The first `bytes` of a block that is in no list; the rest becomes a free block of its own.
Block* Allocator::take(Block* block, uint64_t bytes) {
  block->is_free = false;
  if (block->bytes == bytes) return block;
  auto rest = std::make_unique<Block>();
  rest->address = block->address + bytes;
  rest->bytes = block->bytes - bytes;
  rest->stream = block->stream;
  rest->is_free = true;
  rest->was_used = block->was_used;
  rest->previous = block;
  rest->next = block->next;
  if (rest->next != nullptr) rest->next->previous = rest.get();
  block->next = rest.get();
  block->bytes = bytes;
  free_[rest->stream].insert(rest.get());
  blocks_[rest->address] = std::move(rest);
  return block;
}

void Allocator::merge(Block* left, Block* right) {
  left->bytes += right->bytes;
  left->was_used = left->was_used || right->was_used;
  left->next = right->next;
  if (right->next != nullptr) right->next->previous = left;
  blocks_.erase(right->address);
}

void Allocator::free(Block* block) {
  statistics_.used -= block->bytes;
  if (exact_) {  // the driver waits for what uses it
    statistics_.reserved -= block->bytes;
    ++statistics_.driver_calls;
    driver().memory_free(block->address);
    blocks_.erase(block->address);
    return;
  }
  block->is_free = true;
  block->was_used = true;
  auto& blocks = free_[block->stream];
  if (Block* next = block->next; next != nullptr && next->is_free && next->stream == block->stream) {
    blocks.erase(next);
    merge(block, next);
  }
  if (Block* previous = block->previous;
      previous != nullptr && previous->is_free && previous->stream == block->stream) {
    blocks.erase(previous);
    merge(previous, block);
    block = previous;
  }
  blocks.insert(block);
}

void Allocator::give_back() {
  for (auto& [stream, blocks] : free_) {
    for (auto it = blocks.begin(); it != blocks.end();) {
      Block* block = *it;
      if (block->previous != nullptr || block->next != nullptr) {
        ++it;
        continue;
      }
      it = blocks.erase(it);
      statistics_.reserved -= block->bytes;
      ++statistics_.driver_calls;
      driver().memory_free(block->address);
      blocks_.erase(block->address);
    }
  }
}

void Allocator::inherit(bl_stream* stream, bl_stream* heir) {
  for (auto& [address, block] : blocks_) {
    if (block->stream == stream) block->stream = heir;
  }
  const auto found = free_.find(stream);
  if (found == free_.end()) return;
  std::set<Block*, BySize> blocks = std::move(found->second);
  free_.erase(found);
  free_[heir].insert(blocks.begin(), blocks.end());
}

void Allocator::forget() {
  free_.clear();
  blocks_.clear();
  const uint64_t limit = statistics_.limit;
  statistics_ = {};
  statistics_.limit = limit;
}

}  // namespace bitloom::cuda
