// Modules, functions, launches and their arguments.
#include <cstring>

#include "harness.h"

namespace bitloom::cuda_emulation::testing {
namespace {

std::string ptx_of(const std::string& version, const std::string& target) {
  return "//\n.version " + version + "\n.target " + target +
         "\n.address_size 64\n.visible .entry k() { ret; }\n";
}

CUresult load(const std::string& image) {
  CUmodule module = nullptr;
  const CUresult result = cuModuleLoadData(&module, image.c_str());
  if (result == CUDA_SUCCESS) ok(cuModuleUnload(module), "unload");
  return result;
}

}  // namespace

void test_modules() {
  Session session("arch=86,driver=12040");
  ok(load(ptx_of("8.4", "sm_80")), "older PTX");
  ok(load(ptx_of("8.4", "sm_86")), "PTX of the device");
  check_result(load(ptx_of("8.4", "sm_90")), CUDA_ERROR_INVALID_PTX, "PTX of a newer device");
  check_result(load(ptx_of("8.5", "sm_80")), CUDA_ERROR_UNSUPPORTED_PTX_VERSION, "PTX of a newer compiler");
  check_result(load(std::string("\x7f"
                                "ELF") +
                    std::string(64, 1)),
               CUDA_ERROR_NO_BINARY_FOR_GPU, "machine code");
  check_result(load(""), CUDA_ERROR_INVALID_IMAGE, "an empty image");
  check_result(load("this is no image"), CUDA_ERROR_INVALID_IMAGE, "no image");
  CUmodule module = nullptr;
  check_result(cuModuleLoadData(&module, nullptr), CUDA_ERROR_INVALID_VALUE, "null image");

  char log[256] = "";
  int options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
  void* values[] = {log, reinterpret_cast<void*>(sizeof log)};
  const std::string broken = ptx_of("8.0", "sm_80") + "\n.visible .entry broken( { }\n";
  check_result(cuModuleLoadDataEx(&module, broken.c_str(), 2, options, values), CUDA_ERROR_INVALID_PTX,
               "broken PTX");
  check(std::strstr(log, "syntax") != nullptr, std::string("the log says what is wrong: ") + log);
  check(reinterpret_cast<size_t>(values[1]) == std::strlen(log), "the log's size");

  CUfunction add = session.function("add"), again = nullptr, none = nullptr;
  ok(cuModuleGetFunction(&again, session.module, "add"), "get twice");
  check(again == add, "a function has one handle");
  check_result(cuModuleGetFunction(&none, session.module, "nothing"), CUDA_ERROR_NOT_FOUND, "no such kernel");
  int value = -1;
  ok(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, add), "threads");
  check(value == 1024, "threads per block");
  ok(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_PTX_VERSION, add), "PTX version");
  check(value == 80, "the PTX is of compute_80");
  ok(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_BINARY_VERSION, add), "binary version");
  check(value == 86, "compiled for sm_86");
  for (int attribute : {CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES}) {
    ok(cuFuncGetAttribute(&value, attribute, add), "static memory");
    check(value == 0, "no static memory");
  }
  check_result(cuFuncGetAttribute(&value, 99, add), CUDA_ERROR_INVALID_VALUE, "no such attribute");

  CUmodule other = nullptr;
  ok(cuModuleLoadData(&other, test_kernels()), "load");
  ok(cuModuleGetFunction(&again, other, "add"), "get");
  ok(cuModuleUnload(other), "unload");
  check_result(cuModuleUnload(other), CUDA_ERROR_INVALID_HANDLE, "unload twice");
  check_result(launch(again, 32, nullptr, {}), CUDA_ERROR_INVALID_HANDLE, "a kernel of an unloaded module");
}

