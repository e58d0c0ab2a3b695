// Streams, events and graphs, and promises that a stream settles.
#include <mutex>

#include "device_objects.h"

namespace bitloom::node {

namespace {

Napi::Value stream_create(const Napi::CallbackInfo& info) {
  Values values(info, "streamCreate");
  const int32_t device = values.index();
  bl_stream* handle = nullptr;
  const bl_status status = values.ok() ? bl_stream_create(device, &handle, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return wrap(info.Env(), std::unique_ptr<DeviceStream>(new DeviceStream{device, handle}));
}

// streamSynchronize(device, stream | undefined)
Napi::Value stream_synchronize(const Napi::CallbackInfo& info) {
  Values values(info, "streamSynchronize");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  return values.finish(values.ok() ? bl_stream_synchronize(device, stream, values.error()) : BL_STATUS_ok);
}

// streamDone(device, stream | undefined): a promise.
Napi::Value stream_done(const Napi::CallbackInfo& info) {
  Napi::Env env = info.Env();
  napi_deferred deferred = nullptr;
  napi_value promise = nullptr;
  napi_create_promise(env, &deferred, &promise);
  Values values(info, "streamDone");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  if (!values.ok()) return {env, rejected(env, deferred, promise, *values.error())};
  settle_after(env, device, stream, deferred, info[1]);
  return {env, promise};
}

// streamWait(device, stream | undefined, other | undefined)
Napi::Value stream_wait(const Napi::CallbackInfo& info) {
  Values values(info, "streamWait");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  bl_stream* other = values.optional_stream();
  return values.finish(values.ok() ? bl_stream_wait(device, stream, other, values.error()) : BL_STATUS_ok);
}

// eventRecord(device, stream | undefined)
Napi::Value event_record(const Napi::CallbackInfo& info) {
  Values values(info, "eventRecord");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  bl_event* handle = nullptr;
  const bl_status status =
      values.ok() ? bl_event_record(device, stream, &handle, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return wrap(info.Env(), std::unique_ptr<DeviceEvent>(new DeviceEvent{handle}));
}

// eventElapsed(begin, end): milliseconds.
Napi::Value event_elapsed(const Napi::CallbackInfo& info) {
  Values values(info, "eventElapsed");
  const DeviceEvent* begin = values.object<DeviceEvent>();
  const DeviceEvent* end = values.object<DeviceEvent>();
  float milliseconds = 0;
  const bl_status status = values.ok()
                               ? bl_event_elapsed(begin->handle, end->handle, &milliseconds, values.error())
                               : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return Napi::Number::New(info.Env(), milliseconds);
}

// graphBegin(device, stream | undefined)
Napi::Value graph_begin(const Napi::CallbackInfo& info) {
  Values values(info, "graphBegin");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  return values.finish(values.ok() ? bl_graph_begin(device, stream, values.error()) : BL_STATUS_ok);
}

// graphEnd(device, stream | undefined)
Napi::Value graph_end(const Napi::CallbackInfo& info) {
  Values values(info, "graphEnd");
  const int32_t device = values.index();
  bl_stream* stream = values.optional_stream();
  bl_graph* handle = nullptr;
  const bl_status status = values.ok() ? bl_graph_end(device, stream, &handle, values.error()) : BL_STATUS_ok;
  if (status != BL_STATUS_ok || !values.ok()) return values.finish(status);
  return wrap(info.Env(), std::unique_ptr<DeviceGraph>(new DeviceGraph{handle}));
}

// graphLaunch(graph, stream | undefined)
Napi::Value graph_launch(const Napi::CallbackInfo& info) {
  Values values(info, "graphLaunch");
  const DeviceGraph* graph = values.object<DeviceGraph>();
  bl_stream* stream = values.optional_stream();
  if (!values.ok()) return values.finish();
  if (graph->handle == nullptr) {
    return values.finish(fail(values.error(), BL_STATUS_detached, "graph: launch after dispose()"));
  }
  return values.finish(bl_graph_launch(graph->handle, stream, values.error()));
}

// graphFree(graph): what is on its way still runs.
Napi::Value graph_free(const Napi::CallbackInfo& info) {
  Values values(info, "graphFree");
  DeviceGraph* graph = values.object<DeviceGraph>();
  if (values.ok()) {
    bl_graph_destroy(graph->handle);
    graph->handle = nullptr;
  }
  return values.finish();
}

// A promise that a thread of the driver settles. An environment may be torn down before: a worker that is
// terminated.
struct Settlement {
  int32_t device;
  bl_stream* stream;
  napi_deferred deferred;
  napi_ref held = nullptr;
  napi_threadsafe_function call = nullptr;
  bl_error error{};
  bool was_called = false;
  bool is_void = false;  // the environment is gone
};
std::mutex settlement_mutex;  // of the last two

// Before the environment ends, and with it `call` and what is held.
void abandon(void* data) {
  auto* it = static_cast<Settlement*>(data);
  bl_error ignored{};
  // Queued copies write to what is held.
  if (it->held != nullptr) bl_stream_synchronize(it->device, it->stream, &ignored);
  const std::lock_guard lock(settlement_mutex);
  if (!it->was_called) it->is_void = true;  // else it is in the queue of `call`, which settle() gets
}

void settle(napi_env env, napi_value, void*, void* data) {
  const std::unique_ptr<Settlement> it(static_cast<Settlement*>(data));
  if (env == nullptr) return;  // the environment is being torn down
  napi_remove_env_cleanup_hook(env, abandon, it.get());
  if (it->error.status == BL_STATUS_ok) {
    napi_value undefined = nullptr;
    napi_get_undefined(env, &undefined);
    napi_resolve_deferred(env, it->deferred, undefined);
  } else {
    napi_reject_deferred(env, it->deferred, make_error(env, it->error));
  }
  if (it->held != nullptr) napi_delete_reference(env, it->held);
}

void notify(void* context, const bl_error* error) {
  std::unique_ptr<Settlement> it(static_cast<Settlement*>(context));
  const std::lock_guard lock(settlement_mutex);
  if (it->is_void) return;
  it->error = *error;
  it->was_called = true;
  const napi_threadsafe_function call = it->call;
  if (napi_call_threadsafe_function(call, it.get(), napi_tsfn_nonblocking) == napi_ok) it.release();
  napi_release_threadsafe_function(call, napi_tsfn_release);
}

}  // namespace

DeviceStream* device_stream_of(napi_env env, napi_value value) { return unwrap<DeviceStream>(env, value); }
bl_stream* handle_of(const DeviceStream& stream) { return stream.handle; }
int32_t device_of(const DeviceStream& stream) { return stream.device; }

void settle_after(napi_env env, int32_t device, bl_stream* stream, napi_deferred deferred, napi_value held) {
  auto it = std::make_unique<Settlement>();
  it->device = device;
  it->stream = stream;
  it->deferred = deferred;
  napi_value name = nullptr;
  napi_create_string_utf8(env, "bitloom", NAPI_AUTO_LENGTH, &name);
  bl_error error{};
  bl_status status = BL_STATUS_ok;
  if (napi_create_threadsafe_function(env, nullptr, nullptr, name, 0, 1, nullptr, nullptr, nullptr, settle,
                                      &it->call) != napi_ok) {
    status = fail(&error, BL_STATUS_out_of_memory, "async: cannot make a callback");
  } else {
    napi_valuetype type = napi_undefined;
    if (held != nullptr) napi_typeof(env, held, &type);
    if (type == napi_object) napi_create_reference(env, held, 1, &it->held);
    napi_add_env_cleanup_hook(env, abandon, it.get());  // hooks run in reverse: before that of `call`
    status = bl_stream_notify(device, stream, notify, it.get(), &error);
    if (status != BL_STATUS_ok) {
      napi_remove_env_cleanup_hook(env, abandon, it.get());
      napi_release_threadsafe_function(it->call, napi_tsfn_abort);
    }
  }
  if (status == BL_STATUS_ok) {
    it.release();  // settle() or notify() deletes it
    return;
  }
  bl_error ignored{};
  bl_stream_synchronize(device, stream, &ignored);  // what is queued may still write to what is held
  if (it->held != nullptr) napi_delete_reference(env, it->held);
  napi_reject_deferred(env, deferred, make_error(env, error));
}

void init_streams(Napi::Env env, Napi::Object exports) {
#define BL_EXPORT(name, function) exports[name] = Napi::Function::New<function>(env, name);
  BL_EXPORT("streamCreate", stream_create)
  BL_EXPORT("streamSynchronize", stream_synchronize)
  BL_EXPORT("streamDone", stream_done)
  BL_EXPORT("streamWait", stream_wait)
  BL_EXPORT("eventRecord", event_record)
  BL_EXPORT("eventElapsed", event_elapsed)
  BL_EXPORT("graphBegin", graph_begin)
  BL_EXPORT("graphEnd", graph_end)
  BL_EXPORT("graphLaunch", graph_launch)
  BL_EXPORT("graphFree", graph_free)
#undef BL_EXPORT
}

}  // namespace bitloom::node
