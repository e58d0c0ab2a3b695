#include "call_list.h"

#include "../base/error.h"
#include "device_objects.h"

namespace bitloom::node {

namespace {

struct RecordedCalls {
  std::shared_ptr<const CallList> list;  // null: freed
};

}  // namespace

template <>
struct Tag<RecordedCalls> {
  static constexpr napi_type_tag value = {0x6269746c6f6f6d06, 0x9d1f3c5b7a2e4806};
  static constexpr const char* name = "recorded calls";
};

namespace {

void hold_argument(napi_env env, napi_value value, CallList* list) {
  napi_valuetype type = napi_undefined;
  if (napi_typeof(env, value, &type) != napi_ok || type != napi_object) return;
  // Descriptors have been read, and are as many as tensors.
  napi_typedarray_type elements;
  if (napi_get_typedarray_info(env, value, &elements, nullptr, nullptr, nullptr, nullptr) == napi_ok &&
      elements == napi_float64_array) {
    return;
  }
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  if (!view_of(env, value, &data, &bytes, &buffer)) {
    const DeviceMemory* memory = device_memory_of(env, value);
    if (memory != nullptr) {
      list->device_memory.push_back(memory->memory);
    } else if (std::shared_ptr<ExpertTable> experts = experts_of(env, value)) {
      list->experts.push_back(std::move(experts));
    }
    return;
  }
  if (bytes == 0) return;
  BackingStore store = hold_memory(env, buffer);
  // Weights of one file follow each other: comparing with the last keeps the list short.
  if (store != nullptr && (list->memory.empty() || list->memory.back() != store)) {
    list->memory.push_back(std::move(store));
  }
}

// [operator number, ...values]
bool read_entry(napi_env env, napi_value entry, uint32_t i, CallList* list, bl_error* error) {
  napi_value values[kMaxValues + 1];
  uint32_t length = 0;
  bool ok = napi_get_array_length(env, entry, &length) == napi_ok && length >= 1 && length <= kMaxValues + 1;
  double op = -1;
  for (uint32_t j = 0; ok && j < length; ++j) ok = napi_get_element(env, entry, j, &values[j]) == napi_ok;
  ok = ok && napi_get_value_double(env, values[0], &op) == napi_ok && op >= 0 && op < kOperatorCount;
  if (!ok) {
    fail(error, BL_STATUS_invalid_argument, "runAsync: calls[%u] is not [operator, ...values]", i);
    return false;
  }
  if (!read_call(env, static_cast<int32_t>(op), values + 1, length - 1, &list->calls[i], error)) return false;
  for (uint32_t j = 1; j < length; ++j) hold_argument(env, values[j], list);
  return true;
}

// recordCalls(calls): an object for runRecorded() and runAsync().
Napi::Value record_calls(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  bl_error error{};
  auto object = std::make_unique<RecordedCalls>();
  object->list = read_call_list(env, info[0], &error);
  if (object->list != nullptr && !object->list->device_memory.empty()) {
    fail(&error, BL_STATUS_unsupported,
         "RecordedSequence: has calls on a device, expected the cpu (Graph records those)");
    object->list = nullptr;
  }
  if (object->list == nullptr) {
    throw_error(env, error);
    return env.Undefined();
  }
  Napi::Value value = wrap(env, std::move(object));
  // The buffer objects too: the memory of shared ones lives as long as they do.
  value.As<Napi::Object>().Set("calls", info[0]);
  return value;
}

// runRecorded(recorded): now.
Napi::Value run_recorded(const Napi::CallbackInfo& info) {
  Values values(info, "runRecorded");
  const RecordedCalls* object = values.object<RecordedCalls>();
  if (!values.ok()) return values.finish();
  const std::shared_ptr<const CallList> list = object->list;
  if (list == nullptr)
    return values.finish(fail(values.error(), BL_STATUS_detached, "RecordedSequence: run after dispose()"));
  return values.finish(run_call_list(*list, nullptr, values.error()));
}

// freeRecorded(recorded): runs that are under way go on.
Napi::Value free_recorded(const Napi::CallbackInfo& info) {
  Values values(info, "freeRecorded");
  RecordedCalls* object = values.object<RecordedCalls>();
  if (!values.ok()) return values.finish();
  object->list = nullptr;
  info[0].As<Napi::Object>().Set("calls", info.Env().Undefined());
  return info.Env().Undefined();
}

}  // namespace

std::shared_ptr<const CallList> read_call_list(napi_env env, napi_value calls, bl_error* error) {
  uint32_t count = 0;
  if (napi_get_array_length(env, calls, &count) != napi_ok) {
    fail(error, BL_STATUS_invalid_argument, "runAsync: calls is not an array");
    return nullptr;
  }
  auto list = std::make_shared<CallList>();
  list->calls.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    napi_value entry = nullptr;
    napi_get_element(env, calls, i, &entry);
    const bool ok = read_entry(env, entry, i, list.get(), error);
    napi_close_handle_scope(env, scope);
    if (!ok) return nullptr;
  }
  return list;
}

bl_status run_call_list(const CallList& list, const std::atomic<int32_t>* state, bl_error* error) {
  for (const Call& call : list.calls) {
    if (state != nullptr && state->load(std::memory_order_relaxed) != 0)
      return fail(error, BL_STATUS_aborted, "%s: aborted", call.op->name);
    const bl_status status = run_call(call, error);
    if (status != BL_STATUS_ok) return status;
  }
  return BL_STATUS_ok;
}

std::shared_ptr<const CallList> recorded_calls_of(napi_env env, napi_value value) {
  const RecordedCalls* object = unwrap<RecordedCalls>(env, value);
  return object == nullptr ? nullptr : object->list;
}

void init_recorded_calls(Napi::Env env, Napi::Object exports) {
  exports["recordCalls"] = Napi::Function::New<record_calls>(env, "recordCalls");
  exports["runRecorded"] = Napi::Function::New<run_recorded>(env, "runRecorded");
  exports["freeRecorded"] = Napi::Function::New<free_recorded>(env, "freeRecorded");
}

}  // namespace bitloom::node
