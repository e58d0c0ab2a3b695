// What a backend library offers: functions for memory and streams, and one entry per operator, null where it
// has none. libbitloom_cuda exports it as bl_cuda_backend; both libraries are of one build, which `version`
// proves.
#pragma once

#include "../include/bitloom_attention.h"
#include "../include/bitloom_block_sparse.h"
#include "../include/bitloom_moe.h"
#include "error.h"

namespace bitloom {

struct Backend {
  const char* version;
  int32_t (*device_count)();
  const char* (*unavailable)();
  bl_status (*device_info)(int32_t device, bl_device_info* info, bl_error* error);
  bl_status (*set_limit)(int32_t device, uint64_t bytes, bl_error* error);
  bl_status (*reset)(int32_t device, bl_error* error);
  bl_status (*allocate)(int32_t device, bl_stream* stream, uint64_t bytes, bl_memory** memory,
                        bl_error* error);
  void* (*address)(const bl_memory* memory);
  void (*free)(bl_memory* memory);
  bl_status (*stream_create)(int32_t device, bl_stream** stream, bl_error* error);
  void (*stream_destroy)(bl_stream* stream);
  bl_status (*stream_synchronize)(int32_t device, bl_stream* stream, bl_error* error);
  bl_status (*stream_wait)(int32_t device, bl_stream* stream, bl_stream* other, bl_error* error);
  bl_status (*stream_notify)(int32_t device, bl_stream* stream, bl_done done, void* context, bl_error* error);
  bl_status (*event_record)(int32_t device, bl_stream* stream, bl_event** event, bl_error* error);
  void (*event_destroy)(bl_event* event);
  bl_status (*event_elapsed)(bl_event* begin, bl_event* end, float* milliseconds, bl_error* error);
  bl_status (*copy)(int32_t device, bl_stream* stream, int32_t kind, void* output, const void* input,
                    uint64_t bytes, bl_error* error);
  bl_status (*graph_begin)(int32_t device, bl_stream* stream, bl_error* error);
  bl_status (*graph_end)(int32_t device, bl_stream* stream, bl_graph** graph, bl_error* error);
  bl_status (*graph_launch)(bl_graph* graph, bl_stream* stream, bl_error* error);
  void (*graph_destroy)(bl_graph* graph);
#define BL_OP(name, js_name) bl_status (*name)(const bl_##name##_args& args, bl_error* error);
#include "../ops/ops.inc"
#undef BL_OP
};

// The CUDA backend, or null; then *reason says why. Opened at the first call.
const Backend* cuda_backend(const char** reason);

// Runs a checked call on its device.
template <typename Args>
bl_status run_on_device(const char* op, bl_status (*Backend::*entry)(const Args&, bl_error*),
                        const Args& args, bl_error* error) {
  const char* reason = nullptr;
  const Backend* backend = cuda_backend(&reason);
  const int32_t device = args.run.device - 1;
  BL_CHECK(backend != nullptr, not_found, "%s: run.device is cuda:%d, but there is none: %s", op, device,
           reason);
  BL_CHECK(backend->*entry != nullptr, unsupported,
           "%s: does not run on devices; copy its tensors to the cpu", op);
  return (backend->*entry)(args, error);
}

}  // namespace bitloom

// Leaves an entry point, after its checks, for the device that the call names.
#define BL_RUN_ON_DEVICE(op, call)                                                \
  do {                                                                            \
    if ((call).run.device != 0) {                                                 \
      return ::bitloom::run_on_device(#op, &::bitloom::Backend::op, call, error); \
    }                                                                             \
  } while (0)
