// Initialization, devices, attributes, contexts; what cuGetProcAddress gives.
#include <cstring>

#include "harness.h"

namespace bitloom::cuda_emulation::testing {

void test_api() {
  control("restart driver=12040");
  int version = 0;
  ok(cuDriverGetVersion(&version), "version");
  check(version == 12040, "the driver's version is as set");
  void* function = nullptr;
  int status = -1;
  ok(cuGetProcAddress_v2("cuMemAlloc", &function, 12000, 0, &status), "find cuMemAlloc");
  check(function == reinterpret_cast<void*>(&cuMemAlloc_v2) && status == CU_GET_PROC_ADDRESS_SUCCESS,
        "cuMemAlloc is _v2");
  ok(cuGetProcAddress_v2("cuMemAllocAsync", &function, 11000, 0, &status), "find a newer function");
  check(!function && status == CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, "cuMemAllocAsync is of 11.2");
  ok(cuGetProcAddress_v2("cuMemAlloc_v2", &function, 12000, 0, &status), "find by exported name");
  check(!function && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, "only base names are known");
  ok(cuGetProcAddress_v2("cuCtxSynchronize", &function, 12000, 0, &status), "find cuCtxSynchronize");
  check(function == reinterpret_cast<void*>(&cuCtxSynchronize), "cuCtxSynchronize of 12.0 takes nothing");
  ok(cuGetProcAddress_v2("cuEventElapsedTime", &function, 12040, 0, nullptr), "find without status");
  check(function == reinterpret_cast<void*>(&cuEventElapsedTime), "the driver is older than _v2");
  check_result(cuGetProcAddress_v2("cuInit", &function, 13000, 0, &status), CUDA_ERROR_INVALID_VALUE,
               "newer than the driver");
  check(control("fail missing:cuMemAllocAsync") == "ok", "hide a function");
  ok(cuGetProcAddress_v2("cuMemAllocAsync", &function, 12000, 0, &status), "find what is hidden");
  check(!function && status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, "a hidden function is not found");
  control("restart driver=13000");
  ok(cuGetProcAddress_v2("cuCtxSynchronize", &function, 13000, 0, &status), "find cuCtxSynchronize of 13.0");
  check(function == reinterpret_cast<void*>(&cuCtxSynchronize_v2),
        "cuCtxSynchronize of 13.0 takes a context");
  const char* text = nullptr;
  ok(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &text), "name of an error");
  check(text && !std::strcmp(text, "CUDA_ERROR_ILLEGAL_ADDRESS"), "name of 700");
  ok(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text), "description of an error");
  check(text && !std::strcmp(text, "out of memory"), "description of 2");
  check_result(cuGetErrorName(12345, &text), CUDA_ERROR_INVALID_VALUE, "name of no error");
  check(!text, "no name of no error");
  check_result(cuGetErrorString(12345, &text), CUDA_ERROR_INVALID_VALUE, "description of no error");
  check(control("nonsense").find("error") == 0, "unknown command");
  check(control("set arch=75").find("error") == 0, "unknown architecture");
  check(control("fail cuInit").find("error") == 0, "a failure without count");
}

