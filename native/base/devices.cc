// Devices: opens the backend library beside this one and passes calls on to it.
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>

#include "backend.h"
#include "error.h"

namespace bitloom {

namespace {

struct Opened {
  const Backend* backend = nullptr;
  char reason[512] = "";

  Opened() { open(); }

 private:
  void open() {
    const char* setting = std::getenv("BITLOOM_CUDA");
    if (setting != nullptr && std::strcmp(setting, "off") == 0) return say("BITLOOM_CUDA is off");
    Dl_info here;
    if (dladdr(reinterpret_cast<void*>(&cuda_backend), &here) == 0 || here.dli_fname == nullptr) {
      return say("the path of libbitloom is not known");
    }
    std::string path = here.dli_fname;
    const size_t slash = path.rfind('/');
    path.replace(slash == std::string::npos ? 0 : slash + 1, std::string::npos, "libbitloom_cuda.so");
    void* library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (library == nullptr) return say("built without CUDA: ", dlerror());
    using Entry = const Backend* (*)();
    const auto entry = reinterpret_cast<Entry>(dlsym(library, "bl_cuda_backend"));
    if (entry == nullptr) return say("no backend of bitloom: ", path.c_str());
    const Backend* found = entry();
    if (std::strcmp(found->version, bl_version()) != 0) return say("of another version: ", path.c_str());
    if (const char* missing = found->unavailable(); missing != nullptr) return say(missing);
    backend = found;
  }

  void say(const char* what, const char* which = "") {
    std::snprintf(reason, sizeof(reason), "%s%s", what, which);
  }
};

}  // namespace

const Backend* cuda_backend(const char** reason) {
  static const Opened opened;
  *reason = opened.backend == nullptr ? opened.reason : nullptr;
  return opened.backend;
}

namespace {

bl_status find(int32_t device, const Backend** out, bl_error* error) {
  const char* reason = nullptr;
  *out = cuda_backend(&reason);
  BL_CHECK(*out != nullptr, not_found, "cuda:%d: no device: %s", device, reason);
  return BL_STATUS_ok;
}

const Backend& found() {
  const char* reason = nullptr;
  return *cuda_backend(&reason);
}

}  // namespace

}  // namespace bitloom

using namespace bitloom;

int32_t bl_device_count(void) {
  const char* reason = nullptr;
  const Backend* backend = cuda_backend(&reason);
  return backend == nullptr ? 0 : backend->device_count();
}

const char* bl_device_unavailable(void) {
  const char* reason = nullptr;
  cuda_backend(&reason);
  return reason;
}

// What has to be given is checked by the caller, everything else by the backend.
#define BL_FORWARD(call)                             \
  const Backend* backend = nullptr;                  \
  BL_RETURN_IF_ERROR(find(device, &backend, error)); \
  return backend->call

bl_status bl_get_device_info(int32_t device, bl_device_info* info, bl_error* error) {
  BL_CHECK(info != nullptr, invalid_argument, "device_info: info is null");
  BL_FORWARD(device_info(device, info, error));
}

bl_status bl_set_device_limit(int32_t device, uint64_t bytes, bl_error* error) {
  BL_FORWARD(set_limit(device, bytes, error));
}

bl_status bl_reset_device(int32_t device, bl_error* error) { BL_FORWARD(reset(device, error)); }

bl_status bl_device_allocate(int32_t device, bl_stream* stream, uint64_t bytes, bl_memory** memory,
                             bl_error* error) {
  BL_CHECK(memory != nullptr, invalid_argument, "device_allocate: memory is null");
  BL_FORWARD(allocate(device, stream, bytes, memory, error));
}

void* bl_memory_address(const bl_memory* memory) {
  return memory == nullptr ? nullptr : found().address(memory);
}

void bl_device_free(bl_memory* memory) {
  if (memory != nullptr) found().free(memory);
}

bl_status bl_stream_create(int32_t device, bl_stream** stream, bl_error* error) {
  BL_CHECK(stream != nullptr, invalid_argument, "stream_create: stream is null");
  BL_FORWARD(stream_create(device, stream, error));
}

void bl_stream_destroy(bl_stream* stream) {
  if (stream != nullptr) found().stream_destroy(stream);
}

bl_status bl_stream_synchronize(int32_t device, bl_stream* stream, bl_error* error) {
  BL_FORWARD(stream_synchronize(device, stream, error));
}

bl_status bl_stream_wait(int32_t device, bl_stream* stream, bl_stream* other, bl_error* error) {
  BL_FORWARD(stream_wait(device, stream, other, error));
}

bl_status bl_stream_notify(int32_t device, bl_stream* stream, bl_done done, void* context, bl_error* error) {
  BL_CHECK(done != nullptr, invalid_argument, "stream_notify: done is null");
  BL_FORWARD(stream_notify(device, stream, done, context, error));
}

bl_status bl_event_record(int32_t device, bl_stream* stream, bl_event** event, bl_error* error) {
  BL_CHECK(event != nullptr, invalid_argument, "event_record: event is null");
  BL_FORWARD(event_record(device, stream, event, error));
}

void bl_event_destroy(bl_event* event) {
  if (event != nullptr) found().event_destroy(event);
}

bl_status bl_event_elapsed(bl_event* begin, bl_event* end, float* milliseconds, bl_error* error) {
  BL_CHECK(begin != nullptr && end != nullptr && milliseconds != nullptr, invalid_argument,
           "event_elapsed: begin, end or milliseconds is null");
  return found().event_elapsed(begin, end, milliseconds, error);
}

bl_status bl_device_copy(int32_t device, bl_stream* stream, int32_t kind, void* output, const void* input,
                         uint64_t bytes, bl_error* error) {
  BL_CHECK(bytes == 0 || (output != nullptr && input != nullptr), invalid_argument,
           "device_copy: output or input is null");
  BL_FORWARD(copy(device, stream, kind, output, input, bytes, error));
}

bl_status bl_graph_begin(int32_t device, bl_stream* stream, bl_error* error) {
  BL_FORWARD(graph_begin(device, stream, error));
}

bl_status bl_graph_end(int32_t device, bl_stream* stream, bl_graph** graph, bl_error* error) {
  BL_CHECK(graph != nullptr, invalid_argument, "graph_end: graph is null");
  BL_FORWARD(graph_end(device, stream, graph, error));
}

bl_status bl_graph_launch(bl_graph* graph, bl_stream* stream, bl_error* error) {
  BL_CHECK(graph != nullptr, invalid_argument, "graph_launch: graph is null");
  return found().graph_launch(graph, stream, error);
}

void bl_graph_destroy(bl_graph* graph) {
  if (graph != nullptr) found().graph_destroy(graph);
}
