// What the tests of the emulated driver share.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "api.h"

namespace bitloom::cuda_emulation::testing {

// Counts and, on failure, prints.
void check(bool condition, const std::string& what);
void check_result(CUresult result, CUresult expected, const std::string& what);
inline void ok(CUresult result, const std::string& what) { check_result(result, CUDA_SUCCESS, what); }
std::string control(const std::string& command);
// The messages of faults since the start; checks that one of them holds all the parts.
void check_fault(const std::vector<std::string>& parts, const std::string& what);
int finish();

// A fresh driver with the settings, its first device's context retained and current. Goes away with
// everything that was not freed; `allow_leaks` false checks that nothing was left.
class Session {
 public:
  explicit Session(const std::string& settings = "", bool allow_leaks = false);
  ~Session();
  Session(const Session&) = delete;
  CUcontext context = nullptr;
  CUmodule module = nullptr;  // of test_kernels()
  CUfunction function(const char* name);

 private:
  bool allow_leaks_;
};

// PTX of small kernels, written by hand:
//   add(ptr data, u32 count, u32 value)   data[i] += value
//   copy(struct {ptr in; ptr out; u32 count})   out[i] = in[i], one parameter by value
//   overrun(ptr data, u32 count)   stores at data[count]
//   misaligned(ptr data), racy(ptr data), trap_always(), unknown_opcode(), spin()
//   shared(ptr out)   out[i] = threads - 1 - i by way of 4 bytes of dynamic shared memory per thread
const char* test_kernels();

// Launches with one block of `threads`, kernelParams.
CUresult launch(CUfunction function, unsigned int threads, CUstream stream, std::vector<void*> parameters,
                unsigned int shared_bytes = 0, unsigned int blocks = 1);
CUresult launch_add(Session& session, CUdeviceptr data, uint32_t count, uint32_t value, CUstream stream);
std::vector<uint32_t> download(CUdeviceptr data, size_t count);

void test_api();
void test_devices();
void test_memory();
void test_modules();
void test_launches();
void test_streams();
void test_graphs();
void test_faults();
void test_failures();
void test_compiled_kernels();
void test_environment();  // only as CMakeLists.txt runs it

}  // namespace bitloom::cuda_emulation::testing
