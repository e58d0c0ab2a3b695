// Kernels that fault, contexts that are lost and come back, injected failures.
#include "harness.h"

namespace bitloom::cuda_emulation::testing {
namespace {

// Launches a kernel that faults: the launch succeeds, the wait tells, and so does everything after it.
void expect_fault(const char* kernel, CUresult code, const std::vector<std::string>& parts) {
  Session session("limit=10000", true);
  CUdeviceptr data = 0;
  ok(cuMemAlloc_v2(&data, 400), "allocate");
  ok(cuMemsetD8_v2(data, 0, 400), "fill");
  uint32_t count = 100;
  ok(launch(session.function(kernel), 32, nullptr, {&data, &count}), kernel);
  check_result(cuCtxSynchronize(), code, std::string(kernel) + ": the wait");
  check_result(cuMemFree_v2(data), code, std::string(kernel) + ": a later call");
  CUstream stream;
  check_result(cuStreamCreate(&stream, 0), code, std::string(kernel) + ": another call");
  check_fault(parts, kernel);
  ok(cuDevicePrimaryCtxReset_v2(0), "reset");
  check_result(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED, "after the reset");
  CUcontext context = nullptr;
  ok(cuDevicePrimaryCtxRetain(&context, 0), "retain anew");
  check(context == session.context, "the primary context's handle stays");
  ok(cuDevicePrimaryCtxRelease_v2(0), "release the second");
  session.module = nullptr;
  check_result(cuMemFree_v2(data), CUDA_ERROR_INVALID_VALUE, "memory of before is gone");
  ok(cuMemAlloc_v2(&data, 400), "allocate");
  ok(cuMemsetD8_v2(data, 0, 400), "fill");
  ok(launch_add(session, data, 100, 3, nullptr), "add");
  check(download(data, 100)[99] == 3, "all is well again");
}

void test_lost_work() {
  Session session("delay=1000000", true);
  CUdeviceptr data = 0;
  CUstream stream;
  uint32_t* pinned = nullptr;
  int calls = 0;
  ok(cuMemAlloc_v2(&data, 64), "allocate");
  ok(cuMemHostAlloc(reinterpret_cast<void**>(&pinned), 64, 0), "pinned");
  ok(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING), "stream");
  pinned[0] = 1;
  ok(launch(session.function("racy"), 32, stream, {&data}), "a race");
  ok(cuMemcpyDtoHAsync_v2(pinned, data, 64, stream), "a copy behind it");
  ok(cuLaunchHostFunc(
         stream, [](void* count) { ++*static_cast<int*>(count); }, &calls),
     "a host function behind it");
  check_result(cuStreamSynchronize(stream), CUDA_ERROR_LAUNCH_FAILED, "the race is found");
  check(pinned[0] == 1 && calls == 0, "what stood behind it never runs");
  check_result(cuStreamQuery(stream), CUDA_ERROR_LAUNCH_FAILED, "query");
  uint32_t word = 0;
  check_result(cuMemcpyDtoH_v2(&word, data, 4), CUDA_ERROR_LAUNCH_FAILED, "copy");
}

// Memory is there from where it is allocated in a stream's order to where it is freed.
void test_ordered_memory() {
  for (const bool before : {true, false}) {
    Session session("delay=1000000,seed=" + std::to_string(before ? 2 : 3), true);
    CUstream a, b;
    int found = 0;
    for (int i = 0; i < 12 && !found; ++i) {
      CUdeviceptr data = 0;
      ok(cuStreamCreate(&a, CU_STREAM_NON_BLOCKING), "stream");
      ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING), "stream");
      ok(cuMemAllocAsync(&data, 64, a), "allocate in a");
      if (!before) ok(cuStreamSynchronize(a), "wait");
      ok(cuMemsetD8Async(data, 1, 64, b), "use in b");
      if (!before) ok(cuMemFreeAsync(data, a), "free in a");
      const CUresult result = cuCtxSynchronize();
      found = result == CUDA_ERROR_ILLEGAL_ADDRESS;
      check(found || result == CUDA_SUCCESS, "fault or luck");
    }
    check(found, before ? "use before the allocation shows" : "use after the free shows");
  }
}

template <typename... Arguments>
CUresult call_with_zeros(CUresult (*function)(Arguments...)) {
  return function(Arguments{}...);
}

}  // namespace

