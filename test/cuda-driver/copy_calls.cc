// Copies and fills.
#include <cstdio>
#include <cstring>

#include "calls.h"
#include "ranges.h"

namespace bitloom::cuda_emulation {

bool is_device_range(Driver& driver, const Device& device, const char* call, CUdeviceptr address,
                     size_t bytes) {
  const auto after = device.allocations.upper_bound(address);
  const auto found = after == device.allocations.begin() ? device.allocations.end() : std::prev(after);
  if (found != device.allocations.end() && !found->second.is_freed &&
      address - found->first <= found->second.bytes &&
      bytes <= found->second.bytes - (address - found->first)) {
    return true;
  }
  char text[160];
  std::snprintf(text, sizeof text, "%s: %zu bytes at 0x%llx are not within one live allocation", call, bytes,
                address);
  record_fault(driver, text);
  return false;
}

HostKind host_kind(const Driver& driver, const void* memory, size_t bytes) {
  const uintptr_t first = reinterpret_cast<uintptr_t>(memory);
  for (const auto& [base, range] : driver.host_ranges) {
    if (first >= base && first + bytes <= base + range.bytes) return HostKind::pinned;
    if (first < base + range.bytes && base < first + bytes) return HostKind::mixed;
  }
  return HostKind::pageable;
}

namespace {

// The stream's work so far is awaited, as the reference says of copies without "Async" that touch pageable
// memory.
void wait_for_stream(Driver& driver, Stream& stream, Lock& lock) { wait_for(driver, stream.last, lock); }

struct Copy {
  const char* call;
  CUstream stream;
  bool is_async;
};

// Runs body(driver, context, stream, lock): the checks that copies and fills share.
template <typename Body>
CUresult on_stream(const Copy& copy, Body&& body) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) {
    if (!copy.is_async) {
      const CUresult refused = refuse_in_capture(driver);
      if (refused != CUDA_SUCCESS) return refused;
    }
    const std::shared_ptr<Stream> stream = find_stream(driver, context, copy.stream);
    if (!stream) return static_cast<CUresult>(CUDA_ERROR_INVALID_HANDLE);
    return static_cast<CUresult>(body(driver, context, *stream, lock));
  });
}

CUresult copy_to_device(const Copy& copy, CUdeviceptr to, const void* from, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock& lock) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    const HostKind kind = host_kind(driver, from, bytes);
    if (!from || kind == HostKind::mixed || !is_device_range(driver, *context.device, copy.call, to, bytes))
      return CUDA_ERROR_INVALID_VALUE;
    Work work{.name = copy.call, .run = {}, .host_bytes = bytes};
    if (kind == HostKind::pageable && !stream.capture) {  // staged at the call
      if (!copy.is_async) wait_for_stream(driver, stream, lock);
      if (context.error != CUDA_SUCCESS) return context.error;
      const auto staged = std::make_shared<std::vector<uint8_t>>(bytes);
      std::memcpy(staged->data(), from, bytes);
      work.run = [=](Device& device) { memory_of(device).write(to, staged->data(), bytes); };
      return submit(driver, stream, std::move(work));
    }
    if (kind == HostKind::pinned) work.host_source = from;
    work.run = [=](Device& device) { memory_of(device).write(to, from, bytes); };
    TicketPtr ticket;
    const CUresult result = submit(driver, stream, std::move(work), &ticket);
    if (result != CUDA_SUCCESS || copy.is_async) return result;
    wait_for(driver, ticket, lock);
    return context.error;
  });
}

CUresult copy_to_host(const Copy& copy, void* to, CUdeviceptr from, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock& lock) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    const HostKind kind = host_kind(driver, to, bytes);
    if (!to || kind == HostKind::mixed || !is_device_range(driver, *context.device, copy.call, from, bytes))
      return CUDA_ERROR_INVALID_VALUE;
    Work work{.name = copy.call,
              .run = [=](Device& device) { memory_of(device).read(to, from, bytes); },
              .host_target = kind == HostKind::pinned ? to : nullptr,
              .host_bytes = bytes};
    TicketPtr ticket;
    const CUresult result = submit(driver, stream, std::move(work), &ticket);
    // Into pageable memory even the asynchronous call returns only when the bytes are there.
    if (result != CUDA_SUCCESS || !ticket || (copy.is_async && kind == HostKind::pinned)) return result;
    wait_for(driver, ticket, lock);
    return context.error;
  });
}

CUresult copy_on_device(const Copy& copy, CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    const bool overlapping = to < from + bytes && from < to + bytes;
    if (overlapping) record_fault(driver, std::string(copy.call) + ": source and target overlap");
    if (overlapping || !is_device_range(driver, *context.device, copy.call, from, bytes) ||
        !is_device_range(driver, *context.device, copy.call, to, bytes)) {
      return CUDA_ERROR_INVALID_VALUE;
    }
    return submit(driver, stream, {.name = copy.call, .run = [=](Device& device) {
                                     memory_of(device).copy(to, from, bytes);
                                   }});
  });
}

CUresult fill(const Copy& copy, CUdeviceptr to, unsigned char value, size_t bytes) {
  return on_stream(copy, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    if (bytes == 0) return CUDA_SUCCESS;
    if (!is_device_range(driver, *context.device, copy.call, to, bytes)) return CUDA_ERROR_INVALID_VALUE;
    return submit(driver, stream, {.name = copy.call, .run = [=](Device& device) {
                                     memory_of(device).fill(to, value, bytes);
                                   }});
  });
}

}  // namespace

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void* from, size_t bytes) {
  return copy_to_device({"cuMemcpyHtoD", nullptr, false}, to, from, bytes);
}
CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void* from, size_t bytes, CUstream stream) {
  return copy_to_device({"cuMemcpyHtoDAsync", stream, true}, to, from, bytes);
}
CUresult cuMemcpyDtoH_v2(void* to, CUdeviceptr from, size_t bytes) {
  return copy_to_host({"cuMemcpyDtoH", nullptr, false}, to, from, bytes);
}
CUresult cuMemcpyDtoHAsync_v2(void* to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_to_host({"cuMemcpyDtoHAsync", stream, true}, to, from, bytes);
}
CUresult cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes) {
  return copy_on_device({"cuMemcpyDtoD", nullptr, false}, to, from, bytes);
}
CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream) {
  return copy_on_device({"cuMemcpyDtoDAsync", stream, true}, to, from, bytes);
}
CUresult cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t bytes) {
  return fill({"cuMemsetD8", nullptr, false}, to, value, bytes);
}
CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t bytes, CUstream stream) {
  return fill({"cuMemsetD8Async", stream, true}, to, value, bytes);
}

}  // namespace bitloom::cuda_emulation
