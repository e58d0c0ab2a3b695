#include "device.h"

#include <cmath>
#include <utility>

#include "../base/error.h"
#include "call.h"

namespace bitloom::node {

// Streams, events and graphs: the C ABI's handle, freed by finalizers or at dispose.
struct DeviceStream {
  int32_t device;
  bl_stream* handle;
  ~DeviceStream() { bl_stream_destroy(handle); }
};

namespace {

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

Napi::Value device_count(const Napi::CallbackInfo& info) {
  return Napi::Number::New(info.Env(), bl_device_count());
}

Napi::Value device_unavailable(const Napi::CallbackInfo& info) {
  const char* reason = bl_device_unavailable();
  return reason == nullptr ? info.Env().Undefined() : Napi::String::New(info.Env(), reason);
}

Napi::Value device_info(const Napi::CallbackInfo& info) {
  Values values(info, "deviceInfo");
  const int32_t device = values.index();
  bl_device_info it{};
  const bl_status status = values.ok() ? bl_get_device_info(device, &it, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  Napi::Object result = Napi::Object::New(info.Env());
  result["name"] = it.name;
  result["arch"] = it.arch;
  result["multiprocessors"] = it.multiprocessors;
  result["memoryBytes"] = static_cast<double>(it.memory_bytes);
  result["freeBytes"] = static_cast<double>(it.free_bytes);
  result["usedBytes"] = static_cast<double>(it.used_bytes);
  result["reservedBytes"] = static_cast<double>(it.reserved_bytes);
  result["peakBytes"] = static_cast<double>(it.peak_bytes);
  result["limitBytes"] = static_cast<double>(it.limit_bytes);
  result["allocations"] = static_cast<double>(it.allocations);
  result["driverCalls"] = static_cast<double>(it.driver_calls);
  if (it.unusable[0] != 0) result["unusable"] = it.unusable;
  return result;
}

// setDeviceLimit(device, bytes)
Napi::Value set_device_limit(const Napi::CallbackInfo& info) {
  Values values(info, "setDeviceLimit");
  const int32_t device = values.index();
  const uint64_t bytes = values.whole();
  return values.finish(values.ok() ? bl_set_device_limit(device, bytes, values.error()) : BL_STATUS_ok);
}

Napi::Value reset_device(const Napi::CallbackInfo& info) {
  Values values(info, "resetDevice");
  const int32_t device = values.index();
  return values.finish(values.ok() ? bl_reset_device(device, values.error()) : BL_STATUS_ok);
}

// deviceAllocate(device, bytes, stream | undefined)
Napi::Value device_allocate(const Napi::CallbackInfo& info) {
  Values values(info, "deviceAllocate");
  const int32_t device = values.index();
  const uint64_t bytes = values.whole();
  bl_stream* stream = values.optional_stream();
  bl_memory* memory = nullptr;
  const bl_status status =
      values.ok() ? bl_device_allocate(device, stream, bytes, &memory, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  auto object = std::make_unique<DeviceMemory>();
  object->memory = std::shared_ptr<bl_memory>(memory, bl_device_free);
  object->device = device;
  object->offset = 0;
  object->bytes = bytes;
  return wrap(info.Env(), std::move(object));
}

// deviceSlice(memory, offset): the rest of it.
Napi::Value device_slice(const Napi::CallbackInfo& info) {
  Values values(info, "deviceSlice");
  const DeviceMemory* whole = values.object<DeviceMemory>();
  const uint64_t offset = values.whole();
  if (!values.ok()) return values.finish();
  if (offset > whole->bytes) {
    return values.finish(
        fail(values.error(), BL_STATUS_out_of_range, "deviceSlice: offset is %llu, expected at most %llu",
             static_cast<unsigned long long>(offset), static_cast<unsigned long long>(whole->bytes)));
  }
  auto part = std::make_unique<DeviceMemory>(*whole);
  part->offset += offset;
  part->bytes -= offset;
  return wrap(info.Env(), std::move(part));
}

// deviceFree(memory): this part's hold on it; the last one frees it.
Napi::Value device_free(const Napi::CallbackInfo& info) {
  Values values(info, "deviceFree");
  DeviceMemory* memory = values.object<DeviceMemory>();
  if (values.ok()) {
    memory->memory.reset();
    memory->bytes = 0;
  }
  return values.finish();
}

bl_status check_part(const char* function, const DeviceMemory& memory, uint64_t bytes, bl_error* error) {
  BL_CHECK(memory.address() != nullptr || bytes == 0, detached,
           "%s: the memory is freed, or from before a reset of the device", function);
  BL_CHECK(bytes <= memory.bytes, buffer_too_small, "%s: the memory has %llu bytes, expected %llu", function,
           static_cast<unsigned long long>(memory.bytes), static_cast<unsigned long long>(bytes));
  return BL_STATUS_ok;
}

// deviceUpload(memory, typed array, stream | undefined)
Napi::Value device_upload(const Napi::CallbackInfo& info) {
  Values values(info, "deviceUpload");
  const DeviceMemory* memory = values.object<DeviceMemory>();
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  values.bytes(&data, &bytes, &buffer);
  bl_stream* stream = values.optional_stream();
  if (!values.ok()) return values.finish();
  bl_status status = check_part("deviceUpload", *memory, bytes, values.error());
  if (status == BL_STATUS_ok) {
    status = bl_device_copy(memory->device, stream, BL_COPY_to_device, memory->address(), data, bytes,
                            values.error());
  }
  return values.finish(status);
}

// deviceDownload(typed array, memory, stream | undefined): waits for it.
Napi::Value device_download(const Napi::CallbackInfo& info) {
  Values values(info, "deviceDownload");
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  values.bytes(&data, &bytes, &buffer);
  const DeviceMemory* memory = values.object<DeviceMemory>();
  bl_stream* stream = values.optional_stream();
  if (!values.ok()) return values.finish();
  bl_status status = check_part("deviceDownload", *memory, bytes, values.error());
  if (status == BL_STATUS_ok) {
    status = bl_device_copy(memory->device, stream, BL_COPY_from_device, data, memory->address(), bytes,
                            values.error());
  }
  if (status == BL_STATUS_ok) status = bl_stream_synchronize(memory->device, stream, values.error());
  return values.finish(status);
}

napi_value rejected(Napi::Env env, napi_deferred deferred, napi_value promise, const bl_error& error) {
  napi_reject_deferred(env, deferred, make_error(env, error));
  return promise;
}

// deviceDownloadAsync(typed array, memory, stream | undefined): a promise.
Napi::Value device_download_async(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  napi_create_promise(env, &deferred, &promise);
  Values values(info, "deviceDownloadAsync");
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  values.bytes(&data, &bytes, &buffer);
  const DeviceMemory* memory = values.object<DeviceMemory>();
  bl_stream* stream = values.optional_stream();
  bl_status status = values.error()->status;
  if (values.ok()) status = check_part("deviceDownloadAsync", *memory, bytes, values.error());
  if (status == BL_STATUS_ok) {
    status = bl_device_copy(memory->device, stream, BL_COPY_from_device, data, memory->address(), bytes,
                            values.error());
  }
  if (status != BL_STATUS_ok) return {env, rejected(env, deferred, promise, *values.error())};
  napi_value held = nullptr;
  napi_create_array_with_length(env, 3, &held);
  for (uint32_t i = 0; i < 2; ++i) napi_set_element(env, held, i, info[i]);
  napi_set_element(env, held, 2, buffer);
  settle_after(env, memory->device, stream, deferred, held);
  return {env, promise};
}

// deviceCopy(output, input, bytes, stream | undefined): both on one device.
Napi::Value device_copy(const Napi::CallbackInfo& info) {
  Values values(info, "deviceCopy");
  const DeviceMemory* output = values.object<DeviceMemory>();
  const DeviceMemory* input = values.object<DeviceMemory>();
  const uint64_t bytes = values.whole();
  bl_stream* stream = values.optional_stream();
  if (!values.ok()) return values.finish();
  bl_status status = check_part("deviceCopy", *output, bytes, values.error());
  if (status == BL_STATUS_ok) status = check_part("deviceCopy", *input, bytes, values.error());
  if (status == BL_STATUS_ok && output->device != input->device) {
    status = fail(values.error(), BL_STATUS_unsupported, "deviceCopy: the memory is on two devices");
  }
  if (status == BL_STATUS_ok) {
    status = bl_device_copy(output->device, stream, BL_COPY_on_device, output->address(), input->address(),
                            bytes, values.error());
  }
  return values.finish(status);
}

Napi::Value stream_create(const Napi::CallbackInfo& info) {
  Values values(info, "streamCreate");
  const int32_t device = values.index();
  bl_stream* handle = nullptr;
  const bl_status status = values.ok() ? bl_stream_create(device, &handle, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return wrap(info.Env(), std::unique_ptr<DeviceStream>(new DeviceStream{device, handle}));
}

// streamSynchronize(device, stream | undefined)
Napi::Value stream_synchronize(const Napi::CallbackInfo& info) {
  Values values(info, "streamSynchronize");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  return values.finish(values.ok() ? bl_stream_synchronize(device, stream, values.error()) : BL_STATUS_ok);
}

// streamDone(device, stream | undefined): a promise.
Napi::Value stream_done(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  napi_create_promise(env, &deferred, &promise);
  Values values(info, "streamDone");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  if (!values.ok()) return {env, rejected(env, deferred, promise, *values.error())};
  settle_after(env, device, stream, deferred, info[1]);
  return {env, promise};
}

// streamWait(device, stream | undefined, other | undefined)
Napi::Value stream_wait(const Napi::CallbackInfo& info) {
  Values values(info, "streamWait");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  bl_stream* other = values.optional_stream();
  return values.finish(values.ok() ? bl_stream_wait(device, stream, other, values.error()) : BL_STATUS_ok);
}

// eventRecord(device, stream | undefined)
Napi::Value event_record(const Napi::CallbackInfo& info) {
  Values values(info, "eventRecord");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  bl_event* handle = nullptr;
  const bl_status status =
      values.ok() ? bl_event_record(device, stream, &handle, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return wrap(info.Env(), std::unique_ptr<DeviceEvent>(new DeviceEvent{handle}));
}

// eventElapsed(begin, end): milliseconds.
Napi::Value event_elapsed(const Napi::CallbackInfo& info) {
  Values values(info, "eventElapsed");
  const DeviceEvent* begin = values.object<DeviceEvent>();
  const DeviceEvent* end = values.object<DeviceEvent>();
  float milliseconds = 0;
  const bl_status status = values.ok()
                               ? bl_event_elapsed(begin->handle, end->handle, &milliseconds, values.error())
                               : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return Napi::Number::New(info.Env(), milliseconds);
}

// graphBegin(device, stream | undefined)
Napi::Value graph_begin(const Napi::CallbackInfo& info) {
  Values values(info, "graphBegin");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  return values.finish(values.ok() ? bl_graph_begin(device, stream, values.error()) : BL_STATUS_ok);
}

// graphEnd(device, stream | undefined)
Napi::Value graph_end(const Napi::CallbackInfo& info) {
  Values values(info, "graphEnd");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  bl_graph* handle = nullptr;
  const bl_status status = values.ok() ? bl_graph_end(device, stream, &handle, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return wrap(info.Env(), std::unique_ptr<DeviceGraph>(new DeviceGraph{handle}));
}

// graphLaunch(graph, stream | undefined)
Napi::Value graph_launch(const Napi::CallbackInfo& info) {
  Values values(info, "graphLaunch");
  const DeviceGraph* graph = values.object<DeviceGraph>();
  bl_stream* stream = values.optional_stream();
  return values.finish(values.ok() ? bl_graph_launch(graph->handle, stream, values.error()) : BL_STATUS_ok);
}

// A promise that a thread of the driver settles.
struct Settlement {
  napi_deferred deferred;
  napi_ref held = nullptr;
  napi_threadsafe_function call = nullptr;
  bl_error error{};
};

void settle(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Settlement> it(static_cast<Settlement*>(data));
  if (env == nullptr) return;  // the environment is being torn down
  if (it->error.status == BL_STATUS_ok) {
    napi_value undefined = nullptr;
    napi_get_undefined(env, &undefined);
    napi_resolve_deferred(env, it->deferred, undefined);
  } else {
    napi_reject_deferred(env, it->deferred, make_error(env, it->error));
  }
  if (it->held != nullptr) napi_delete_reference(env, it->held);
}

void notify(void* context, const bl_error* error) {
  auto* it = static_cast<Settlement*>(context);
  it->error = *error;
  const napi_threadsafe_function call = it->call;
  if (napi_call_threadsafe_function(call, it, napi_tsfn_nonblocking) != napi_ok) delete it;
  napi_release_threadsafe_function(call, napi_tsfn_release);
}

}  // namespace

uint8_t* DeviceMemory::address() const {
  auto* base = static_cast<uint8_t*>(bl_memory_address(memory.get()));
  return base == nullptr ? nullptr : base + offset;
}

DeviceMemory* device_memory_of(napi_env env, napi_value value) { return unwrap<DeviceMemory>(env, value); }
DeviceStream* device_stream_of(napi_env env, napi_value value) { return unwrap<DeviceStream>(env, value); }
bl_stream* handle_of(const DeviceStream& stream) { return stream.handle; }
int32_t device_of(const DeviceStream& stream) { return stream.device; }

void settle_after(napi_env env, int32_t device, bl_stream* stream, napi_deferred deferred, napi_value held) {
  auto it = std::make_unique<Settlement>();
  it->deferred = deferred;
  napi_value name = nullptr;
  napi_create_string_utf8(env, "bitloom", NAPI_AUTO_LENGTH, &name);
  bl_error error{};
  bl_status status = BL_STATUS_ok;
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settle,
                                      &it->call) != napi_ok) {
    status = fail(&error, BL_STATUS_out_of_memory, "async: cannot make a callback");
  } else {
    napi_valuetype type = napi_undefined;
    if (held != nullptr) napi_typeof(env, held, &type);
    if (type == napi_object) napi_create_reference(env, held, 1, &it->held);
    status = bl_stream_notify(device, stream, notify, it.get(), &error);
    if (status != BL_STATUS_ok) napi_release_threadsafe_function(it->call, napi_tsfn_abort);
  }
  if (status == BL_STATUS_ok) {
    it.release();  // settle() deletes it
    return;
  }
  if (it->held != nullptr) napi_delete_reference(env, it->held);
  napi_reject_deferred(env, deferred, make_error(env, error));
}

void init_devices(Napi::Env env, Napi::Object exports) {
#define BL_EXPORT(name, function) exports[name] = Napi::Function::New<function>(env, name);
  BL_EXPORT("deviceCount", device_count)
  BL_EXPORT("deviceUnavailable", device_unavailable)
  BL_EXPORT("deviceInfo", device_info)
  BL_EXPORT("setDeviceLimit", set_device_limit)
  BL_EXPORT("resetDevice", reset_device)
  BL_EXPORT("deviceAllocate", device_allocate)
  BL_EXPORT("deviceSlice", device_slice)
  BL_EXPORT("deviceFree", device_free)
  BL_EXPORT("deviceUpload", device_upload)
  BL_EXPORT("deviceDownload", device_download)
  BL_EXPORT("deviceDownloadAsync", device_download_async)
  BL_EXPORT("deviceCopy", device_copy)
  BL_EXPORT("streamCreate", stream_create)
  BL_EXPORT("streamSynchronize", stream_synchronize)
  BL_EXPORT("streamDone", stream_done)
  BL_EXPORT("streamWait", stream_wait)
  BL_EXPORT("eventRecord", event_record)
  BL_EXPORT("eventElapsed", event_elapsed)
  BL_EXPORT("graphBegin", graph_begin)
  BL_EXPORT("graphEnd", graph_end)
  BL_EXPORT("graphLaunch", graph_launch)
#undef BL_EXPORT
}

}  // namespace bitloom::node
