// The functions of the backend, with the C ABI's handles.
#include "backend.h"

#include <memory>
#include <mutex>

#include "../native/base/backend.h"
#include "driver/device.h"

namespace bitloom::cuda {

namespace {

using Lock = std::lock_guard<std::recursive_mutex>;

// A device that is ready in this thread, and one of its streams.
struct Entered {
  Device* device = nullptr;
  bl_stream* stream = nullptr;
};

bl_status enter(int32_t index, bl_stream* stream, Entered* out, bl_error* error) {
  BL_RETURN_IF_ERROR(find_device(index, &out->device, error));
  const Lock lock(out->device->mutex);
  BL_RETURN_IF_ERROR(out->device->enter(error));
  return out->device->resolve(stream, &out->stream, error);
}

bl_status finish(Device& device, int result, const char* what, bl_error* error) {
  if (result == kSuccess) return BL_STATUS_ok;
  const Lock lock(device.mutex);
  return device.failed(result, what, error);
}

bl_status device_info(int32_t index, bl_device_info* info, bl_error* error) {
  Device* device = nullptr;
  BL_RETURN_IF_ERROR(find_device(index, &device, error));
  const Lock lock(device->mutex);
  return device->info(info, error);
}

bl_status set_limit(int32_t index, uint64_t bytes, bl_error* error) {
  Device* device = nullptr;
  BL_RETURN_IF_ERROR(find_device(index, &device, error));
  const Lock lock(device->mutex);
  return device->set_limit(bytes, error);
}

bl_status reset(int32_t index, bl_error* error) {
  Device* device = nullptr;
  BL_RETURN_IF_ERROR(find_device(index, &device, error));
  const Lock lock(device->mutex);
  return device->reset(error);
}

bl_status allocate(int32_t index, bl_stream* stream, uint64_t bytes, bl_memory** memory, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  const Lock lock(at.device->mutex);
  Block* block = nullptr;
  BL_RETURN_IF_ERROR(at.device->allocate_shared(at.stream, bytes, &block, error));
  *memory = new bl_memory{at.device, block, at.device->generation};
  return BL_STATUS_ok;
}

void* address(const bl_memory* memory) {
  const Lock lock(memory->device->mutex);
  if (memory->generation != memory->device->generation) return nullptr;
  return reinterpret_cast<void*>(memory->block->address);
}

void free_memory(bl_memory* memory) {
  if (memory == nullptr) return;
  bl_error ignored{};
  const Lock lock(memory->device->mutex);
  if (memory->generation == memory->device->generation) {
    memory->device->enter(&ignored);
    memory->device->free(memory->block);
  }
  delete memory;
}

bl_status stream_create(int32_t index, bl_stream** stream, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, nullptr, &at, error));
  const Lock lock(at.device->mutex);
  return at.device->create_stream(stream, error);
}

void stream_destroy(bl_stream* stream) {
  if (stream == nullptr) return;
  Device& device = stream->device;
  const Lock lock(device.mutex);
  device.destroy_stream(stream);
}

bl_status stream_synchronize(int32_t index, bl_stream* stream, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  BL_CHECK(!at.stream->is_recording, unsupported, "graph: a stream that is recorded cannot be waited for");
  // It may have more work by the time that this is done.
  return finish(*at.device, driver().stream_synchronize(at.stream->handle), "cuStreamSynchronize", error);
}

bl_status stream_wait(int32_t index, bl_stream* stream, bl_stream* other, bl_error* error) {
  Entered at;
  Entered before;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  BL_RETURN_IF_ERROR(enter(index, other, &before, error));
  const Lock lock(at.device->mutex);
  return at.stream == before.stream ? BL_STATUS_ok : at.device->wait_for(*at.stream, *before.stream, error);
}

struct Notice {
  bl_done done;
  void* context;
};

// On a thread of the driver, where no driver function may be called.
void deliver(DriverStream, int result, void* argument) {
  const std::unique_ptr<Notice> notice(static_cast<Notice*>(argument));
  bl_error error{};
  if (result != kSuccess) {
    fail(&error, result == kOutOfMemory ? BL_STATUS_out_of_memory : BL_STATUS_device_lost,
         "the device failed with error %d before this was done", result);
  }
  notice->done(notice->context, &error);
}

