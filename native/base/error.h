// Checked errors: the first failed check fills the caller's bl_error and returns from the function.
#pragma once

#include <cstdarg>
#include <cstdio>

#include "../include/bitloom.h"

namespace bitloom {

// Writes status and message into `error` (may be null) and gives `status` back.
__attribute__((format(printf, 3, 4))) inline bl_status fail(bl_error* error, bl_status status,
                                                            const char* format, ...) {
  if (error != nullptr) {
    error->status = status;
    va_list values;
    va_start(values, format);
    std::vsnprintf(error->message, sizeof(error->message), format, values);
    va_end(values);
  }
  return status;
}

}  // namespace bitloom

// `error` must be in scope. BL_CHECK(cols == k, invalid_shape, "matmul: b.cols is %lld, ...", ...).
#define BL_CHECK(condition, status, ...)                                              \
  do {                                                                                \
    if (!(condition)) return ::bitloom::fail(error, BL_STATUS_##status, __VA_ARGS__); \
  } while (0)

// Passes on the failure of a check that a function made.
#define BL_RETURN_IF_ERROR(call)                                     \
  do {                                                               \
    if (const bl_status status_ = (call); status_ != BL_STATUS_ok) { \
      return status_;                                                \
    }                                                                \
  } while (0)
