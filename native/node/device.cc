// Devices and their memory.
#include <utility>

#include "device_objects.h"

namespace bitloom::node {

namespace {

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
  napi_create_array_with_length(env, 4, &held);
  for (uint32_t i = 0; i < 3; ++i) napi_set_element(env, held, i, info[i]);
  napi_set_element(env, held, 3, buffer);
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

}  // namespace

uint8_t* DeviceMemory::address() const {
  auto* base = static_cast<uint8_t*>(bl_memory_address(memory.get()));
  return base == nullptr ? nullptr : base + offset;
}

DeviceMemory* device_memory_of(napi_env env, napi_value value) { return unwrap<DeviceMemory>(env, value); }

napi_value rejected(Napi::Env env, napi_deferred deferred, napi_value promise, const bl_error& error) {
  napi_reject_deferred(env, deferred, make_error(env, error));
  return promise;
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
#undef BL_EXPORT
  init_streams(env, exports);
}

}  // namespace bitloom::node
