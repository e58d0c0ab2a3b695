// Operators on a worker thread: native.runAsync(calls, state) runs a list of calls, or one that was recorded,
// one after the other and gives a promise. One hop for a whole list, so that a decoder step of 300 operators
// costs one.
#include <atomic>
#include <memory>

#include "../base/error.h"
#include "call_list.h"

namespace bitloom::node {

namespace {

struct Job {
  std::shared_ptr<const CallList> list;
  std::atomic<int32_t>* state = nullptr;  // non-zero: abort; in a SharedArrayBuffer, or null
  bl_error error{};
  napi_async_work work = nullptr;
  napi_deferred deferred = nullptr;
  napi_ref arguments = nullptr;  // holds the JavaScript objects: [calls, state]
};

void execute(napi_env, void* data) {
  Job* job = static_cast<Job*>(data);
  run_call_list(*job->list, job->state, &job->error);
}

// How the last call of the list ran that is on a device, or null.
const bl_run* device_run(const CallList& list) {
  for (size_t i = list.calls.size(); i-- > 0;) {
    // Every argument struct begins with its size and how to run.
    const bl_run& run = list.calls[i].args.silu.run;
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
  const bl_run* run = job->error.status == BL_STATUS_ok ? device_run(*job->list) : nullptr;
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

}  // namespace

napi_value run_async(napi_env env, napi_callback_info info) {
  napi_value arguments[2];
  size_t count = 2;
  napi_get_cb_info(env, info, &count, arguments, nullptr, nullptr);
  napi_value promise = nullptr;
  auto job = std::make_unique<Job>();
  napi_create_promise(env, &job->deferred, &promise);
  bl_error error{};
  job->list = recorded_calls_of(env, arguments[0]);
  if (job->list == nullptr) job->list = read_call_list(env, arguments[0], &error);
  const bool ok = job->list != nullptr;
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
