// Memory of device and host, copies, fills.
#include <cstdlib>
#include <cstring>
#include <numeric>

#include "harness.h"

namespace bitloom::cuda_emulation::testing {
namespace {

void test_allocation() {
  Session session("memory=1M");
  CUdeviceptr a = 0, b = 0;
  ok(cuMemAlloc_v2(&a, 1000), "allocate");
  check(a % 256 == 0 && a != 0, "aligned to 256");
  size_t free_bytes = 0, total = 0;
  ok(cuMemGetInfo_v2(&free_bytes, &total), "info");
  check(total == 1 << 20 && free_bytes == (1 << 20) - 1000, "free and total");
  check_result(cuMemAlloc_v2(&b, 2 << 20), CUDA_ERROR_OUT_OF_MEMORY, "more than there is");
  check_result(cuMemAlloc_v2(&b, 0), CUDA_ERROR_INVALID_VALUE, "nothing");
  ok(cuMemFree_v2(a), "free");
  ok(cuMemFree_v2(0), "free null");
  check_result(cuMemFree_v2(a), CUDA_ERROR_INVALID_VALUE, "free twice");
  // What is about to be freed counts as free for who can wait.
  CUstream stream;
  ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
  for (int i = 0; i < 4; ++i) {
    ok(cuMemAllocAsync(&a, 700 << 10, stream), "allocate most");
    ok(cuMemsetD8Async(a, 1, 100, stream), "use it");
    ok(cuMemFreeAsync(a, stream), "free it in order");
  }
  check_result(cuMemFreeAsync(a, stream), CUDA_ERROR_INVALID_VALUE, "free twice in order");
  check_result(cuMemsetD8Async(a, 1, 100, stream), CUDA_ERROR_INVALID_VALUE, "use after the free");
  ok(cuStreamSynchronize(stream), "synchronize");
  ok(cuMemGetInfo_v2(&free_bytes, &total), "info");
  check(free_bytes == total, "all is free again");
  ok(cuStreamDestroy_v2(stream), "destroy");
}

void test_copies() {
  Session session;
  std::vector<uint32_t> values(1000);
  std::iota(values.begin(), values.end(), 7u);
  CUdeviceptr a = 0, b = 0;
  ok(cuMemAlloc_v2(&a, 4000), "allocate a");
  ok(cuMemAlloc_v2(&b, 4000), "allocate b");
  ok(cuMemcpyHtoD_v2(a, values.data(), 4000), "upload");
  ok(cuMemcpyDtoD_v2(b + 400, a, 3600), "copy");
  ok(cuMemsetD8_v2(b, 0x11, 400), "fill");
  ok(cuCtxSynchronize(), "synchronize");
  const std::vector<uint32_t> got = download(b, 1000);
  bool right = true;
  for (size_t i = 0; i < 1000; ++i) right = right && got[i] == (i < 100 ? 0x11111111u : values[i - 100]);
  check(right, "what was copied and filled");
  ok(cuMemcpyHtoD_v2(a, values.data(), 0), "no bytes");
  check_result(cuMemcpyHtoD_v2(a + 4, values.data(), 4000), CUDA_ERROR_INVALID_VALUE, "past the end");
  check_result(cuMemcpyDtoH_v2(values.data(), a - 4, 4), CUDA_ERROR_INVALID_VALUE, "before the start");
  check_result(cuMemcpyDtoD_v2(a, a + 4, 400), CUDA_ERROR_INVALID_VALUE, "overlapping");
  check_result(cuMemsetD8_v2(a, 0, 4001), CUDA_ERROR_INVALID_VALUE, "fill past the end");
  check_fault({"cuMemcpyHtoD", "4000 bytes at 0x"}, "copies name what is wrong");
  ok(cuMemFree_v2(a), "free a");
  ok(cuMemFree_v2(b), "free b");
}

// Pageable memory is staged at the call; pinned memory is read when the copy runs.
void test_host_memory() {
  Session session("delay=1000000");
  CUdeviceptr a = 0;
  CUstream stream;
  ok(cuMemAlloc_v2(&a, 64), "allocate");
  ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
  uint32_t pageable[16] = {1, 2, 3};
  ok(cuMemcpyHtoDAsync_v2(a, pageable, 64, stream), "upload from pageable memory");
  pageable[0] = 100;
  ok(cuStreamSynchronize(stream), "synchronize");
  check(download(a, 1)[0] == 1, "the bytes at the call");
  ok(cuMemsetD8Async(a, 9, 64, stream), "fill");
  ok(cuMemcpyDtoHAsync_v2(pageable, a, 64, stream), "download into pageable memory");
  check(pageable[0] == 0x09090909, "is there when the call returns");

  uint32_t* pinned = nullptr;
  ok(cuMemHostAlloc(reinterpret_cast<void**>(&pinned), 64, 0), "pinned");
  check(pinned[0] == 0xcdcdcdcd, "pinned memory is not zero");
  pinned[0] = 5;
  ok(cuMemcpyHtoDAsync_v2(a, pinned, 64, stream), "upload from pinned memory");
  ok(cuStreamSynchronize(stream), "synchronize");
  check(download(a, 1)[0] == 5, "the bytes of pinned memory");
  pinned[0] = 6;
  ok(cuMemcpyDtoHAsync_v2(pinned, a, 64, stream), "download into pinned memory");
  check(pinned[0] == 6, "not there yet");
  ok(cuMemcpyHtoDAsync_v2(a, pinned, 64, stream), "and up again what comes down: no fault");
  ok(cuStreamSynchronize(stream), "synchronize");
  check(pinned[0] == 5, "there after the wait");

  void* registered = std::aligned_alloc(4096, 4096);
  ok(cuMemHostRegister_v2(registered, 4096, 0), "register");
  check_result(cuMemHostRegister_v2(registered, 64, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED,
               "register twice");
  check_result(cuMemFreeHost(registered), CUDA_ERROR_INVALID_VALUE, "free what was registered");
  check_result(cuMemHostUnregister(pinned), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED,
               "unregister what was allocated");
  ok(cuMemHostUnregister(registered), "unregister");
  std::free(registered);

  // A staging buffer that is used again too soon.
  ok(cuMemcpyHtoDAsync_v2(a, pinned, 64, stream), "upload");
  pinned[3] += 1;
  check_result(cuStreamSynchronize(stream), CUDA_ERROR_LAUNCH_FAILED, "the change is found");
  check_fault({"cuMemcpyHtoDAsync", "pinned source", "changed"}, "early reuse");
  check_result(cuMemFreeHost(pinned), CUDA_ERROR_LAUNCH_FAILED, "the context is lost");
  ok(cuDevicePrimaryCtxReset_v2(0), "reset");
  ok(cuDevicePrimaryCtxRelease_v2(0), "release");
  ok(cuDevicePrimaryCtxRetain(&session.context, 0), "retain afresh");
  ok(cuMemAlloc_v2(&a, 64), "all is well again");
  ok(cuMemFree_v2(a), "free");
}

void test_late_reads() {
  Session session("delay=1000000,pinned=0");
  CUdeviceptr a = 0;
  uint32_t* pinned = nullptr;
  CUstream stream;
  ok(cuMemAlloc_v2(&a, 64), "allocate");
  ok(cuStreamCreate(&stream, 0), "stream");
  ok(cuMemHostAlloc(reinterpret_cast<void**>(&pinned), 64, CU_MEMHOSTALLOC_PORTABLE), "pinned");
  pinned[0] = 1;
  ok(cuMemcpyHtoDAsync_v2(a, pinned, 64, stream), "upload");
  pinned[0] = 2;
  ok(cuStreamSynchronize(stream), "synchronize");
  check(download(a, 1)[0] == 2, "the bytes at execution");
  ok(cuMemcpyHtoD_v2(a, pinned, 64), "synchronous upload from pinned memory");
  ok(cuMemFreeHost(pinned), "free pinned");
  ok(cuMemFree_v2(a), "free");
  ok(cuStreamDestroy_v2(stream), "destroy");
}

}  // namespace

void test_memory() {
  test_allocation();
  test_copies();
  test_host_memory();
  test_late_reads();
}

}  // namespace bitloom::cuda_emulation::testing
