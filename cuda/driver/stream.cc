// A stream as operators see it (Queue).
#include <algorithm>

#include "device.h"

using namespace bitloom;
using namespace bitloom::cuda;

namespace {

Address address_of(const void* memory) { return reinterpret_cast<Address>(memory); }

}  // namespace

const Limits& bl_stream::limits() const { return device.limits(); }

bool bl_stream::has_code(const ModuleImages& module) const {
  const auto runs = [&](const Image& image) { return fits(image, limits().arch); };
  return std::any_of(module.images, module.images + module.count, runs);
}

bl_status bl_stream::allocate_scratch(uint64_t bytes, void** out, bl_error* error) {
  const std::lock_guard lock(device.mutex);
  Block* block = nullptr;
  const auto fits = [&](const Block* one) { return one->bytes >= bytes; };
  if (const auto found = std::find_if(spare.begin(), spare.end(), fits);
      is_recording && found != spare.end()) {
    block = *found;
    spare.erase(found);
  } else {
    BL_RETURN_IF_ERROR(device.allocate(this, bytes, &block, error));
  }
  scratch.insert(block);
  *out = reinterpret_cast<void*>(block->address);
  return BL_STATUS_ok;
}

bl_status bl_stream::allocate_table(const void* host, uint64_t bytes, void** out, bl_error* error) {
  const std::lock_guard lock(device.mutex);
  Block* block = nullptr;
  // Not what earlier operators of a graph use: they would write over it when they run again.
  BL_RETURN_IF_ERROR(device.allocate(this, bytes, &block, error));
  *out = reinterpret_cast<void*>(block->address);
  if (is_recording) {
    held.push_back(block);
    return device.copy_now(block->address, host, bytes, error);
  }
  scratch.insert(block);
  return device.copy_to_device(*this, block->address, host, bytes, error);
}

void bl_stream::free_scratch(void* memory) {
  const std::lock_guard lock(device.mutex);
  for (Block* block : scratch) {
    if (block->address != address_of(memory)) continue;
    scratch.erase(block);
    if (is_recording) {
      spare.push_back(block);
    } else {
      device.free(block);
    }
    return;
  }
}

bl_status bl_stream::download(void* output, const void* input, uint64_t bytes, bl_error* error) {
  {
    const std::lock_guard lock(device.mutex);
    BL_CHECK(!is_recording, unsupported, "graph: a copy to host memory cannot be kept in a graph");
    BL_RETURN_IF_ERROR(device.copy_from_device(*this, output, address_of(input), bytes, error));
  }
  const int result = driver().stream_synchronize(handle);  // unlocked: others go on meanwhile
  const std::lock_guard lock(device.mutex);
  if (result != kSuccess) return device.failed(result, "cuStreamSynchronize", error);
  return BL_STATUS_ok;
}

bl_status bl_stream::fill_zero(void* output, uint64_t bytes, bl_error* error) {
  if (bytes == 0) return BL_STATUS_ok;
  const std::lock_guard lock(device.mutex);
  const int result = driver().fill(address_of(output), 0, bytes, handle);
  has_work = has_work || !is_recording;
  return result == kSuccess ? BL_STATUS_ok : device.failed(result, "cuMemsetD8Async", error);
}

bl_status bl_stream::launch_bytes(const ModuleImages& module, const char* name, const LaunchShape& shape,
                                  const void* params, bl_error* error) {
  const std::lock_guard lock(device.mutex);
  Function function = nullptr;
  BL_RETURN_IF_ERROR(device.find_kernel(module, name, shape.shared_bytes, &function, error));
  void* parameters[] = {const_cast<void*>(params)};
  const int result =
      driver().launch(function, shape.grid.x, shape.grid.y, shape.grid.z, shape.block.x, shape.block.y,
                      shape.block.z, shape.shared_bytes, handle, parameters, nullptr);
  has_work = has_work || !is_recording;
  return result == kSuccess ? BL_STATUS_ok : device.failed(result, name, error);
}
