#include "driver.h"

#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace bitloom::cuda {

namespace {

struct Opened {
  Driver functions;
  bool usable = false;
  char reason[512] = "";

  Opened() { usable = open(); }

 private:
  bool fail_with(const char* format, const char* a, const char* b = "") {
    std::snprintf(reason, sizeof(reason), format, a, b);
    return false;
  }

  bool open() {
    const char* setting = std::getenv("BITLOOM_CUDA_DRIVER");
    const char* path = setting != nullptr && *setting != 0 ? setting : "libcuda.so.1";
    void* library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return fail_with("no NVIDIA driver: %s", dlerror());
    const struct {
      const char* symbol;
      void** function;
    } list[] = {
#define BL_DRIVER(name, symbol, parameters) {#symbol, reinterpret_cast<void**>(&functions.name)},
#include "driver.inc"
#undef BL_DRIVER
    };
    for (const auto& row : list) {
      *row.function = dlsym(library, row.symbol);
      if (*row.function == nullptr) {
        return fail_with("the NVIDIA driver %s is too old: it has no %s (12.0 or later has)", path,
                         row.symbol);
      }
    }
    if (const int result = functions.init(0); result != kSuccess) return say("cuInit", result);
    int count = 0;
    if (const int result = functions.device_count(&count); result != kSuccess) {
      return say("cuDeviceGetCount", result);
    }
    return count > 0 || fail_with("the NVIDIA driver %s has no device", path);
  }

  bool say(const char* call, int result) {
    const char* name = nullptr;
    if (functions.error_name(result, &name) != kSuccess || name == nullptr) name = "unknown error";
    return fail_with("%s of the NVIDIA driver failed: %s", call, name);
  }
};

const Opened& opened() {
  static const Opened instance;
  return instance;
}

}  // namespace

const Driver* driver(const char** reason) {
  const Opened& it = opened();
  *reason = it.usable ? nullptr : it.reason;
  return it.usable ? &it.functions : nullptr;
}

const Driver& driver() { return opened().functions; }

bool is_sticky(int result) {
  // Illegal address, launch timeout, assert, hardware stack error, illegal instruction, misaligned address,
  // illegal address space, illegal pc, launch failed; unusable or destroyed contexts; ECC and NVLink errors;
  // driver going down.
  switch (result) {
    case kDeinitialized:
    case 46:   // device unavailable
    case 214:  // ECC uncorrectable
    case 220:  // NVLink uncorrectable
    case 700:
    case 702:
    case 709:
    case 710:
    case 714:
    case 715:
    case 716:
    case 717:
    case 718:
    case 719:
    case 999:
      return true;
    default:
      return false;
  }
}

bl_status driver_error(int result, const char* what, bl_error* error) {
  const char* name = nullptr;
  const char* text = nullptr;
  if (driver().error_name(result, &name) != kSuccess || name == nullptr) name = "unknown error";
  if (driver().error_string(result, &text) != kSuccess || text == nullptr) text = "";
  bl_status status = BL_STATUS_unsupported;
  const char* hint = "";
  if (result == kOutOfMemory) {
    status = BL_STATUS_out_of_memory;
  } else if (is_sticky(result)) {
    status = BL_STATUS_device_lost;
    hint = "; the device does nothing until it is reset";
  }
  return fail(error, status, "%s: %s, error %d (%s)%s", what, name, result, text, hint);
}

}  // namespace bitloom::cuda