bl_status stream_notify(int32_t index, bl_stream* stream, bl_done done, void* context, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  BL_CHECK(!at.stream->is_recording, unsupported, "graph: a stream that is recorded cannot be waited for");
  auto notice = std::make_unique<Notice>(Notice{done, context});
  const int result = driver().stream_notify(at.stream->handle, deliver, notice.get(), 0);
  if (result == kSuccess) notice.release();
  return finish(*at.device, result, "cuStreamAddCallback", error);
}

bl_status event_record(int32_t index, bl_stream* stream, bl_event** event, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  DriverEvent handle = nullptr;
  BL_RETURN_IF_ERROR(finish(*at.device, driver().event_create(&handle, 0), "cuEventCreate", error));
  const int result = driver().event_record(handle, at.stream->handle);
  if (result != kSuccess) driver().event_destroy(handle);
  BL_RETURN_IF_ERROR(finish(*at.device, result, "cuEventRecord", error));
  *event = new bl_event{at.device, handle, at.device->generation};
  return BL_STATUS_ok;
}

void event_destroy(bl_event* event) {
  if (event == nullptr) return;
  bl_error ignored{};
  const Lock lock(event->device->mutex);
  if (event->generation == event->device->generation && event->device->enter(&ignored) == BL_STATUS_ok) {
    driver().event_destroy(event->handle);
  }
  delete event;
}

bl_status event_elapsed(bl_event* begin, bl_event* end, float* milliseconds, bl_error* error) {
  Device& device = *begin->device;
  {
    const Lock lock(device.mutex);
    BL_RETURN_IF_ERROR(device.enter(error));
    BL_CHECK(end->device == &device && begin->generation == device.generation &&
                 end->generation == device.generation,
             invalid_argument, "event: the events are of different devices, or from before a reset");
  }
  BL_RETURN_IF_ERROR(finish(device, driver().event_synchronize(begin->handle), "cuEventSynchronize", error));
  BL_RETURN_IF_ERROR(finish(device, driver().event_synchronize(end->handle), "cuEventSynchronize", error));
  return finish(device, driver().event_elapsed(milliseconds, begin->handle, end->handle),
                "cuEventElapsedTime", error);
}

bl_status copy(int32_t index, bl_stream* stream, int32_t kind, void* output, const void* input,
               uint64_t bytes, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  const Lock lock(at.device->mutex);
  if (kind == BL_COPY_to_device) {
    BL_CHECK(!at.stream->is_recording, unsupported,
             "graph: a copy from host memory cannot be kept in a graph");
    return at.device->copy_to_device(*at.stream, reinterpret_cast<Address>(output), input, bytes, error);
  }
  if (kind == BL_COPY_from_device) {
    BL_CHECK(!at.stream->is_recording, unsupported, "graph: a copy to host memory cannot be kept in a graph");
    return at.device->copy_from_device(*at.stream, output, reinterpret_cast<Address>(input), bytes, error);
  }
  BL_CHECK(kind == BL_COPY_on_device, invalid_argument, "copy: kind is %d, expected 0 to 2", kind);
  if (bytes == 0) return BL_STATUS_ok;
  at.stream->has_work = at.stream->has_work || !at.stream->is_recording;
  return finish(*at.device,
                driver().copy_on_device(reinterpret_cast<Address>(output), reinterpret_cast<Address>(input),
                                        bytes, at.stream->handle),
                "cuMemcpyDtoDAsync", error);
}

bl_status graph_begin(int32_t index, bl_stream* stream, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  const Lock lock(at.device->mutex);
  BL_CHECK(!at.stream->is_recording, invalid_argument, "graph: the stream is recorded already");
  // Memory that its earlier work used may become the graph's, which other streams use.
  BL_RETURN_IF_ERROR(
      finish(*at.device, driver().stream_synchronize(at.stream->handle), "cuStreamSynchronize", error));
  BL_RETURN_IF_ERROR(finish(*at.device, driver().capture_begin(at.stream->handle, kCaptureRelaxed),
                            "cuStreamBeginCapture", error));
  at.stream->is_recording = true;
  return BL_STATUS_ok;
}

