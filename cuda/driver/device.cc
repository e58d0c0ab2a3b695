#include "device.h"

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <vector>

namespace bitloom::cuda {

extern const ModuleImages kv_module;

namespace {

constexpr int kOldestArch = 80;

std::vector<std::unique_ptr<Device>>& devices() {
  static std::vector<std::unique_ptr<Device>>* list = [] {
    auto* made =
        new std::vector<std::unique_ptr<Device>>();  // lives as long as the process: handles refer to it
    const char* reason = nullptr;
    const Driver* opened = driver(&reason);
    int count = 0;
    if (opened != nullptr && opened->device_count(&count) == kSuccess) {
      for (int i = 0; i < count; ++i) made->push_back(std::make_unique<Device>(i));
    }
    return made;
  }();
  return *list;
}

}  // namespace

int device_count() { return static_cast<int>(devices().size()); }

const char* unavailable() {
  const char* reason = nullptr;
  driver(&reason);
  return reason;
}

bl_status find_device(int32_t index, Device** out, bl_error* error) {
  const char* reason = unavailable();
  BL_CHECK(reason == nullptr, not_found, "cuda:%d: %s", index, reason);
  BL_CHECK(index >= 0 && index < device_count(), not_found, "cuda:%d: there are %d devices", index,
           device_count());
  *out = devices()[static_cast<size_t>(index)].get();
  return BL_STATUS_ok;
}

Device::Device(int index) : index_(index) {
  int major = 0;
  int minor = 0;
  int values[4] = {};
  const int attributes[4] = {kMultiprocessors, kSharedBytesPerBlock, kSharedBytesPerMultiprocessor,
                             kThreadsPerMultiprocessor};
  const Driver& d = driver();
  int result = d.device_get(&ordinal_, index);
  if (result == kSuccess) result = d.device_name(name_, sizeof(name_), ordinal_);
  if (result == kSuccess) result = d.device_attribute(&major, kComputeMajor, ordinal_);
  if (result == kSuccess) result = d.device_attribute(&minor, kComputeMinor, ordinal_);
  for (int i = 0; i < 4 && result == kSuccess; ++i) {
    result = d.device_attribute(&values[i], attributes[i], ordinal_);
  }
  limits_ = {major * 10 + minor, values[0], values[1], values[2], values[3]};
  if (result != kSuccess) {
    bl_error error{};
    driver_error(result, "the driver does not describe it", &error);
    std::snprintf(unusable_, sizeof(unusable_), "%.*s", static_cast<int>(sizeof(unusable_)) - 1,
                  error.message);
  } else if (limits_.arch < kOldestArch) {
    std::snprintf(unusable_, sizeof(unusable_), "compute capability %d.%d, expected 8.0 or later", major,
                  minor);
  }
}

bl_status Device::start(bl_error* error) {
  BL_CUDA(driver().context_retain(&context_, ordinal_), "cuDevicePrimaryCtxRetain");
  BL_CUDA(driver().context_set(context_), "cuCtxSetCurrent");
  is_started_ = true;
  return create_stream(&default_stream_, error);
}

bl_status Device::enter(bl_error* error) {
  BL_CHECK(unusable_[0] == 0, unsupported, "cuda:%d (%s): %s", index_, name_, unusable_);
  BL_CHECK(lost_[0] == 0, device_lost, "cuda:%d is lost: %s; reset it to go on", index_, lost_);
  if (!is_started_) {
    if (const bl_status status = start(error); status != BL_STATUS_ok) {
      is_started_ = false;
      return status;
    }
  }
  const int result = driver().context_set(context_);
  return result == kSuccess ? BL_STATUS_ok : failed(result, "cuCtxSetCurrent", error);
}

bl_status Device::failed(int result, const char* what, bl_error* error) {
  bl_error local{};
  const bl_status status = driver_error(result, what, &local);
  if (is_sticky(result) && lost_[0] == 0) {
    std::snprintf(lost_, sizeof(lost_), "%.*s", static_cast<int>(sizeof(lost_)) - 1, local.message);
  }
  return fail(error, status, "cuda:%d: %s", index_, local.message);
}

bl_status Device::resolve(bl_stream* stream, bl_stream** out, bl_error* error) {
  if (stream == nullptr) stream = default_stream_;
  BL_CHECK(&stream->device == this, invalid_argument, "cuda:%d: the stream is of another device", index_);
  BL_CHECK(stream->generation == generation, detached, "cuda:%d: the stream is from before a reset", index_);
  *out = stream;
  if (stream->followed == reuses_ || stream->is_recording) return BL_STATUS_ok;
  for (bl_stream* other : streams_) {
    if (other == stream || other->reused <= stream->followed || other->is_recording) continue;
    BL_RETURN_IF_ERROR(wait_for(*stream, *other, error));
  }
  stream->followed = reuses_;
  return BL_STATUS_ok;
}

bl_status Device::info(bl_device_info* out, bl_error* error) {
  *out = bl_device_info{};
  std::memcpy(out->name, name_, sizeof(name_));
  out->arch = limits_.arch;
  out->multiprocessors = limits_.multiprocessors;
  size_t total = 0;
  if (driver().device_memory(&total, ordinal_) == kSuccess) out->memory_bytes = total;
  std::snprintf(out->unusable, sizeof(out->unusable), "%.*s", static_cast<int>(sizeof(out->unusable)) - 1,
                unusable_[0] != 0 ? unusable_ : lost_);
  if (out->unusable[0] != 0) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(enter(error));
  size_t free = 0;
  if (const int result = driver().memory_info(&free, &total); result != kSuccess) {
    return failed(result, "cuMemGetInfo", error);
  }
  const MemoryStatistics& memory = allocator_.statistics();
  out->free_bytes = free;
  out->used_bytes = memory.used;
  out->reserved_bytes = memory.reserved;
  out->peak_bytes = memory.peak;
  out->limit_bytes = memory.limit;
  out->allocations = memory.allocations;
  out->driver_calls = memory.driver_calls;
  // Whether the driver takes the code, by a module that is small.
  LoadedModule& module = modules_[&kv_module];
  bl_error refused{};
  if (module.handle == nullptr && load(kv_module, &module, &refused) != BL_STATUS_ok) {
    std::snprintf(out->unusable, sizeof(out->unusable), "%.*s", static_cast<int>(sizeof(out->unusable)) - 1,
                  refused.message);
  }
  return BL_STATUS_ok;
}

bl_status Device::set_limit(uint64_t bytes, bl_error* error) {
  BL_RETURN_IF_ERROR(enter(error));
  allocator_.set_limit(bytes);
  if (bytes == 0 || allocator_.statistics().reserved <= bytes) return BL_STATUS_ok;
  if (const int result = wait_all(); result != kSuccess) return failed(result, "cuStreamSynchronize", error);
  allocator_.give_back();
  return BL_STATUS_ok;
}

bl_status Device::reset(bl_error* error) {
  BL_CHECK(unusable_[0] == 0, unsupported, "cuda:%d (%s): %s", index_, name_, unusable_);
  if (is_started_) {
    // Memory, streams, events and modules go with the context.
    const int result = driver().context_reset(ordinal_);
    if (result != kSuccess) return failed(result, "cuDevicePrimaryCtxReset", error);
    driver().context_release(ordinal_);
  }
  ++generation;
  allocator_.forget();
  staging_.forget();
  modules_.clear();
  for (bl_stream* stream : streams_) {
    stream->handle = nullptr;
    stream->scratch.clear();
    stream->held.clear();
    stream->spare.clear();
  }
  streams_.clear();
  if (default_stream_ != nullptr) retired_.emplace_back(default_stream_);
  default_stream_ = nullptr;
  is_started_ = false;
  lost_[0] = 0;
  return enter(error);
}

bl_status Device::create_stream(bl_stream** out, bl_error* error) {
  auto stream = std::make_unique<bl_stream>(*this);
  int result = driver().stream_create(&stream->handle, kStreamNonBlocking);
  if (result != kSuccess) return failed(result, "cuStreamCreate", error);
  result = driver().event_create(&stream->event, kEventWithoutTiming);
  if (result != kSuccess) {
    driver().stream_destroy(stream->handle);
    return failed(result, "cuEventCreate", error);
  }
  stream->generation = generation;
  streams_.insert(stream.get());
  *out = stream.release();
  return BL_STATUS_ok;
}

void Device::destroy_stream(bl_stream* stream) {
  if (stream->generation != generation || lost_[0] != 0) {
    streams_.erase(stream);
    delete stream;
    return;
  }
  driver().context_set(context_);
  bl_error ignored{};
  wait_for(*default_stream_, *stream, &ignored);
  for (Block* block : stream->held) allocator_.free(block);
  for (Block* block : stream->spare) allocator_.free(block);
  allocator_.inherit(stream, default_stream_);
  driver().event_destroy(stream->event);
  driver().stream_destroy(stream->handle);  // what is queued still runs
  streams_.erase(stream);
  delete stream;
}

int Device::wait_all() {
  for (bl_stream* stream : streams_) {
    if (stream->is_recording) continue;
    if (const int result = driver().stream_synchronize(stream->handle); result != kSuccess) return result;
    stream->has_work = false;
  }
  return kSuccess;
}

bl_status Device::allocate(bl_stream* stream, uint64_t bytes, Block** out, bl_error* error) {
  const int result = allocator_.allocate(stream, bytes, [&] { return wait_all(); }, out);
  if (result == kSuccess) return BL_STATUS_ok;
  const MemoryStatistics& memory = allocator_.statistics();
  BL_CHECK(result != kOutOfMemory, out_of_memory,
           "cuda:%d: no memory for %llu bytes: %llu in use, %llu reserved, limit %llu", index_,
           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(memory.used),
           static_cast<unsigned long long>(memory.reserved), static_cast<unsigned long long>(memory.limit));
  return failed(result, "cuMemAlloc", error);
}

// Its stream may still be at work for an earlier user: another stream that gets it must come after that.
bl_status Device::allocate_shared(bl_stream* stream, uint64_t bytes, Block** out, bl_error* error) {
  BL_RETURN_IF_ERROR(allocate(stream, bytes, out, error));
  if ((*out)->was_used && stream->has_work) stream->reused = ++reuses_;
  return BL_STATUS_ok;
}

// Streams other than the block's may still use it: its own waits for them before the next user comes.
void Device::free(Block* block) {
  bl_stream* home = block->stream;
  for (bl_stream* stream : streams_) {
    if (stream->is_recording) {
      stream->held.push_back(block);  // a graph may replay its use
      return;
    }
  }
  bl_error ignored{};
  for (bl_stream* stream : streams_) {
    if (stream != home && stream->has_work && lost_[0] == 0) wait_for(*home, *stream, &ignored);
  }
  allocator_.free(block);
}

bl_status Device::wait_for(bl_stream& stream, bl_stream& other, bl_error* error) {
  int result = driver().event_record(other.event, other.handle);
  if (result == kSuccess) result = driver().stream_wait(stream.handle, other.event, 0);
  if (result != kSuccess) return failed(result, "cuStreamWaitEvent", error);
  stream.has_work = true;
  return BL_STATUS_ok;
}

// Machine code made for the device, else the newest PTX that it runs.
bl_status Device::load(const ModuleImages& images, LoadedModule* out, bl_error* error) {
  std::vector<const Image*> order;
  for (size_t i = 0; i < images.count; ++i) {
    const Image& image = images.images[i];
    if (fits(image, limits_.arch)) order.push_back(&image);
  }
  std::sort(order.begin(), order.end(), [](const Image* a, const Image* b) {
    return a->is_ptx != b->is_ptx ? !a->is_ptx : a->arch > b->arch;
  });
  int result = kNoBinaryForGpu;
  for (const Image* image : order) {
    result = driver().module_load(&out->handle, image->data);
    if (result == kSuccess) return BL_STATUS_ok;
    if (is_sticky(result) || result == kOutOfMemory) break;
  }
  bl_error local{};
  const bl_status status = failed(result, "cuModuleLoadData", &local);
  int version = 0;
  driver().driver_version(&version);
  return fail(
      error, status, "%s: no image of module %s runs on compute capability %d.%d with a driver of CUDA %d.%d",
      local.message, images.name, limits_.arch / 10, limits_.arch % 10, version / 1000, version % 1000 / 10);
}

bl_status Device::find_kernel(const ModuleImages& images, const char* name, uint32_t shared_bytes,
                              Function* out, bl_error* error) {
  LoadedModule& module = modules_[&images];
  if (module.handle == nullptr) BL_RETURN_IF_ERROR(load(images, &module, error));
  LoadedModule::Kernel& kernel = module.kernels[name];
  if (kernel.function == nullptr) {
    const int result = driver().module_function(&kernel.function, module.handle, name);
    if (result != kSuccess) return failed(result, name, error);
  }
  if (shared_bytes > kernel.shared_bytes) {
    const int result =
        driver().function_set(kernel.function, kFunctionSharedBytes, static_cast<int>(shared_bytes));
    if (result != kSuccess) return failed(result, name, error);
    kernel.shared_bytes = shared_bytes;
  }
  *out = kernel.function;
  return BL_STATUS_ok;
}

bl_status Device::copy_to_device(bl_stream& stream, Address output, const void* input, uint64_t bytes,
                                 bl_error* error) {
  const auto* from = static_cast<const uint8_t*>(input);
  while (bytes > 0) {
    Chunk* chunk = nullptr;
    int result = staging_.acquire(bytes, &chunk);
    if (result != kSuccess) return failed(result, "staging memory", error);
    const uint64_t part = std::min(bytes, chunk->bytes);
    std::memcpy(chunk->memory, from, part);
    result = driver().copy_to_device(output, chunk->memory, part, stream.handle);
    const int released = staging_.release(chunk, stream.handle);
    if (result == kSuccess) result = released;
    if (result != kSuccess) return failed(result, "cuMemcpyHtoDAsync", error);
    stream.has_work = true;
    output += part;
    from += part;
    bytes -= part;
  }
  return BL_STATUS_ok;
}

bl_status Device::copy_now(Address output, const void* input, uint64_t bytes, bl_error* error) {
  bl_stream& stream = *default_stream_;
  BL_CHECK(!stream.is_recording, unsupported,
           "graph: a table cannot be copied while the device's own stream is recorded");
  BL_RETURN_IF_ERROR(copy_to_device(stream, output, input, bytes, error));
  const int result = driver().stream_synchronize(stream.handle);
  return result == kSuccess ? BL_STATUS_ok : failed(result, "cuStreamSynchronize", error);
}

// One chunk serves all parts: the stream's order is chunk filled, chunk copied on, chunk filled again.
bl_status Device::copy_from_device(bl_stream& stream, void* output, Address input, uint64_t bytes,
                                   bl_error* error) {
  if (bytes == 0) return BL_STATUS_ok;
  Chunk* chunk = nullptr;
  int result = staging_.acquire(bytes, &chunk);
  if (result != kSuccess) return failed(result, "staging memory", error);
  auto* to = static_cast<uint8_t*>(output);
  while (bytes > 0 && result == kSuccess) {
    const uint64_t part = std::min(bytes, chunk->bytes);
    chunk->copies.push_back(std::make_unique<HostCopy>(HostCopy{to, chunk->memory, part}));
    result = driver().copy_from_device(chunk->memory, input, part, stream.handle);
    if (result != kSuccess) break;
    const auto copy = [](void* argument) {
      const auto* it = static_cast<const HostCopy*>(argument);
      std::memcpy(it->output, it->input, it->bytes);
    };
    result = driver().stream_call(stream.handle, copy, chunk->copies.back().get());
    stream.has_work = true;
    input += part;
    to += part;
    bytes -= part;
  }
  const int released = staging_.release(chunk, stream.handle);
  if (result == kSuccess) result = released;
  if (result == kSuccess) return BL_STATUS_ok;
  driver().stream_synchronize(
      stream.handle);  // parts that are queued write to `output`, which the caller may free now
  return failed(result, "cuMemcpyDtoHAsync", error);
}

}  // namespace bitloom::cuda
