// Whose memory a pointer names.
#pragma once

#include "state.h"

namespace bitloom::cuda_emulation {

// Whether the range lies in one live allocation; else the fault is recorded. Variables of modules are not
// among them.
bool is_device_range(Driver& driver, const Device& device, const char* call, CUdeviceptr address,
                     size_t bytes);

enum class HostKind { pageable, pinned, mixed };
HostKind host_kind(const Driver& driver, const void* memory, size_t bytes);

inline ptx::DeviceMemory& memory_of(Device& device) { return device.machine->memory; }

}  // namespace bitloom::cuda_emulation
