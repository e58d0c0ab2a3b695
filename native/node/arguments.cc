#include "arguments.h"

#include <cmath>
#include <cstdio>
#include <cstring>

#include "../base/error.h"
#include "device.h"
#include "experts.h"

namespace bitloom::node {

namespace {

constexpr double kMaxSafeInteger = 9007199254740991.0;
constexpr size_t kDescriptorCapacity = 2 + 2 * BL_MAX_RANK;

uint64_t element_bytes(napi_typedarray_type type) {
  switch (type) {
    case napi_int8_array:
    case napi_uint8_array:
    case napi_uint8_clamped_array:
      return 1;
    case napi_int16_array:
    case napi_uint16_array:
      return 2;
    case napi_int32_array:
    case napi_uint32_array:
    case napi_float32_array:
      return 4;
    case napi_float64_array:
    case napi_bigint64_array:
    case napi_biguint64_array:
      return 8;
    default:
      return 2;  // Float16Array, on runtimes that have it
  }
}

bool is_undefined(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  return type == napi_undefined || type == napi_null;
}

// False also for values that are no integer, so that garbage can not become a size.
bool to_int64(double value, int64_t* out) {
  if (!(std::fabs(value) <= kMaxSafeInteger) || value != std::trunc(value)) return false;
  *out = static_cast<int64_t>(value);
  return true;
}

}  // namespace

bool view_of(napi_env env, napi_value value, uint8_t** data, uint64_t* bytes, napi_value* buffer) {
  napi_typedarray_type type;
  size_t length = 0;
  size_t offset = 0;
  void* address = nullptr;
  if (napi_get_typedarray_info(env, value, &type, &length, &address, buffer, &offset) == napi_ok) {
    *data = static_cast<uint8_t*>(address);
    *bytes = address == nullptr ? 0 : length * element_bytes(type);
    return true;
  }
  if (napi_get_dataview_info(env, value, &length, &address, buffer, &offset) != napi_ok) return false;
  *data = static_cast<uint8_t*>(address);
  *bytes = address == nullptr ? 0 : length;
  return true;
}

napi_value Arguments::next() {
  if (position_ < count_) return values_[position_++];
  napi_value undefined = nullptr;
  napi_get_undefined(env_, &undefined);
  return undefined;
}

bool Arguments::bad(const char* name, const char* problem, bl_status status) {
  fail(error_, status, "%s: %s %s", op_, name, problem);
  return false;
}

bool Arguments::view(const char* name, napi_value value, uint8_t** data, uint64_t* bytes) {
  napi_value buffer = nullptr;
  return view_of(env_, value, data, bytes, &buffer) || bad(name, "is not a typed array");
}

bool Arguments::on_device(const char* name, int32_t device) {
  if (first_ == nullptr) {
    first_ = name;
    device_ = device;
    return true;
  }
  if (device == device_) return true;
  char here[24] = "cpu";
  char there[24] = "cpu";
  if (device > 0) std::snprintf(here, sizeof(here), "cuda:%d", device - 1);
  if (device_ > 0) std::snprintf(there, sizeof(there), "cuda:%d", device_ - 1);
  fail(error_, BL_STATUS_invalid_argument, "%s: %s is on %s, expected %s (where %s is)", op_, name, here,
       there, first_);
  return false;
}

bool Arguments::memory_view(const char* name, napi_value value, uint8_t** data, uint64_t* bytes) {
  napi_value buffer = nullptr;
  if (view_of(env_, value, data, bytes, &buffer)) return on_device(name, 0);
  const DeviceMemory* memory = device_memory_of(env_, value);
  if (memory == nullptr) return bad(name, "is not a typed array");
  *data = memory->address();
  *bytes = memory->bytes;
  return on_device(name, memory->device + 1);
}

bool Arguments::descriptor(const char* name, napi_value value, double* numbers, size_t capacity,
                           size_t* length) {
  napi_typedarray_type type;
  void* data = nullptr;
  napi_value buffer = nullptr;
  size_t offset = 0;
  if (napi_get_typedarray_info(env_, value, &type, length, &data, &buffer, &offset) != napi_ok ||
      type != napi_float64_array || *length > capacity || (data == nullptr && *length > 0)) {
    return bad(name, "has no descriptor: expected a tensor made by bitloom");
  }
  if (*length > 0) std::memcpy(numbers, data, *length * sizeof(double));
  return true;
}

bool Arguments::tensor(const char* name, bl_tensor* out) {
  napi_value data = next();
  double numbers[kDescriptorCapacity];
  size_t length = 0;
  uint8_t* address = nullptr;
  if (!memory_view(name, data, &address, &out->bytes)) return false;
  if (!descriptor(name, next(), numbers, kDescriptorCapacity, &length)) return false;
  int64_t dtype = 0;
  int64_t rank = -1;
  if (length < 2 || !to_int64(numbers[0], &dtype) || !to_int64(numbers[1], &rank) || rank < 0 ||
      rank > BL_MAX_RANK || length != static_cast<size_t>(2 + 2 * rank) || dtype < 0 || dtype > 255) {
    return bad(name, "has an invalid descriptor");
  }
  out->data = address;
  out->dtype = static_cast<int32_t>(dtype);
  out->rank = static_cast<int32_t>(rank);
  bool empty = false;
  for (int64_t axis = 0; axis < rank; ++axis) {
    if (!to_int64(numbers[2 + axis], &out->shape[axis]) ||
        !to_int64(numbers[2 + rank + axis], &out->strides[axis])) {
      return bad(name, "has a shape or stride that is not an integer", BL_STATUS_invalid_shape);
    }
    empty = empty || out->shape[axis] == 0;
  }
  if (address == nullptr && !empty)
    return bad(name, "is detached: its buffer has no memory", BL_STATUS_detached);
  return true;
}

bool Arguments::optional_tensor(const char* name, bl_tensor* out) {
  if (position_ < count_ && !is_undefined(env_, values_[position_])) return tensor(name, out);
  position_ += 2;
  *out = bl_tensor{};
  return true;
}

bool Arguments::weights(const char* name, bl_weights* out) {
  double numbers[5];
  size_t length = 0;
  uint8_t* address = nullptr;
  if (!memory_view(name, next(), &address, &out->bytes)) return false;
  if (!descriptor(name, next(), numbers, 5, &length)) return false;
  int64_t format = -1;
  int64_t layout = -1;
  if (length != 5 || !to_int64(numbers[0], &format) || !to_int64(numbers[1], &layout) ||
      !to_int64(numbers[2], &out->rows) || !to_int64(numbers[3], &out->cols) || format < 0 ||
      format >= BL_FORMAT_count || layout < 0 || layout > 255) {
    return bad(name, "has an invalid descriptor");
  }
  out->format = static_cast<int32_t>(format);
  out->layout = static_cast<int32_t>(layout);
  out->tensor_scale = static_cast<float>(numbers[4]);
  out->data = address;
  if (address == nullptr && out->rows != 0 && out->cols != 0) {
    return bad(name, "is detached: its buffer has no memory", BL_STATUS_detached);
  }
  napi_value codebook = next();
  out->codebook = nullptr;
  out->codebook_size = 0;
  if (is_undefined(env_, codebook)) return true;
  uint64_t bytes = 0;
  if (!view(name, codebook, &address, &bytes)) return false;
  out->codebook = reinterpret_cast<const float*>(address);
  const uint64_t entries = bytes / sizeof(float);
  out->codebook_size = entries <= INT32_MAX ? static_cast<int32_t>(entries) : 0;
  return true;
}

bool Arguments::experts(const char* name, const bl_moe_expert** out, int64_t* count) {
  const std::shared_ptr<ExpertTable> table = experts_of(env_, next());
  if (table == nullptr) return bad(name, "is not experts, or was disposed");
  *out = table->experts.data();
  *count = static_cast<int64_t>(table->experts.size());
  return on_device(name, 0);
}

bool Arguments::number(const char* name, float* out) {
  double value = 0;
  if (napi_get_value_double(env_, next(), &value) != napi_ok) return bad(name, "is not a number");
  *out = static_cast<float>(value);
  return true;
}

bool Arguments::integer(const char* name, int32_t* out) {
  double value = 0;
  int64_t whole = 0;
  if (napi_get_value_double(env_, next(), &value) != napi_ok) return bad(name, "is not a number");
  if (!to_int64(value, &whole) || whole < INT32_MIN || whole > INT32_MAX) {
    return bad(name, "is not a 32-bit integer", BL_STATUS_out_of_range);
  }
  *out = static_cast<int32_t>(whole);
  return true;
}

bool Arguments::bits64(const char* name, uint64_t* out) {
  napi_value value = next();
  bool lossless = false;
  if (napi_get_value_bigint_uint64(env_, value, out, &lossless) == napi_ok) {
    return lossless || bad(name, "is not in [0, 2^64)", BL_STATUS_out_of_range);
  }
  double number = 0;
  int64_t whole = 0;
  if (napi_get_value_double(env_, value, &number) != napi_ok) return bad(name, "is not a number or bigint");
  if (!to_int64(number, &whole) || whole < 0) {
    return bad(name, "is not a safe integer of at least 0", BL_STATUS_out_of_range);
  }
  *out = static_cast<uint64_t>(whole);
  return true;
}

bool Arguments::memory(const char* name, uint64_t bytes, void** out) {
  uint8_t* address = nullptr;
  uint64_t available = 0;
  if (!view(name, next(), &address, &available)) return false;
  if (available < bytes) return bad(name, "is too small", BL_STATUS_buffer_too_small);
  *out = address;
  return true;
}

bool Arguments::optional_bytes(const char* name, void** data, uint64_t* bytes) {
  *data = nullptr;
  *bytes = 0;
  napi_value value = next();
  if (is_undefined(env_, value)) return true;
  uint8_t* address = nullptr;
  if (!view(name, value, &address, bytes)) return false;
  *data = address;
  return address != nullptr || bad(name, "is detached: its buffer has no memory", BL_STATUS_detached);
}

bool Arguments::run(bl_run* out) {
  *out = bl_run{};
  out->isa = BL_ISA_default;
  out->device = device_ < 0 ? 0 : device_;
  napi_value value = next();
  if (is_undefined(env_, value)) return true;
  if (const DeviceStream* stream = device_stream_of(env_, value)) {
    if (out->device != device_of(*stream) + 1) {
      return bad("stream", "is not of the device that the tensors are on");
    }
    out->stream = handle_of(*stream);
    return true;
  }
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  napi_value buffer = nullptr;
  size_t offset = 0;
  if (napi_get_typedarray_info(env_, value, &type, &length, &data, &buffer, &offset) != napi_ok ||
      type != napi_int32_array || length != 2 || data == nullptr) {
    return bad("run", "is not an Int32Array [isa, threads]");
  }
  std::memcpy(&out->isa, data, sizeof(int32_t));
  std::memcpy(&out->threads, static_cast<const uint8_t*>(data) + 4, sizeof(int32_t));
  return true;
}

}  // namespace bitloom::node
