// The tagged objects of device.h and the reading of them: what the files of devices share.
#pragma once

#include <napi.h>

#include <cmath>
#include <memory>

#include "../base/error.h"
#include "call.h"
#include "device.h"

namespace bitloom::node {

// Streams, events and graphs: the C ABI's handle, freed by finalizers or at dispose.
struct DeviceStream {
  int32_t device;
  bl_stream* handle;
  ~DeviceStream() { bl_stream_destroy(handle); }
};

struct DeviceEvent {
  bl_event* handle;
  ~DeviceEvent() { bl_event_destroy(handle); }
};

struct DeviceGraph {
  bl_graph* handle;
  ~DeviceGraph() { bl_graph_destroy(handle); }
};

template <typename T>
struct Tag;
template <>
struct Tag<DeviceMemory> {
  static constexpr napi_type_tag value = {0x6269746c6f6f6d01, 0x9d1f3c5b7a2e4801};
  static constexpr const char* name = "device memory";
};
template <>
struct Tag<DeviceStream> {
  static constexpr napi_type_tag value = {0x6269746c6f6f6d02, 0x9d1f3c5b7a2e4802};
  static constexpr const char* name = "a stream";
};
template <>
struct Tag<DeviceEvent> {
  static constexpr napi_type_tag value = {0x6269746c6f6f6d03, 0x9d1f3c5b7a2e4803};
  static constexpr const char* name = "an event";
};
template <>
struct Tag<DeviceGraph> {
  static constexpr napi_type_tag value = {0x6269746c6f6f6d04, 0x9d1f3c5b7a2e4804};
  static constexpr const char* name = "a graph";
};

template <typename T>
T* unwrap(napi_env env, napi_value value) {
  bool tagged = false;
  void* data = nullptr;
  napi_valuetype type = napi_undefined;  // Node converts other values to objects, or throws
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object) return nullptr;
  if (napi_check_object_type_tag(env, value, &Tag<T>::value, &tagged) != napi_ok || !tagged) return nullptr;
  return napi_unwrap(env, value, &data) == napi_ok ? static_cast<T*>(data) : nullptr;
}

template <typename T>
Napi::Value wrap(Napi::Env env, std::unique_ptr<T> object) {
  Napi::Object value = Napi::Object::New(env);
  const auto finalize = [](napi_env, void* data, void*) { delete static_cast<T*>(data); };
  napi_type_tag_object(env, value, &Tag<T>::value);
  napi_wrap(env, value, object.release(), finalize, nullptr, nullptr);
  return value;
}

// The arguments of a function: reads one after the other, and throws for the first that does not fit.
class Values {
 public:
  Values(const Napi::CallbackInfo& info, const char* function) : info_(info), function_(function) {}

  template <typename T>
  T* object() {
    T* found = unwrap<T>(info_.Env(), info_[position_++]);
    if (found == nullptr) bad(Tag<T>::name);
    return found;
  }
  bl_stream* optional_stream() {
    const Napi::Value value = info_[position_++];
    if (value.IsUndefined()) return nullptr;
    const DeviceStream* found = unwrap<DeviceStream>(info_.Env(), value);
    if (found == nullptr) bad(Tag<DeviceStream>::name);
    return found == nullptr ? nullptr : found->handle;
  }
  uint64_t whole() {
    const Napi::Value value = info_[position_++];
    const double number = value.IsNumber() ? value.As<Napi::Number>().DoubleValue() : -1;
    if (!(number >= 0) || number > 9007199254740991.0 || number != std::trunc(number)) {
      bad("a whole number of at least 0");
      return 0;
    }
    return static_cast<uint64_t>(number);
  }
  int32_t index() {
    const uint64_t number = whole();
    if (number > INT32_MAX) bad("a device number");
    return static_cast<int32_t>(number);
  }
  bool bytes(uint8_t** data, uint64_t* count, napi_value* buffer) {
    if (view_of(info_.Env(), info_[position_++], data, count, buffer)) return true;
    bad("a typed array");
    return false;
  }
  bool ok() const { return error_.status == BL_STATUS_ok; }
  bl_error* error() { return &error_; }
  // Throws if a read failed or `status` is an error.
  Napi::Value finish(bl_status status = BL_STATUS_ok) {
    if (status != BL_STATUS_ok || !ok()) throw_error(info_.Env(), error_);
    return info_.Env().Undefined();
  }

 private:
  void bad(const char* expected) {
    if (!ok()) return;
    fail(&error_, BL_STATUS_invalid_argument, "%s: argument %zu is not %s", function_, position_, expected);
  }

  const Napi::CallbackInfo& info_;
  const char* function_;
  size_t position_ = 0;
  bl_error error_{};
};
napi_value rejected(Napi::Env env, napi_deferred deferred, napi_value promise, const bl_error& error);

void init_streams(Napi::Env env, Napi::Object exports);

}  // namespace bitloom::node
