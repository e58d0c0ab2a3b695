// The addon's exports. Operators by name (sync), runAsync for lists of them, and what describes the
// library: lists, settings, file mappings. No arithmetic here: everything is a call of the C ABI.
#include <napi.h>

#include <string>

#include "../base/error.h"
#include "call.h"
#include "call_list.h"
#include "device.h"
#include "experts.h"
#include "files.h"

namespace bitloom::node {

namespace {

Napi::Value throw_status(Napi::Env env, const bl_error& error) {
  throw_error(env, error);
  return env.Undefined();
}

// One function serves all operators: its data is the operator's number.
napi_value run_sync(napi_env env, napi_callback_info info) {
  napi_value values[kMaxValues];
  size_t count = kMaxValues;
  void* data = nullptr;
  napi_get_cb_info(env, info, &count, values, nullptr, &data);
  Call call;
  bl_error error{};
  if (!read_call(env, static_cast<int32_t>(reinterpret_cast<intptr_t>(data)), values,
                 count < kMaxValues ? count : kMaxValues, &call, &error) ||
      run_call(call, &error) != BL_STATUS_ok) {
    throw_error(env, error);
  }
  return nullptr;
}

Napi::Array describe_formats(Napi::Env env) {
  Napi::Array list = Napi::Array::New(env);
  for (int32_t i = 0; i < BL_FORMAT_count; ++i) {
    const bl_format_info& info = *bl_get_format_info(i);
    Napi::Object row = Napi::Object::New(env);
    static const char* const kinds[] = {"block",    "unsigned", "signed",    "ternary",    "nf4",  "fp4",
                                        "codebook", "bfp",      "e2m1",      "e2m3",       "e3m2", "e4m3",
                                        "e5m2",     "mxint8",   "codebooks", "rowCodebook"};
    row["name"] = info.name;
    row["kind"] = kinds[info.kind];
    row["bits"] = info.bits;
    row["groupSize"] = info.group_size;
    row["scaleDtype"] = info.scale_dtype;
    row["hasZeroPoint"] = info.has_zero_point != 0;
    row["ggufType"] = info.gguf_type;
    row["blockElements"] = info.block_elements;
    row["blockBytes"] = info.block_bytes;
    list[static_cast<uint32_t>(i)] = row;
  }
  return list;
}

// Every list of the C ABI as JavaScript data, for native/generate.mjs.
Napi::Value describe(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  Napi::Object lists = Napi::Object::New(env);
  Napi::Array statuses = Napi::Array::New(env);
#define BL_STATUS(name, value, js_class)          \
  {                                               \
    Napi::Object row = Napi::Object::New(env);    \
    row["name"] = #name;                          \
    row["jsClass"] = #js_class;                   \
    statuses[static_cast<uint32_t>(value)] = row; \
  }
#include "../base/status.inc"
#undef BL_STATUS
  Napi::Array dtypes = Napi::Array::New(env);
#define BL_DTYPE(name, value, bytes_each, typed_array) \
  {                                                    \
    Napi::Object row = Napi::Object::New(env);         \
    row["name"] = #name;                               \
    row["bytes"] = bytes_each;                         \
    row["typedArray"] = #typed_array;                  \
    dtypes[static_cast<uint32_t>(value)] = row;        \
  }
#include "../base/dtypes.inc"
#undef BL_DTYPE
  Napi::Array isas = Napi::Array::New(env);
#define BL_ISA(name, value) isas[static_cast<uint32_t>(value)] = Napi::String::New(env, #name);
#include "../isa/isa.inc"
#undef BL_ISA
  Napi::Array ops = Napi::Array::New(env);
  for (int32_t i = 0; i < kOperatorCount; ++i) {
    ops[static_cast<uint32_t>(i)] = Napi::String::New(env, kOperators[i].js_name);
  }
  lists["statuses"] = statuses;
  lists["dtypes"] = dtypes;
  lists["isas"] = isas;
  lists["ops"] = ops;
  Napi::Array kv_formats = Napi::Array::New(env);
#define BL_KV_FORMAT(format, element_bits, element_scale)           \
  {                                                                 \
    Napi::Object row = Napi::Object::New(env);                      \
    row["name"] = #format;                                          \
    row["bits"] = element_bits;                                     \
    row["scale"] = #element_scale;                                  \
    kv_formats[static_cast<uint32_t>(BL_KV_FORMAT_##format)] = row; \
  }
#include "../formats/kv_formats.inc"
#undef BL_KV_FORMAT
  lists["formats"] = describe_formats(env);
  lists["kvFormats"] = kv_formats;
  return lists;
}

Napi::Value machine(const Napi::CallbackInfo& info) {
  Napi::Object result = Napi::Object::New(info.Env());
  result["version"] = bl_version();
  result["isaAvailable"] = bl_isa_available();
  Napi::Array supported = Napi::Array::New(info.Env());
  for (int32_t isa = 0; bl_isa_name(isa) != nullptr; ++isa) {
    if (bl_isa_supported(isa) != 0) supported[supported.Length()] = isa;
  }
  result["isasSupported"] = supported;
  result["isaActive"] = bl_isa_active();
  result["threads"] = bl_threads();
  return result;
}

Napi::Value set_number(const Napi::CallbackInfo& info, bl_status (*set)(int32_t, bl_error*)) {
  bl_error error{};
  const int32_t value =
      info.Length() == 1 && info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : -2;
  if (set(value, &error) != BL_STATUS_ok) return throw_status(info.Env(), error);
  return info.Env().Undefined();
}

Napi::Value set_isa(const Napi::CallbackInfo& info) { return set_number(info, bl_set_isa); }
Napi::Value set_threads(const Napi::CallbackInfo& info) { return set_number(info, bl_set_threads); }

// weightsBytes(format, layout, rows, cols): 0 if they do not fit each other.
Napi::Value weights_bytes(const Napi::CallbackInfo& info) {
  uint64_t bytes = 0;
  if (info.Length() == 4 && info[0].IsNumber() && info[1].IsNumber() && info[2].IsNumber() &&
      info[3].IsNumber()) {
    bytes = bl_layout_bytes(info[0].As<Napi::Number>().Int32Value(), info[1].As<Napi::Number>().Int32Value(),
                            info[2].As<Napi::Number>().Int64Value(), info[3].As<Napi::Number>().Int64Value());
  }
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

// kvPageBytes(format, isValues, pageSize, dim): 0 if there is no such page.
Napi::Value kv_page_bytes(const Napi::CallbackInfo& info) {
  uint64_t bytes = 0;
  if (info.Length() == 4 && info[0].IsNumber() && info[1].IsNumber() && info[2].IsNumber() &&
      info[3].IsNumber()) {
    bytes =
        bl_kv_page_bytes(info[0].As<Napi::Number>().Int32Value(), info[1].As<Napi::Number>().Int32Value(),
                         info[2].As<Napi::Number>().Int32Value(), info[3].As<Napi::Number>().Int32Value());
  }
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

// The arguments of an operator; false if they can not be read.
template <typename Args>
bool read_call(napi_env env, napi_callback_info info, const char* op, bool (*read)(Arguments&, Args*),
               Args* args) {
  napi_value values[kMaxValues];
  size_t count = kMaxValues;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  *args = {};
  args->size = sizeof(*args);
  Arguments arguments(env, op, values, count < kMaxValues ? count : kMaxValues, nullptr);
  return read(arguments, args) && arguments.run(&args->run);
}

bool read_matmul_call(napi_env env, napi_callback_info info, bl_matmul_args* args) {
  return read_call(env, info, "matmul", read_matmul, args);
}

// undefined for 0: the operator would refuse.
napi_value workspace_bytes(napi_env env, uint64_t bytes) {
  napi_value result = nullptr;
  if (bytes != 0) napi_create_double(env, static_cast<double>(bytes), &result);
  return result;
}

// matmulWorkspaceBytes(...as matmul)
napi_value matmul_workspace_bytes(napi_env env, napi_callback_info info) {
  bl_matmul_args args;
  return workspace_bytes(env, read_matmul_call(env, info, &args) ? bl_matmul_workspace_bytes(&args) : 0);
}

// moeForwardWorkspaceBytes(...as moeForward)
napi_value moe_forward_workspace_bytes(napi_env env, napi_callback_info info) {
  bl_moe_forward_args args;
  const bool is_read = read_call(env, info, "moe_forward", read_moe_forward, &args);
  return workspace_bytes(env, is_read ? bl_moe_forward_workspace_bytes(&args) : 0);
}

// matmulKernel(...as matmul): the name of the kernel that would run, undefined if matmul would refuse.
napi_value matmul_kernel(napi_env env, napi_callback_info info) {
  bl_matmul_args args;
  const char* name = read_matmul_call(env, info, &args) ? bl_matmul_kernel(&args) : nullptr;
  napi_value result = nullptr;
  if (name != nullptr) napi_create_string_utf8(env, name, NAPI_AUTO_LENGTH, &result);
  return result;
}

// matmulTables(b, m, algorithm, tables, run): the tables that matmul would look up.
napi_value matmul_tables(napi_env env, napi_callback_info info) {
  napi_value values[32];
  size_t count = 32;
  napi_get_cb_info(env, info, &count, values, nullptr, nullptr);
  Arguments arguments(env, "matmul", values, count < 32 ? count : 32, nullptr);
  bl_weights b{};
  int32_t m = 0, algorithm = 0, mode = 0, tables = 0;
  bl_run run{};
  if (arguments.weights("b", &b) && arguments.integer("m", &m) &&
      arguments.integer("algorithm", &algorithm) && arguments.integer("tables", &mode) &&
      arguments.run(&run)) {
    tables = bl_matmul_tables(&b, m, algorithm, mode, &run);
  }
  napi_value result = nullptr;
  napi_create_int32(env, tables, &result);
  return result;
}

// preparedBytes(m, k, tables): bl_prepare_activations_bytes.
Napi::Value prepared_bytes(const Napi::CallbackInfo& info) {
  uint64_t bytes = 0;
  if (info.Length() == 3 && info[0].IsNumber() && info[1].IsNumber() && info[2].IsNumber()) {
    bytes = bl_prepare_activations_bytes(info[0].As<Napi::Number>().Int64Value(),
                                         info[1].As<Napi::Number>().Int64Value(),
                                         info[2].As<Napi::Number>().Int32Value());
  }
  return Napi::Number::New(info.Env(), static_cast<double>(bytes));
}

// matmulTuning(isa): lut rows, then tile rows, by width of codes.
Napi::Value matmul_tuning(const Napi::CallbackInfo& info) {
  bl_matmul_tuning tuning{};
  tuning.size = sizeof(tuning);
  bl_error error{};
  const int32_t isa = info.Length() == 1 && info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : -2;
  if (bl_get_matmul_tuning(isa, &tuning, &error) != BL_STATUS_ok) return throw_status(info.Env(), error);
  Napi::Int32Array values = Napi::Int32Array::New(info.Env(), 2 * BL_MATMUL_TUNING_WIDTHS);
  for (size_t i = 0; i < BL_MATMUL_TUNING_WIDTHS; ++i) {
    values[i] = tuning.lut_rows[i];
    values[BL_MATMUL_TUNING_WIDTHS + i] = tuning.tile_rows[i];
  }
  return values;
}

// setMatmulTuning(isa, values as matmulTuning gives them | undefined)
Napi::Value set_matmul_tuning(const Napi::CallbackInfo& info) {
  bl_matmul_tuning tuning{};
  bl_error error{};
  const int32_t isa = info.Length() >= 1 && info[0].IsNumber() ? info[0].As<Napi::Number>().Int32Value() : -2;
  const bool reset = info.Length() == 2 && info[1].IsUndefined();
  if (!reset && info.Length() == 2 && info[1].IsTypedArray() &&
      info[1].As<Napi::TypedArray>().TypedArrayType() == napi_int32_array) {
    const Napi::Int32Array values = info[1].As<Napi::Int32Array>();
    if (values.ElementLength() == 2 * BL_MATMUL_TUNING_WIDTHS) {
      tuning.size = sizeof(tuning);
      for (size_t i = 0; i < BL_MATMUL_TUNING_WIDTHS; ++i) {
        tuning.lut_rows[i] = values[i];
        tuning.tile_rows[i] = values[BL_MATMUL_TUNING_WIDTHS + i];
      }
    }
  }
  if (bl_set_matmul_tuning(isa, reset ? nullptr : &tuning, &error) != BL_STATUS_ok) {
    return throw_status(info.Env(), error);
  }
  return info.Env().Undefined();
}

// addressInPage(uint8Array): its address modulo 4096.
Napi::Value address_in_page(const Napi::CallbackInfo& info) {
  if (info.Length() != 1 || !info[0].IsTypedArray()) return info.Env().Undefined();
  const uintptr_t address = reinterpret_cast<uintptr_t>(info[0].As<Napi::Uint8Array>().Data());
  return Napi::Number::New(info.Env(), static_cast<double>(address % 4096));
}

// detach(arrayBuffer): frees its memory now instead of at the next garbage collection.
Napi::Value detach(const Napi::CallbackInfo& info) {
  if (info.Length() == 1 && info[0].IsArrayBuffer()) info[0].As<Napi::ArrayBuffer>().Detach();
  return info.Env().Undefined();
}

Napi::Object init(Napi::Env env, Napi::Object exports) {
  for (int32_t i = 0; i < kOperatorCount; ++i) {
    napi_value function = nullptr;
    napi_create_function(env, kOperators[i].js_name, NAPI_AUTO_LENGTH, run_sync,
                         reinterpret_cast<void*>(static_cast<intptr_t>(i)), &function);
    exports[kOperators[i].js_name] = Napi::Value(env, function);
  }
  napi_value function = nullptr;
  napi_create_function(env, "runAsync", NAPI_AUTO_LENGTH, run_async, nullptr, &function);
  exports["runAsync"] = Napi::Value(env, function);
  napi_create_function(env, "matmulKernel", NAPI_AUTO_LENGTH, matmul_kernel, nullptr, &function);
  exports["matmulKernel"] = Napi::Value(env, function);
  napi_create_function(env, "matmulWorkspaceBytes", NAPI_AUTO_LENGTH, matmul_workspace_bytes, nullptr,
                       &function);
  exports["matmulWorkspaceBytes"] = Napi::Value(env, function);
  napi_create_function(env, "moeForwardWorkspaceBytes", NAPI_AUTO_LENGTH, moe_forward_workspace_bytes,
                       nullptr, &function);
  exports["moeForwardWorkspaceBytes"] = Napi::Value(env, function);
  napi_create_function(env, "matmulTables", NAPI_AUTO_LENGTH, matmul_tables, nullptr, &function);
  exports["matmulTables"] = Napi::Value(env, function);
  exports["preparedBytes"] = Napi::Function::New<prepared_bytes>(env, "preparedBytes");
  exports["describe"] = Napi::Function::New<describe>(env, "describe");
  exports["machine"] = Napi::Function::New<machine>(env, "machine");
  exports["setIsa"] = Napi::Function::New<set_isa>(env, "setIsa");
  exports["setThreads"] = Napi::Function::New<set_threads>(env, "setThreads");
  exports["weightsBytes"] = Napi::Function::New<weights_bytes>(env, "weightsBytes");
  exports["kvPageBytes"] = Napi::Function::New<kv_page_bytes>(env, "kvPageBytes");
  exports["matmulTuning"] = Napi::Function::New<matmul_tuning>(env, "matmulTuning");
  exports["setMatmulTuning"] = Napi::Function::New<set_matmul_tuning>(env, "setMatmulTuning");
  exports["addressInPage"] = Napi::Function::New<address_in_page>(env, "addressInPage");
  exports["detach"] = Napi::Function::New<detach>(env, "detach");
  init_devices(env, exports);
  init_experts(env, exports);
  init_recorded_calls(env, exports);
  exports["mapFile"] = Napi::Function::New<map_file>(env, "mapFile");
  return exports;
}

}  // namespace

}  // namespace bitloom::node

static Napi::Object bitloom_init(Napi::Env env, Napi::Object exports) {
  return bitloom::node::init(env, exports);
}
NODE_API_MODULE(bitloom, bitloom_init)
