#include "call.h"

#include <cstdio>
#include <cstring>

#include "../base/error.h"
#include "argument_names.h"

namespace bitloom::node {

const Operator kOperators[] = {
#define BL_OP(name, js_name)                                                       \
  {#name, #js_name,                                                                \
   [](Arguments& arguments, AnyArgs* args) {                                       \
     args->name = bl_##name##_args{};                                              \
     args->name.size = sizeof(args->name);                                         \
     return read_##name(arguments, &args->name) && arguments.run(&args->name.run); \
   },                                                                              \
   [](const AnyArgs& args, bl_error* error) { return bl_##name(&args.name, error); }},
#include "../ops/ops.inc"
#undef BL_OP
};
const int32_t kOperatorCount = sizeof(kOperators) / sizeof(kOperators[0]);

bool read_call(napi_env env, int32_t op, const napi_value* values, size_t count, Call* call,
               bl_error* error) {
  if (op < 0 || op >= kOperatorCount) {
    fail(error, BL_STATUS_invalid_argument, "call: operator is %d, expected 0 to %d", op, kOperatorCount - 1);
    return false;
  }
  call->op = &kOperators[op];
  Arguments arguments(env, call->op->name, values, count, error);
  if (call->op->read(arguments, &call->args)) return true;
  name_arguments(*call, error);
  return false;
}

bl_status run_call(const Call& call, bl_error* error) {
  const uint64_t faults = bl_mapped_file_faults();
  const bl_status status = call.op->run(call.args, error);
  if (bl_mapped_file_faults() == faults) {
    if (status != BL_STATUS_ok) name_arguments(call, error);
    return status;
  }
  return fail(error, BL_STATUS_file_changed,
              "%s: a mapped file shrank while it was read; the result is not valid", call.op->js_name);
}

namespace {

napi_status create_Error(napi_env env, napi_value code, napi_value message, napi_value* out) {
  return napi_create_error(env, code, message, out);
}
napi_status create_TypeError(napi_env env, napi_value code, napi_value message, napi_value* out) {
  return napi_create_type_error(env, code, message, out);
}
napi_status create_RangeError(napi_env env, napi_value code, napi_value message, napi_value* out) {
  return napi_create_range_error(env, code, message, out);
}

}  // namespace

napi_value make_error(napi_env env, const bl_error& error) {
  napi_status (*create)(napi_env, napi_value, napi_value, napi_value*) = create_Error;
  const char* name = "internal";
  switch (error.status) {
#define BL_STATUS(status, value, js_class) \
  case value:                              \
    create = create_##js_class;            \
    name = #status;                        \
    break;
#include "../base/status.inc"
#undef BL_STATUS
  }
  char code[64];
  std::snprintf(code, sizeof(code), "BL_%s", name);
  for (char* c = code; *c != 0; ++c) {
    if (*c >= 'a' && *c <= 'z') *c = static_cast<char>(*c - 'a' + 'A');
  }
  napi_value code_value = nullptr;
  napi_value message = nullptr;
  napi_value result = nullptr;
  napi_create_string_utf8(env, code, NAPI_AUTO_LENGTH, &code_value);
  napi_create_string_utf8(env, error.message, NAPI_AUTO_LENGTH, &message);
  create(env, code_value, message, &result);
  return result;
}

void throw_error(napi_env env, const bl_error& error) { napi_throw(env, make_error(env, error)); }

}  // namespace bitloom::node
