// One operator call, ready to run: its arguments read and its entry point known.
#pragma once

#include <node_api.h>

#include "../include/bitloom_attention.h"
#include "../include/bitloom_block_sparse.h"
#include "../include/bitloom_moe.h"
#include "arguments.h"

namespace bitloom::node {

union AnyArgs {
#define BL_OP(name, js_name) bl_##name##_args name;
#include "../ops/ops.inc"
#undef BL_OP
};

struct Operator {
  const char* name;     // "rms_norm", for messages of the C ABI
  const char* js_name;  // "rmsNorm"
  bool (*read)(Arguments& arguments, AnyArgs* args);
  bl_status (*run)(const AnyArgs& args, bl_error* error);
};

extern const Operator kOperators[];
extern const int32_t kOperatorCount;

// Fills *args from JavaScript values; defined per operator in native/node/ops/<family>/<op>.cc.
#define BL_OP(name, js_name) bool read_##name(Arguments& arguments, bl_##name##_args* args);
#include "../ops/ops.inc"
#undef BL_OP

// JavaScript values of a call at most: attention with every option has 93.
constexpr uint32_t kMaxValues = 96;

struct Call {
  const Operator* op = nullptr;
  AnyArgs args;
};

// Reads values[0, count) for operator number `op`; false with *error set if they do not fit.
bool read_call(napi_env env, int32_t op, const napi_value* values, size_t count, Call* call, bl_error* error);

// Runs it, and reports a mapped file that changed under it.
bl_status run_call(const Call& call, bl_error* error);

// Throws the JavaScript error that `error` stands for; make_error only makes it.
void throw_error(napi_env env, const bl_error& error);
napi_value make_error(napi_env env, const bl_error& error);

// native.runAsync(calls, state): a promise of undefined; see async.cc.
napi_value run_async(napi_env env, napi_callback_info info);

}  // namespace bitloom::node