void test_faults() {
  expect_fault("overrun", CUDA_ERROR_ILLEGAL_ADDRESS,
               {"kernel overrun", "out of bounds", "PTX line", "block (0,0,0) warp 0"});
  expect_fault("misaligned", CUDA_ERROR_MISALIGNED_ADDRESS, {"kernel misaligned", "misaligned"});
  expect_fault("racy", CUDA_ERROR_LAUNCH_FAILED, {"kernel racy", "race on global memory"});
  expect_fault("trap_always", CUDA_ERROR_LAUNCH_FAILED, {"kernel trap_always", "trap"});
  expect_fault("unknown_opcode", CUDA_ERROR_ILLEGAL_INSTRUCTION, {"unknown instruction", "frobnicate"});
  expect_fault("spin", CUDA_ERROR_LAUNCH_TIMEOUT, {"kernel spin", "endless loop"});
  test_lost_work();
  test_ordered_memory();
}

// Settings, failures and reports of a process that knows nothing of the emulation.
void test_environment() {
  ok(cuInit(0), "init");
  int count = 0, major = 0;
  ok(cuDeviceGetCount(&count), "count");
  ok(cuDeviceGetAttribute(&major, 75, 0), "compute capability");
  check(count == 2 && major == 9, "two devices of sm_90");
  CUcontext context;
  ok(cuDevicePrimaryCtxRetain(&context, 0), "retain");
  ok(cuCtxSetCurrent(context), "set current");
  CUdeviceptr memory = 0;
  check_result(cuMemAlloc_v2(&memory, 100), CUDA_ERROR_OUT_OF_MEMORY, "the first allocation fails");
  ok(cuMemAlloc_v2(&memory, 100), "the second is left alive");
}

void test_failures() {
  {
    Session session;
    CUdeviceptr a = 0, b = 0, c = 0;
    check(control("fail cuMemAlloc_v2:2=2,cuMemGetInfo_v2:2+=999") == "ok", "inject");
    ok(cuMemAlloc_v2(&a, 16), "the first");
    check_result(cuMemAlloc_v2(&b, 16), CUDA_ERROR_OUT_OF_MEMORY, "the second");
    ok(cuMemAlloc_v2(&c, 16), "the third");
    size_t free_bytes, total;
    ok(cuMemGetInfo_v2(&free_bytes, &total), "the first");
    for (int i = 0; i < 3; ++i)
      check_result(cuMemGetInfo_v2(&free_bytes, &total), CUDA_ERROR_UNKNOWN, "and all later");
    check(control("clear-failures") == "ok", "clear");
    ok(cuMemGetInfo_v2(&free_bytes, &total), "none any more");
    ok(cuMemFree_v2(a), "free");
    ok(cuMemFree_v2(c), "free");
  }
  // Every entry point can be made to fail, and none minds zeros: not before cuInit, and not with a context.
  control("restart");
#define BITLOOM_CUDA_ENTRY(name, base, version, parameters, arguments)           \
  control("fail " #name ":1=801");                                               \
  check_result(call_with_zeros(name), CUDA_ERROR_NOT_SUPPORTED, #name " fails"); \
  check(call_with_zeros(name) >= 0, #name " takes zeros before cuInit");
#include "entry_points.inc"
#undef BITLOOM_CUDA_ENTRY
  {
    Session session("", true);
#define BITLOOM_CUDA_ENTRY(name, base, version, parameters, arguments) \
  ok(cuCtxSetCurrent(session.context), "set current");                 \
  if (std::string(#name).find("PrimaryCtx") == std::string::npos)      \
    check(call_with_zeros(name) != CUDA_ERROR_UNKNOWN, #name " takes zeros in a context");
#include "entry_points.inc"
#undef BITLOOM_CUDA_ENTRY
    ok(cuCtxSetCurrent(session.context), "set current");
    ok(cuCtxSynchronize(), "all is well");
  }
  {
    Session session("", true);
    CUdeviceptr data = 0;
    ok(cuMemAlloc_v2(&data, 400), "allocate");
    ok(cuMemsetD8_v2(data, 0, 400), "fill");
    control("fail kernel:2=700");
    ok(launch_add(session, data, 100, 1, nullptr), "the first kernel");
    ok(cuCtxSynchronize(), "is fine");
    ok(launch_add(session, data, 100, 1, nullptr), "the second");
    check_result(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS, "fails where it is waited for");
    check_result(cuMemFree_v2(data), CUDA_ERROR_ILLEGAL_ADDRESS, "and the context is lost");
  }
  {
    Session session("", true);
    control("fail cuLaunchKernel:1=719");
    check_result(launch(session.function("trap_always"), 1, nullptr, {}), CUDA_ERROR_LAUNCH_FAILED,
                 "a sticky failure");
    CUdeviceptr data = 0;
    check_result(cuMemAlloc_v2(&data, 16), CUDA_ERROR_LAUNCH_FAILED, "loses the context");
  }
}

}  // namespace bitloom::cuda_emulation::testing
