// A list of operator calls, read from JavaScript once and run as often as wanted.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "call.h"
#include "device.h"
#include "experts.h"
#include "hold_memory.h"

namespace bitloom::node {

struct CallList {
  std::vector<Call> calls;
  std::vector<BackingStore> memory;  // of every buffer the calls use, as long as the list is there
  std::vector<std::shared_ptr<bl_memory>> device_memory;
  std::vector<std::shared_ptr<ExpertTable>> experts;
};

// From an array of [operator number, ...values]; null with *error set if they do not fit.
std::shared_ptr<const CallList> read_call_list(napi_env env, napi_value calls, bl_error* error);

// One after the other, to the first that fails; `state` (may be null): non-zero ends it before the next call.
bl_status run_call_list(const CallList& list, const std::atomic<int32_t>* state, bl_error* error);

// What native.recordCalls() made; null: it is something else.
std::shared_ptr<const CallList> recorded_calls_of(napi_env env, napi_value value);

void init_recorded_calls(Napi::Env env, Napi::Object exports);

}  // namespace bitloom::node
