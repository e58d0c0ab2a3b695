// Operators on a worker thread: native.runAsync(calls, state) runs a list of calls one after the other
// and gives a promise. One hop for a whole list, so that a decoder step of 300 operators costs one.
#include <atomic>
#include <memory>
#include <vector>

#include "../base/error.h"
#include "call.h"
#include "device.h"
#include "experts.h"

namespace bitloom::node {

namespace {

struct Job {
  std::vector<Call> calls;
  std::vector<BackingStore> memory;  // of every buffer the calls use, until the job is done
  std::vector<std::shared_ptr<bl_memory>> device_memory;
  std::vector<std::shared_ptr<ExpertTable>> experts;
  std::atomic<int32_t>* state = nullptr;  // non-zero: abort; in a SharedArrayBuffer, or null
  bl_error error{};
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref arguments = nullptr;  // holds the JavaScript objects: [calls, state]
};

void execute(napi_env, void* data) {
  Job* job = static_cast<Job*>(data);
  for (const Call& call : job->calls) {
    if (job->state != nullptr && job->state->load(std::memory_order_relaxed) != 0) {
      fail(&job->error, BL_STATUS_aborted, "%s: aborted", call.op->name);
      return;
    }
    if (run_call(call, &job->error) != BL_STATUS_ok) return;
  }
}

// How the last call of the job ran that is on a device, or null.
const bl_run* device_run(const Job& job) {
  for (size_t i = job.calls.size(); i-- > 0;) {
    // Every argument struct begins with its size and how to run.
    const bl_run& run = job.calls[i].args.silu.run;
    if (run.device != 0) return &run;
  }
  return nullptr;
}

void complete(napi_env env, napi_status status, void* data) {
  std::unique_ptr<Job> job(static_cast<Job*>(data));
  napi_handle_scope scope = nullptr;
  napi_open_handle_scope(env, &scope);
  if (status == napi_cancelled) fail(&job->error, BL_STATUS_aborted, "async: cancelled");
  napi_value value = nullptr;
  const bl_run* run = job->error.status == BL_STATUS_ok ? device_run(*job) : nullptr;
  if (run != nullptr) {
    // What ran so far was queueing: the promise waits for the device.
    settle_after(env, run->device - 1, run->stream, job->deferred, nullptr);
  } else if (job->error.status == BL_STATUS_ok) {
    napi_get_undefined(env, &value);
    napi_resolve_deferred(env, job->deferred, value);
  } else {
    napi_reject_deferred(env, job->deferred, make_error(env, job->error));
  }
  napi_delete_reference(env, job->arguments);
  napi_delete_async_work(env, job->work);
  napi_close_handle_scope(env, scope);
}

void hold_argument(napi_env env, napi_value value, Job* job) {
  uint8_t* data = nullptr;
  uint64_t bytes = 0;
  napi_value buffer = nullptr;
  if (!view_of(env, value, &data, &bytes, &buffer)) {
    const DeviceMemory* memory = device_memory_of(env, value);
    if (memory != nullptr) {
      job->device_memory.push_back(memory->memory);
    } else if (std::shared_ptr<ExpertTable> experts = experts_of(env, value)) {
      job->experts.push_back(std::move(experts));
    }
    return;
  }
  if (bytes == 0) return;
  BackingStore store = hold_memory(env, buffer);
  // Weights of one file follow each other: comparing with the last keeps the list short.
  if (store != nullptr && (job->memory.empty() || job->memory.back() != store)) {
    job->memory.push_back(std::move(store));
  }
}

// calls[i] = [operator number, ...values].
bool read_calls(napi_env env, napi_value calls, Job* job, bl_error* error) {
  uint32_t count = 0;
  if (napi_get_array_length(env, calls, &count) != napi_ok) {
    fail(error, BL_STATUS_invalid_argument, "runAsync: calls is not an array");
    return false;
  }
  job->calls.resize(count);
  for (uint32_t i = 0; i < count; ++i) {
    napi_handle_scope scope = nullptr;
    napi_open_handle_scope(env, &scope);
    napi_value entry = nullptr;
    napi_value values[kMaxValues + 1];
    uint32_t length = 0;
    napi_get_element(env, calls, i, &entry);
    bool ok =
        napi_get_array_length(env, entry, &length) == napi_ok && length >= 1 && length <= kMaxValues + 1;
    double op = -1;
    for (uint32_t j = 0; ok && j < length; ++j) ok = napi_get_element(env, entry, j, &values[j]) == napi_ok;
    ok = ok && napi_get_value_double(env, values[0], &op) == napi_ok && op >= 0 && op < kOperatorCount;
    if (!ok) {
      fail(error, BL_STATUS_invalid_argument, "runAsync: calls[%u] is not [operator, ...values]", i);
    } else {
      ok = read_call(env, static_cast<int32_t>(op), values + 1, length - 1, &job->calls[i], error);
      for (uint32_t j = 1; ok && j < length; ++j) hold_argument(env, values[j], job);
    }
    napi_close_handle_scope(env, scope);
    if (!ok) return false;
  }
  return true;
}

}  // namespace

napi_value run_async(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  napi_value promise = nullptr;
  auto job = std::make_unique<Job>();
  napi_create_promise(env, &job->deferred, &promise);
  bl_error error{};
  bool ok = count >= 1 && read_calls(env, arguments[0], job.get(), &error);
  if (ok && count == 2) {
    uint8_t* data = nullptr;
    uint64_t bytes = 0;
    napi_value buffer = nullptr;
    if (view_of(env, arguments[1], &data, &bytes, &buffer) && bytes >= 4) {
      job->state = reinterpret_cast<std::atomic<int32_t>*>(data);
    }
  }
  if (!ok) {
    napi_reject_deferred(env, job->deferred, make_error(env, error));
    return promise;
  }
  napi_value held = nullptr;
  napi_create_array_with_length(env, 2, &held);
  for (uint32_t i = 0; i < count; ++i) napi_set_element(env, held, i, arguments[i]);
  napi_value name = nullptr;
  napi_create_string_utf8(env, "bitloom", NAPI_AUTO_LENGTH, &name);
  if (napi_create_reference(env, held, 1, &job->arguments) != napi_ok ||
      napi_create_async_work(env, nullptr, name, execute, complete, job.get(), &job->work) != napi_ok ||
      napi_queue_async_work(env, job->work) != napi_ok) {
    fail(&error, BL_STATUS_out_of_memory, "runAsync: cannot queue the work");
    napi_reject_deferred(env, job->deferred, make_error(env, error));
    return promise;
  }
  job.release();  // complete() deletes it
  return promise;
}

}  // namespace bitloom::node