void test_launches() {
  Session session;
  CUdeviceptr data = 0, target = 0;
  ok(cuMemAlloc_v2(&data, 400), "allocate");
  ok(cuMemAlloc_v2(&target, 400), "allocate");
  ok(cuMemsetD8_v2(data, 0, 400), "fill");
  ok(launch_add(session, data, 100, 5, nullptr), "add 5");
  ok(launch_add(session, data, 99, 2, nullptr), "add 2");
  std::vector<uint32_t> got = download(data, 100);
  check(got[0] == 7 && got[98] == 7 && got[99] == 5, "parameters arrive");

  // A parameter by value, as the kernels of bitloom take it, both ways.
  struct {
    CUdeviceptr in, out;
    uint32_t count;
  } params{data, target, 50};
  const CUfunction copy = session.function("copy");
  ok(cuMemsetD8_v2(target, 0, 400), "fill");
  ok(launch(copy, 128, nullptr, {&params}), "a struct by pointer");
  size_t bytes = sizeof params;
  params.count = 60;
  void* extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &params, CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes,
                   CU_LAUNCH_PARAM_END};
  ok(cuLaunchKernel(copy, 1, 1, 1, 64, 1, 1, 0, nullptr, nullptr, extra), "a block of parameters");
  params.count = 0;  // was copied
  got = download(target, 100);
  check(got[49] == 7 && got[59] == 7 && got[60] == 0, "the struct arrives");
  bytes = 20;
  check_result(cuLaunchKernel(copy, 1, 1, 1, 64, 1, 1, 0, nullptr, nullptr, extra), CUDA_ERROR_INVALID_VALUE,
               "a short block");
  check_fault({"kernel copy", "a parameter block of 20 bytes, expected 24"}, "a short block");
  check_result(cuLaunchKernel(copy, 1, 1, 1, 64, 1, 1, 0, nullptr, nullptr, nullptr),
               CUDA_ERROR_INVALID_VALUE, "none");

  const CUfunction shared = session.function("shared");
  ok(launch(shared, 64, nullptr, {&data}, 256), "dynamic shared memory");
  got = download(data, 64);
  check(got[0] == 63 && got[63] == 0, "by way of shared memory");
  check_result(launch(shared, 64, nullptr, {&data}, 60 << 10), CUDA_ERROR_INVALID_VALUE,
               "above 48 KiB unasked");
  ok(cuFuncSetAttribute(shared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 60 << 10), "ask for 60 KiB");
  int value = 0;
  ok(cuFuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, shared),
     "what was asked for");
  check(value == 60 << 10, "60 KiB");
  ok(launch(shared, 64, nullptr, {&data}, 60 << 10), "above 48 KiB");
  check_result(cuFuncSetAttribute(shared, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, 164 << 10),
               CUDA_ERROR_INVALID_VALUE, "more than the device has");
  ok(cuFuncSetAttribute(shared, CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 100), "carveout");

  bytes = sizeof params;
  const auto launch_shape = [&](unsigned int grid, unsigned int block) {
    return cuLaunchKernel(copy, grid, 1, 1, block, 1, 1, 0, nullptr, nullptr, extra);
  };
  check_result(launch_shape(0, 1), CUDA_ERROR_INVALID_VALUE, "an empty grid");
  check_result(launch_shape(1, 0), CUDA_ERROR_INVALID_VALUE, "an empty block");
  check_result(launch_shape(1, 1025), CUDA_ERROR_INVALID_VALUE, "a large block");
  check_result(cuLaunchKernel(copy, 1, 65536, 1, 1, 1, 1, 0, nullptr, nullptr, extra),
               CUDA_ERROR_INVALID_VALUE, "a wide grid");
  check_result(launch(nullptr, 1, nullptr, {}), CUDA_ERROR_INVALID_HANDLE, "no function");
  const std::string counters = control("counters");
  for (const char* part :
       {"\"kernel\":\"add\",\"target\":\"sm_80\",\"launches\":2,\"blocks\":4,\"threads\":64,"
        "\"dynamicSharedBytes\":0",
        "\"neverExecuted\":0", "\"cuLaunchKernel\":", "\"usedBytes\":796,\"movedBytes\":832"}) {
    check(counters.find(part) != std::string::npos, std::string(part) + " in " + counters);
  }
  check(control("clear-counters") == "ok" && control("counters").find("\"kernels\":[]") != std::string::npos,
        "cleared");
  ok(cuMemFree_v2(data), "free");
  ok(cuMemFree_v2(target), "free");
}

}  // namespace bitloom::cuda_emulation::testing
