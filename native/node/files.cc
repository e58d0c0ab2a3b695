#include "files.h"

#include <atomic>
#include <cstring>
#include <string>

#include "../base/error.h"
#include "call.h"

namespace bitloom::node {

namespace {

// Counted by its handle and by each ArrayBuffer over it. Finalizers may run on another thread than the
// one that made the view (a transferred buffer), hence the atomic.
struct SharedFile {
  bl_file* file;
  std::atomic<int32_t> users{1};

  void release() {
    if (users.fetch_sub(1, std::memory_order_acq_rel) != 1) return;
    bl_file_close(file);
    delete this;
  }
};

// What the functions view and close share; freed with the later of the two, whoever holds on to them.
struct Handle {
  SharedFile* file;  // null once closed
  int64_t reported;  // bytes told to V8
  int functions = 0;
};

Handle* handle_of(const Napi::CallbackInfo& info) { return static_cast<Handle*>(info.Data()); }

void close_handle(Napi::Env env, Handle* handle) {
  if (handle->file == nullptr) return;
  Napi::MemoryManagement::AdjustExternalMemory(env, -handle->reported);
  handle->file->release();
  handle->file = nullptr;
}

Napi::Value close(const Napi::CallbackInfo& info) {
  close_handle(info.Env(), handle_of(info));
  return info.Env().Undefined();
}

Napi::Value view(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  SharedFile* file = handle_of(info)->file;
  bl_error error{};
  if (file == nullptr) {
    fail(&error, BL_STATUS_detached, "mapFile: the file is closed");
    throw_error(env, error);
    return env.Undefined();
  }
  const double size = static_cast<double>(bl_file_bytes(file->file));
  const double offset =
      info.Length() > 0 && info[0].IsNumber() ? info[0].As<Napi::Number>().DoubleValue() : -1;
  const double length =
      info.Length() > 1 && info[1].IsNumber() ? info[1].As<Napi::Number>().DoubleValue() : -1;
  if (!(offset >= 0 && length >= 0 && offset <= size && length <= size - offset)) {
    fail(&error, BL_STATUS_out_of_range, "mapFile: bytes [%.0f, %.0f) are not within the file of %.0f bytes",
         offset, offset + length, size);
    throw_error(env, error);
    return env.Undefined();
  }
  if (length == 0) return Napi::ArrayBuffer::New(env, 0);
  file->users.fetch_add(1, std::memory_order_relaxed);
  napi_value buffer = nullptr;
  uint8_t* data = static_cast<uint8_t*>(bl_file_data(file->file)) + static_cast<uint64_t>(offset);
  const napi_status status = napi_create_external_arraybuffer(
      env, data, static_cast<size_t>(length),
      [](napi_env, void*, void* hint) { static_cast<SharedFile*>(hint)->release(); }, file, &buffer);
  if (status != napi_ok) {
    file->release();
    fail(&error, BL_STATUS_out_of_memory, "mapFile: no ArrayBuffer over %.0f bytes", length);
    throw_error(env, error);
    return env.Undefined();
  }
  return Napi::Value(env, buffer);
}

Napi::Function method(Napi::Env env, Napi::Value (*callback)(const Napi::CallbackInfo&), const char* name,
                      Handle* handle) {
  Napi::Function function = Napi::Function::New(env, callback, name, handle);
  ++handle->functions;
  function.AddFinalizer(
      [](Napi::Env finalizer_env, Handle* finished) {
        if (--finished->functions > 0) return;
        close_handle(finalizer_env, finished);
        delete finished;
      },
      handle);
  return function;
}

}  // namespace

Napi::Value map_file(const Napi::CallbackInfo& info) {
  const Napi::Env env = info.Env();
  bl_error error{};
  bl_file* opened = nullptr;
  const std::string path =
      info.Length() == 1 && info[0].IsString() ? info[0].As<Napi::String>().Utf8Value() : "";
  if (path.empty() || path.find('\0') != std::string::npos) {
    fail(&error, BL_STATUS_invalid_argument, "mapFile: path is not a non-empty string without NUL");
  } else {
    bl_file_open(path.c_str(), &opened, &error);
  }
  if (opened == nullptr) {
    throw_error(env, error);
    return env.Undefined();
  }
  const int64_t bytes = static_cast<int64_t>(bl_file_bytes(opened));
  Handle* handle = new Handle{new SharedFile{opened}, bytes};
  Napi::MemoryManagement::AdjustExternalMemory(env, bytes);
  Napi::Object result = Napi::Object::New(env);
  result["size"] = Napi::Number::New(env, static_cast<double>(bytes));
  result["view"] = method(env, view, "view", handle);
  result["close"] = method(env, close, "close", handle);
  result.Freeze();
  return result;
}

}  // namespace bitloom::node
