// The exported functions: each counts its call, fails if it was told to, and lets no exception out.
#include <cstdio>
#include <cstring>
#include <new>

#include "calls.h"
#include "state.h"
#include "thread_contexts.h"

namespace bitloom::cuda_emulation {
namespace {

// Errors after which a context is lost.
bool is_sticky(CUresult code) {
  return code == CUDA_ERROR_ILLEGAL_ADDRESS || code == CUDA_ERROR_LAUNCH_TIMEOUT ||
         code == CUDA_ERROR_ASSERT || code == CUDA_ERROR_ECC_UNCORRECTABLE ||
         (code >= CUDA_ERROR_HARDWARE_STACK_ERROR && code <= CUDA_ERROR_LAUNCH_FAILED);
}

CUresult injected_failure(const char* name) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  const CUresult code = driver.failures.next(name);
  if (!is_sticky(code)) return code;
  CUresult state;
  if (Context* context = current_context(driver, state))
    fail_context(driver, *context, code, std::string(name) + ": injected failure");
  return code;
}

template <typename Body>
CUresult guarded(const char* name, Body&& body) {
  try {
    if (is_in_host_function() && std::strncmp(name, "cuGetError", 10) != 0) {
      Driver& driver = Driver::get();
      const Lock lock(driver.mutex);
      record_fault(driver, std::string(name) + ": called from a host function of a stream");
      return CUDA_ERROR_NOT_PERMITTED;
    }
    const CUresult injected = injected_failure(name);
    return injected != CUDA_SUCCESS ? injected : body();
  } catch (const std::bad_alloc&) {
    return CUDA_ERROR_OUT_OF_MEMORY;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "cuda emulation: %s: %s\n", name, error.what());
    return CUDA_ERROR_UNKNOWN;
  }
}

struct EntryPoint {
  const char* name;
  const char* base;
  int version;
  void* function;
};

// By address: a name that is hidden here is hidden from everybody who asks cuGetProcAddress.
const EntryPoint entry_points[] = {
#define BITLOOM_CUDA_ENTRY(name, base, version, parameters, arguments) \
  {#name, base, version, reinterpret_cast<void*>(&::name)},
#include "entry_points.inc"
#undef BITLOOM_CUDA_ENTRY
};

}  // namespace

CUresult cuGetProcAddress_v2(const char* symbol, void** function, int version, uint64_t flags, int* status) {
  Driver& driver = Driver::get();
  const Lock lock(driver.mutex);
  if (!symbol || !function || flags > 2 || version > driver.settings.driver) return CUDA_ERROR_INVALID_VALUE;
  *function = nullptr;
  int result = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
  for (const EntryPoint& entry : entry_points) {
    if (std::strcmp(entry.base, symbol) != 0 || entry.version > driver.settings.driver ||
        driver.failures.is_missing(entry.base) || driver.failures.is_missing(entry.name)) {
      continue;
    }
    if (entry.version <= version) {
      *function = entry.function;
      result = CU_GET_PROC_ADDRESS_SUCCESS;
    } else if (!*function) {
      result = CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT;
    }
  }
  if (status) *status = result;
  return CUDA_SUCCESS;
}

CUresult cuGetErrorName(CUresult error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  switch (error) {
#define BITLOOM_CUDA_RESULT(code, name, description) \
  case code:                                         \
    *text = #name;                                   \
    return CUDA_SUCCESS;
#include "results.inc"
#undef BITLOOM_CUDA_RESULT
    default:
      *text = nullptr;
      return CUDA_ERROR_INVALID_VALUE;
  }
}

CUresult cuGetErrorString(CUresult error, const char** text) {
  if (!text) return CUDA_ERROR_INVALID_VALUE;
  switch (error) {
#define BITLOOM_CUDA_RESULT(code, name, description) \
  case code:                                         \
    *text = description;                             \
    return CUDA_SUCCESS;
#include "results.inc"
#undef BITLOOM_CUDA_RESULT
    default:
      *text = nullptr;
      return CUDA_ERROR_INVALID_VALUE;
  }
}

}  // namespace bitloom::cuda_emulation

#define BITLOOM_CUDA_ENTRY(name, base, version, parameters, arguments)                                       \
  CUresult name parameters {                                                                                 \
    return bitloom::cuda_emulation::guarded(#name, [&] { return bitloom::cuda_emulation::name arguments; }); \
  }
#include "entry_points.inc"
#undef BITLOOM_CUDA_ENTRY
