#include "staging.h"

#include <algorithm>

namespace bitloom::cuda {

int Staging::acquire(uint64_t bytes, Chunk** out) {
  const uint64_t size = bytes <= kSmall ? kSmall : kLarge;
  std::vector<Chunk*> fitting;
  for (const auto& chunk : chunks_) {
    if (chunk->bytes != size || chunk->is_used) continue;
    fitting.push_back(chunk.get());
    const int result = driver().event_query(chunk->done);
    if (result == kNotReady) continue;
    if (result != kSuccess) return result;
    chunk->is_used = true;
    chunk->copies.clear();
    *out = chunk.get();
    return kSuccess;
  }
  if (fitting.size() >= kMostChunks) {
    Chunk* chunk = fitting[next_++ % fitting.size()];
    if (const int result = driver().event_synchronize(chunk->done); result != kSuccess) return result;
    chunk->is_used = true;
    chunk->copies.clear();
    *out = chunk;
    return kSuccess;
  }
  auto chunk = std::make_unique<Chunk>();
  void* memory = nullptr;
  if (const int result = driver().host_allocate(&memory, size, 0); result != kSuccess) return result;
  if (const int result = driver().event_create(&chunk->done, kEventWithoutTiming); result != kSuccess) {
    driver().host_free(memory);
    return result;
  }
  chunk->memory = static_cast<uint8_t*>(memory);
  chunk->bytes = size;
  chunk->is_used = true;
  *out = chunk.get();
  chunks_.push_back(std::move(chunk));
  return kSuccess;
}

int Staging::release(Chunk* chunk, DriverStream stream) {
  const int result = driver().event_record(chunk->done, stream);
  if (result != kSuccess)
    driver().stream_synchronize(stream);  // nothing else tells when the copy has read it
  chunk->is_used = false;
  return result;
}

void Staging::forget() { chunks_.clear(); }

uint64_t Staging::bytes() const {
  uint64_t sum = 0;
  for (const auto& chunk : chunks_) sum += chunk->bytes;
  return sum;
}

}  // namespace bitloom::cuda
