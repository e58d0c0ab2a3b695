// The driver library, opened at run time: nothing of CUDA is linked.
#pragma once

#include <cstddef>
#include <cstdint>

#include "../../native/base/error.h"
#include "../../native/include/bitloom.h"

namespace bitloom::cuda {

using Ordinal = int;
using Address = unsigned long long;
using Context = struct ContextHandle*;
using DriverModule = struct ModuleHandle*;
using Function = struct FunctionHandle*;
using DriverStream = struct StreamHandle*;
using DriverEvent = struct EventHandle*;
using Graph = struct GraphHandle*;
using GraphExec = struct GraphExecHandle*;

// Results that are told apart (CUresult).
enum Result : int {
  kSuccess = 0,
  kOutOfMemory = 2,
  kDeinitialized = 4,
  kNoDevice = 100,
  kInvalidImage = 200,
  kNoBinaryForGpu = 209,
  kInvalidPtx = 218,
  kUnsupportedPtx = 222,
  kJitCompilerNotFound = 221,
  kNotFound = 500,
  kNotReady = 600,
};

enum Attribute : int {
  kMultiprocessors = 16,
  kThreadsPerMultiprocessor = 39,
  kComputeMajor = 75,
  kComputeMinor = 76,
  kSharedBytesPerMultiprocessor = 81,
  kSharedBytesPerBlock = 97,  // opt-in
};
constexpr int kFunctionSharedBytes = 8;     // CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
constexpr unsigned kStreamNonBlocking = 1;  // does not wait for the context's own stream
constexpr unsigned kEventWithoutTiming = 2;
constexpr int kCaptureRelaxed = 2;  // allocations are allowed meanwhile

struct Driver {
#define BL_DRIVER(name, symbol, parameters) int(*name) parameters = nullptr;
#include "driver.inc"
#undef BL_DRIVER
};

// The driver with all its functions and at least one device, or null; then *reason says why.
const Driver* driver(const char** reason);
// The same where it is known to be there.
const Driver& driver();

// What a result that is no success means: out_of_memory, unsupported, or device_lost for the errors after
// which a context does nothing any more. The message is "<what>: CUDA_ERROR_... (text)".
bl_status driver_error(int result, const char* what, bl_error* error);
bool is_sticky(int result);

}  // namespace bitloom::cuda

#define BL_CUDA(call, what)                                                 \
  do {                                                                      \
    if (const int result_ = (call); result_ != ::bitloom::cuda::kSuccess) { \
      return ::bitloom::cuda::driver_error(result_, what, error);           \
    }                                                                       \
  } while (0)
