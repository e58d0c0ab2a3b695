// Copies from global memory, to registers and asynchronously to shared memory, one instruction per function. sm_80.
#pragma once

#include <cstdint>

namespace bitloom::ptx {

// Address of shared memory as instructions take it.
__device__ __forceinline__ uint32_t shared_address(const void* pointer) {
  return static_cast<uint32_t>(__cvta_generic_to_shared(pointer));
}

// 16 bytes, of which `bytes` (0 or 16) are read and the others zero: with 0 nothing is read, wherever `source` points.
// Both addresses at multiples of 16. Past L1.
__device__ __forceinline__ void copy_async_16(uint32_t target, const void* source, uint32_t bytes) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(target), "l"(source), "r"(bytes) : "memory");
}

__device__ __forceinline__ void copy_async_16(uint32_t target, const void* source) {
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(target), "l"(source) : "memory");
}

// Global memory that nobody writes meanwhile; weights pass by L1, whose lines no one would read again.
__device__ __forceinline__ uint4 load_once_16(const void* source) {
  uint4 d;
  asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0, %1, %2, %3}, [%4];"
               : "=r"(d.x), "=r"(d.y), "=r"(d.z), "=r"(d.w)
               : "l"(source));
  return d;
}
__device__ __forceinline__ uint2 load_once_8(const void* source) {
  uint2 d;
  asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0, %1}, [%2];" : "=r"(d.x), "=r"(d.y) : "l"(source));
  return d;
}
__device__ __forceinline__ uint32_t load_once_4(const void* source) {
  uint32_t d;
  asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(d) : "l"(source));
  return d;
}

// Copies since the last commit become one group.
__device__ __forceinline__ void copy_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }

// Waits until at most `kPending` groups of this thread are under way.
template <int kPending>
__device__ __forceinline__ void copy_async_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
}

}  // namespace bitloom::ptx
