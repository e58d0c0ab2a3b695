#include "experts.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "../base/error.h"
#include "device_objects.h"

namespace bitloom::node {

namespace {

// Values of one expert: gate, up and down by three, their biases by two.
constexpr uint32_t kExpertValues = 15;
constexpr uint32_t kMostExperts = 1 << 20;

struct ExpertsObject {
  std::shared_ptr<ExpertTable> table;
};

}  // namespace

template <>
struct Tag<ExpertsObject> {
  static constexpr napi_type_tag value = {0x6269746c6f6f6d05, 0x9d1f3c5b7a2e4805};
  static constexpr const char* name = "experts";
};

namespace {

bool is_given(napi_env env, napi_value value) {
  napi_valuetype type = napi_undefined;
  napi_typeof(env, value, &type);
  return type != napi_undefined && type != napi_null;
}

// The words of JavaScript in place of the C ABI's.
void name_expert(bl_error* error) {
  std::string message(error->message);
  for (const auto& [c, js] : {std::pair{"moe_forward:", "MoEExperts:"}, std::pair{"_bias", "Bias"}}) {
    for (size_t at = 0; (at = message.find(c, at)) != std::string::npos;) message.replace(at, std::strlen(c), js);
  }
  std::snprintf(error->message, sizeof(error->message), "%s", message.c_str());
}

bool read_expert(napi_env env, const napi_value* values, bl_moe_expert* expert, bl_error* error) {
  Arguments arguments(env, "moe_forward", values, kExpertValues, error);
  *expert = {};
  if (is_given(env, values[0])) {
    if (!arguments.weights("gate", &expert->gate)) return false;
  } else {
    arguments.skip(3);
  }
  return arguments.weights("up", &expert->up) && arguments.weights("down", &expert->down) &&
         arguments.optional_tensor("gate_bias", &expert->gate_bias) &&
         arguments.optional_tensor("up_bias", &expert->up_bias) &&
         arguments.optional_tensor("down_bias", &expert->down_bias);
}

void hold(napi_env env, napi_value value, ExpertTable* table) {
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  if (!view_of(env, value, &data, &bytes, &buffer) || bytes == 0) return;
  BackingStore store = hold_memory(env, buffer);
  // Experts of one file lie in one buffer: comparing with the last keeps the list short.
  if (store != nullptr && (table->memory.empty() || table->memory.back() != store)) {
    table->memory.push_back(std::move(store));
  }
}

bool read_table(napi_env env, napi_value list, uint32_t count, ExpertTable* table, bl_error* error) {
  for (uint32_t i = 0; i < count; ++i) {
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    napi_value values[kExpertValues];
    for (uint32_t j = 0; j < kExpertValues; ++j)
      napi_get_element(env, list, i * kExpertValues + j, &values[j]);
    bl_moe_expert expert;
    bool ok = read_expert(env, values, &expert, error) &&
              bl_moe_check_expert(&expert, i, i == 0 ? expert.up.cols : table->experts[0].up.cols, error) ==
                  BL_STATUS_ok;
    for (uint32_t j = 0; ok && j < kExpertValues; ++j) hold(env, values[j], table);
    if (ok) table->experts.push_back(expert);
    napi_close_handle_scope(env, scope);
    if (!ok) return false;
  }
  return true;
}

// createExperts(values): 15 values for each expert.
Napi::Value create_experts(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  bl_error error{};
  uint32_t length = 0;
  if (info.Length() != 1 || napi_get_array_length(env, info[0], &length) != napi_ok ||
      length % kExpertValues != 0 || length / kExpertValues > kMostExperts) {
    fail(&error, BL_STATUS_invalid_argument, "createExperts: values is not an array of 15 for each expert");
    throw_error(env, error);
    return env.Undefined();
  }
  auto object = std::make_unique<ExpertsObject>();
  object->table = std::make_shared<ExpertTable>();
  object->table->experts.reserve(length / kExpertValues);
  if (!read_table(env, info[0], length / kExpertValues, object->table.get(), &error)) {
    name_expert(&error);
    throw_error(env, error);
    return env.Undefined();
  }
  Napi::Value value = wrap(env, std::move(object));
  // The buffer objects too: the memory of shared ones lives as long as they do.
  value.As<Napi::Object>().Set("values", info[0]);
  return value;
}

// freeExperts(experts): lets go of the memory when calls that use it have ended.
Napi::Value free_experts(const Napi::CallbackInfo& info) {
  ExpertsObject* object = info.Length() == 1 ? unwrap<ExpertsObject>(info.Env(), info[0]) : nullptr;
  if (object != nullptr) {
    object->table.reset();
    info[0].As<Napi::Object>().Set("values", info.Env().Undefined());
  }
  return info.Env().Undefined();
}

}  // namespace

std::shared_ptr<ExpertTable> experts_of(napi_env env, napi_value value) {
  const ExpertsObject* object = unwrap<ExpertsObject>(env, value);
  return object == nullptr ? nullptr : object->table;
}

void init_experts(Napi::Env env, Napi::Object exports) {
  exports["createExperts"] = Napi::Function::New<create_experts>(env, "createExperts");
  exports["freeExperts"] = Napi::Function::New<free_experts>(env, "freeExperts");
}

}  // namespace bitloom::node