namespace {

int attribute(int number) {
  int value = -1;
  ok(cuDeviceGetAttribute(&value, number, 0), "attribute " + std::to_string(number));
  return value;
}

void test_contexts() {
  control("restart devices=2");
  ok(cuInit(0), "init");
  CUcontext a = nullptr, b = nullptr, got = nullptr;
  ok(cuDevicePrimaryCtxRetain(&a, 0), "retain 0");
  ok(cuDevicePrimaryCtxRetain(&b, 1), "retain 1");
  CUcontext again = nullptr;
  ok(cuDevicePrimaryCtxRetain(&again, 0), "retain 0 again");
  check(a && b && a != b && again == a, "one context per device");
  check_result(cuCtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT, "no context is current");
  ok(cuCtxPushCurrent_v2(a), "push 0");
  ok(cuCtxPushCurrent_v2(b), "push 1");
  CUdevice device = -1;
  ok(cuCtxGetDevice(&device), "device of the context");
  check(device == 1, "the pushed context is current");
  ok(cuCtxGetDevice_v2(&device, a), "device of a context");
  check(device == 0, "the device of context 0");
  CUdeviceptr on_b = 0, on_a = 0;
  ok(cuMemAlloc_v2(&on_b, 64), "allocate on 1");
  ok(cuCtxPopCurrent_v2(&got), "pop");
  check(got == b, "what was pushed last");
  ok(cuMemAlloc_v2(&on_a, 64), "allocate on 0");
  check(on_a != on_b, "one address space");
  check_result(cuMemFree_v2(on_b), CUDA_ERROR_INVALID_VALUE, "memory of another device");
  ok(cuMemFree_v2(on_a), "free");
  ok(cuCtxSetCurrent(b), "set current");
  ok(cuMemFree_v2(on_b), "free on 1");
  ok(cuCtxGetCurrent(&got), "get current");
  check(got == b, "set is get");
  ok(cuCtxSynchronize_v2(a), "synchronize a context");
  check_result(cuCtxSetCurrent(reinterpret_cast<CUcontext>(&got)), CUDA_ERROR_INVALID_CONTEXT, "no context");
  ok(cuCtxSetCurrent(nullptr), "set none");
  ok(cuCtxGetCurrent(&got), "get none");
  check(!got, "none is current");
  check_result(cuCtxPopCurrent_v2(&got), CUDA_ERROR_INVALID_CONTEXT, "pop of nothing");
  ok(cuDevicePrimaryCtxRelease_v2(0), "release");
  ok(cuCtxSetCurrent(a), "still retained");
  ok(cuCtxSynchronize(), "still usable");
  ok(cuDevicePrimaryCtxRelease_v2(0), "release the last");
  check_result(cuCtxSynchronize(), CUDA_ERROR_CONTEXT_IS_DESTROYED, "gone");
  check_result(cuDevicePrimaryCtxRelease_v2(0), CUDA_ERROR_INVALID_CONTEXT, "released too often");
  ok(cuCtxSetCurrent(nullptr), "set none");
  ok(cuDevicePrimaryCtxRelease_v2(1), "release 1");
}

}  // namespace

void test_devices() {
  control("restart devices=2,arch=120,memory=1G,sms=7");
  int count = 0;
  check_result(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED, "before cuInit");
  check_result(cuInit(1), CUDA_ERROR_INVALID_VALUE, "flags of cuInit");
  ok(cuInit(0), "init");
  ok(cuDeviceGetCount(&count), "count");
  check(count == 2, "two devices");
  CUdevice device = -1;
  ok(cuDeviceGet(&device, 1), "get 1");
  check(device == 1, "device 1");
  check_result(cuDeviceGet(&device, 2), CUDA_ERROR_INVALID_DEVICE, "get 2");
  char name[64];
  ok(cuDeviceGetName(name, sizeof name, 0), "name");
  check(!std::strcmp(name, "Emulated sm_120"), "the name");
  ok(cuDeviceGetName(name, 4, 0), "short name");
  check(!std::strcmp(name, "Emu"), "the name is cut");
  size_t bytes = 0;
  ok(cuDeviceTotalMem_v2(&bytes, 0), "memory");
  check(bytes == 1ull << 30, "1 GiB");
  CUuuid first, second;
  ok(cuDeviceGetUuid(&first, 0), "uuid");
  ok(cuDeviceGetUuid_v2(&second, 1), "uuid of 1");
  check(std::memcmp(&first, &second, 16) != 0, "uuids differ");
  check(attribute(75) == 12 && attribute(76) == 0, "compute capability");
  check(attribute(16) == 7 && attribute(10) == 32 && attribute(1) == 1024, "multiprocessors, warp, block");
  check(attribute(97) == 101376 && attribute(81) == 102400 && attribute(39) == 1536, "limits of sm_120");
  check(attribute(36) > 0 && attribute(37) > 0, "memory clock and bus");
  int value;
  check_result(cuDeviceGetAttribute(&value, 9999, 0), CUDA_ERROR_INVALID_VALUE, "no such attribute");
  control("restart devices=0");
  check_result(cuInit(0), CUDA_ERROR_NO_DEVICE, "no device");
  test_contexts();
}

}  // namespace bitloom::cuda_emulation::testing