void release(Device& device, std::vector<Block*>& blocks) {
  for (Block* block : blocks) device.free(block);
  blocks.clear();
}

bl_status graph_end(int32_t index, bl_stream* stream, bl_graph** graph, bl_error* error) {
  Entered at;
  BL_RETURN_IF_ERROR(enter(index, stream, &at, error));
  const Lock lock(at.device->mutex);
  BL_CHECK(at.stream->is_recording, invalid_argument, "graph: the stream is not recorded");
  at.stream->is_recording = false;
  std::vector<Block*> held = std::move(at.stream->held);
  held.insert(held.end(), at.stream->spare.begin(), at.stream->spare.end());
  at.stream->held.clear();
  at.stream->spare.clear();
  Graph handle = nullptr;
  GraphExec exec = nullptr;
  int result = driver().capture_end(at.stream->handle, &handle);
  if (result == kSuccess) {
    result = driver().graph_instantiate(&exec, handle, 0);
    if (result != kSuccess) driver().graph_destroy(handle);
  }
  if (result != kSuccess) {
    release(*at.device, held);
    return at.device->failed(result, "cuGraphInstantiate", error);
  }
  *graph = new bl_graph{at.device, handle, exec, std::move(held), at.device->generation};
  return BL_STATUS_ok;
}

bl_status graph_launch(bl_graph* graph, bl_stream* stream, bl_error* error) {
  Device& device = *graph->device;
  const Lock lock(device.mutex);
  BL_RETURN_IF_ERROR(device.enter(error));
  BL_CHECK(graph->generation == device.generation, detached,
           "graph: it is from before a reset of the device");
  bl_stream* at = nullptr;
  BL_RETURN_IF_ERROR(device.resolve(stream, &at, error));
  at->has_work = true;
  return finish(device, driver().graph_launch(graph->exec, at->handle), "cuGraphLaunch", error);
}

void graph_destroy(bl_graph* graph) {
  if (graph == nullptr) return;
  bl_error ignored{};
  Device& device = *graph->device;
  const Lock lock(device.mutex);
  if (graph->generation == device.generation && device.enter(&ignored) == BL_STATUS_ok) {
    driver().graph_exec_destroy(graph->exec);
    driver().graph_destroy(graph->graph);
    release(device, graph->held);
  }
  delete graph;
}

#define BL_CUDA_OP(op)                                                           \
  bl_status run_##op(const bl_##op##_args& args, bl_error* error) {              \
    Entered at;                                                                  \
    BL_RETURN_IF_ERROR(enter(args.run.device - 1, args.run.stream, &at, error)); \
    return op(*at.stream, args, error);                                          \
  }
#include "ops.inc"
#undef BL_CUDA_OP

Backend make_backend() {
  Backend backend{};
  backend.version = BITLOOM_VERSION;
  backend.device_count = device_count;
  backend.unavailable = unavailable;
  backend.device_info = device_info;
  backend.set_limit = set_limit;
  backend.reset = reset;
  backend.allocate = allocate;
  backend.address = address;
  backend.free = free_memory;
  backend.stream_create = stream_create;
  backend.stream_destroy = stream_destroy;
  backend.stream_synchronize = stream_synchronize;
  backend.stream_wait = stream_wait;
  backend.stream_notify = stream_notify;
  backend.event_record = event_record;
  backend.event_destroy = event_destroy;
  backend.event_elapsed = event_elapsed;
  backend.copy = copy;
  backend.graph_begin = graph_begin;
  backend.graph_end = graph_end;
  backend.graph_launch = graph_launch;
  backend.graph_destroy = graph_destroy;
#define BL_CUDA_OP(op) backend.op = run_##op;
#include "ops.inc"
#undef BL_CUDA_OP
  return backend;
}

}  // namespace

}  // namespace bitloom::cuda

extern "C" BL_API const bitloom::Backend* bl_cuda_backend() {
  static const bitloom::Backend backend = bitloom::cuda::make_backend();
  return &backend;
}
