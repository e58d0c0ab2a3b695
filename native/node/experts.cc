#include "experts.h"

#include <cstdio>
#include <cstring>
#include <string>
#include <utility>

#include "../base/error.h"
#include "device_objects.h"

namespace bitloom::node {

namespace {

// Values of one expert: gate, up and down by three, their biases by two, reduce and expand by three.
constexpr uint32_t kExpertValues = 21;
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
    for (size_t at = 0; (at = message.find(c, at)) != std::string::npos;)
      message.replace(at, std::strlen(c), js);
  }
  std::snprintf(error->message, sizeof(error->message), "%s", message.c_str());
}

// The columns of what an expert takes.
int64_t hidden_of(const bl_moe_expert& expert) {
  return expert.reduce.data == nullptr ? expert.up.cols : expert.reduce.cols;
}

bool read_expert(napi_env env, const napi_value* values, bl_moe_expert* expert, bl_error* error) {
  Arguments arguments(env, "moe_forward", values, kExpertValues, error);
  *expert = {};
  const auto optional_weights = [&](const char* name, napi_value first, bl_weights* weights) {
    if (is_given(env, first)) return arguments.weights(name, weights);
    arguments.skip(3);
    return true;
  };
  return optional_weights("gate", values[0], &expert->gate) && arguments.weights("up", &expert->up) &&
         arguments.weights("down", &expert->down) &&
         arguments.optional_tensor("gate_bias", &expert->gate_bias) &&
         arguments.optional_tensor("up_bias", &expert->up_bias) &&
         arguments.optional_tensor("down_bias", &expert->down_bias) &&
         optional_weights("reduce", values[15], &expert->reduce) &&
         optional_weights("expand", values[18], &expert->expand);
}

void hold(napi_env env, napi_value value, std::vector<BackingStore>* memory) {
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  if (!view_of(env, value, &data, &bytes, &buffer) || bytes == 0) return;
  BackingStore store = hold_memory(env, buffer);
  // Parts of one file lie in one buffer: comparing with the last keeps the list short.
  if (store != nullptr && (memory->empty() || memory->back() != store)) memory->push_back(std::move(store));
}

// Expert `number` of the table from values [at, at + kExpertValues) of the list. `hidden`: what it must take;
// -1: anything.
bool read_row(napi_env env, napi_value list, uint32_t at, uint32_t number, int64_t hidden, ExpertTable* table,
              bl_error* error) {
  napi_handle_scope scope = nullptr;
  napi_open_handle_scope(env, &scope);
  napi_value values[kExpertValues];
  for (uint32_t j = 0; j < kExpertValues; ++j) napi_get_element(env, list, at + j, &values[j]);
  bl_moe_expert expert;
  std::vector<BackingStore> memory;
  const bool ok =
      read_expert(env, values, &expert, error) &&
      bl_moe_check_expert(&expert, number, hidden < 0 ? hidden_of(expert) : hidden, error) == BL_STATUS_ok;
  for (uint32_t j = 0; ok && j < kExpertValues; ++j) hold(env, values[j], &memory);
  if (ok) {
    table->experts[number] = expert;
    table->memory[number] = std::move(memory);
  }
  napi_close_handle_scope(env, scope);
  return ok;
}

// The number of experts that the list has values for; false if it is no such list.
bool list_length(napi_env env, napi_value list, uint32_t* count) {
  uint32_t length = 0;
  if (napi_get_array_length(env, list, &length) != napi_ok || length % kExpertValues != 0) return false;
  *count = length / kExpertValues;
  return *count <= kMostExperts;
}

Napi::Value bad_values(Napi::Env env, const char* function, const char* problem) {
  bl_error error{};
  fail(&error, BL_STATUS_invalid_argument, "%s: %s", function, problem);
  throw_error(env, error);
  return env.Undefined();
}

Napi::Value throw_named(Napi::Env env, bl_error* error) {
  name_expert(error);
  throw_error(env, *error);
  return env.Undefined();
}

// createExperts(values): kExpertValues values for each expert.
Napi::Value create_experts(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  uint32_t count = 0;
  if (info.Length() != 1 || !list_length(env, info[0], &count)) {
    return bad_values(env, "createExperts", "values is not an array of 21 for each expert");
  }
  auto object = std::make_unique<ExpertsObject>();
  object->table = std::make_shared<ExpertTable>();
  ExpertTable& table = *object->table;
  table.experts.resize(count);
  table.memory.resize(count);
  bl_error error{};
  for (uint32_t i = 0; i < count; ++i) {
    const int64_t hidden = i == 0 ? -1 : hidden_of(table.experts[0]);
    if (!read_row(env, info[0], i * kExpertValues, i, hidden, &table, &error))
      return throw_named(env, &error);
  }
  Napi::Value value = wrap(env, std::move(object));
  // The buffer objects too: the memory of shared ones lives as long as they do.
  value.As<Napi::Object>().Set("values", info[0]);
  return value;
}

// replaceExperts(experts, numbers, values): experts of which numbers[i] has its part of `values`, as many for
// each of all experts; the others are the same and are not read again. Calls that use the old ones go on with
// them.
Napi::Value replace_experts(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  const ExpertsObject* old = info.Length() == 3 ? unwrap<ExpertsObject>(env, info[0]) : nullptr;
  uint32_t count = 0;
  if (old == nullptr || old->table == nullptr || !info[1].IsTypedArray() ||
      info[1].As<Napi::TypedArray>().TypedArrayType() != napi_int32_array ||
      !list_length(env, info[2], &count) || count != old->table->experts.size()) {
    return bad_values(env, "replaceExperts", "expected experts, their numbers and 21 values for each");
  }
  const Napi::Int32Array numbers = info[1].As<Napi::Int32Array>();
  auto object = std::make_unique<ExpertsObject>();
  object->table = std::make_shared<ExpertTable>();
  ExpertTable& table = *object->table;
  // Assigned, not copied whole: the copy of a vector wants a newer libstdc++.
  table.experts.resize(count);
  table.memory.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    table.experts[i] = old->table->experts[i];
    for (const BackingStore& store : old->table->memory[i]) table.memory[i].push_back(store);
  }
  bl_error error{};
  for (size_t i = 0; i < numbers.ElementLength(); ++i) {
    if (numbers[i] < 0 || static_cast<uint32_t>(numbers[i]) >= count) {
      return bad_values(env, "replaceExperts", "numbers has one that is no expert's");
    }
    const uint32_t number = static_cast<uint32_t>(numbers[i]);
    if (!read_row(env, info[2], number * kExpertValues, number, hidden_of(table.experts[0]), &table,
                  &error)) {
      return throw_named(env, &error);
    }
  }
  Napi::Value value = wrap(env, std::move(object));
  value.As<Napi::Object>().Set("values", info[2]);
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
  exports["replaceExperts"] = Napi::Function::New<replace_experts>(env, "replaceExperts");
  exports["freeExperts"] = Napi::Function::New<free_experts>(env, "freeExperts");
}

}  // namespace bitloom::node
