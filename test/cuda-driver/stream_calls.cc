// Streams, events, host functions.
#include <algorithm>

#include "calls.h"
#include "state.h"

namespace bitloom::cuda_emulation {
namespace {

// The stream itself, or what is wrong with synchronizing or asking it now.
CUresult refuse_captured(Driver& driver, const Context& context, Stream& stream) {
  for (const auto& capture : driver.captures) {
    // The legacy stream stands for all blocking ones.
    const bool concerned =
        stream.capture == capture ||
        (&stream == context.legacy &&
         std::any_of(capture->streams.begin(), capture->streams.end(),
                     [&](const Stream* s) { return s->context == &context && s->is_blocking; }));
    if (!concerned) continue;
    capture->invalidated = true;
    return stream.capture == capture ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED
                                     : CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  return CUDA_SUCCESS;
}

// Runs body(driver, context, stream, lock).
template <typename Body>
CUresult with_stream(CUstream handle, Body&& body) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    const std::shared_ptr<Stream> stream = find_stream(driver, context, handle);
    return stream ? body(driver, context, *stream, lock) : CUDA_ERROR_INVALID_HANDLE;
  });
}

template <typename Body>
CUresult with_event(CUevent handle, Body&& body) {
  return in_context([&](Driver& driver, Context& context, Lock& lock) -> CUresult {
    const std::shared_ptr<Event> event = driver.events.find(handle);
    return event && event->context == &context ? body(driver, context, *event, lock)
                                               : CUDA_ERROR_INVALID_HANDLE;
  });
}

// A stream joins the capture that the event was recorded in.
CUresult join_capture(Stream& stream, const Event& event) {
  if (event.capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
  if (stream.capture && stream.capture != event.capture) return CUDA_ERROR_STREAM_CAPTURE_MERGE;
  if (!stream.capture) {
    stream.capture = event.capture;
    stream.capture_after.clear();
    event.capture->streams.push_back(&stream);
  }
  for (size_t node : event.capture_after) {
    if (std::find(stream.capture_after.begin(), stream.capture_after.end(), node) ==
        stream.capture_after.end())
      stream.capture_after.push_back(node);
  }
  return CUDA_SUCCESS;
}

}  // namespace

CUresult cuStreamCreateWithPriority(CUstream* out, unsigned int flags, int) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (!out || flags > CU_STREAM_NON_BLOCKING) return CUDA_ERROR_INVALID_VALUE;
    const auto stream = std::make_shared<Stream>();
    stream->context = &context;
    stream->is_blocking = flags != CU_STREAM_NON_BLOCKING;
    driver.queues.push_back(stream);
    *out = driver.streams.add(stream);
    return CUDA_SUCCESS;
  });
}
CUresult cuStreamCreate(CUstream* out, unsigned int flags) {
  return cuda_emulation::cuStreamCreateWithPriority(out, flags, 0);
}

CUresult cuStreamDestroy_v2(CUstream handle) {
  return with_stream(handle, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    if (&stream == context.legacy) return CUDA_ERROR_INVALID_HANDLE;
    if (stream.capture) {
      const std::shared_ptr<Capture> capture = stream.capture;
      for (Stream* other : capture->streams) other->capture = nullptr;
      std::erase(driver.captures, capture);
    }
    stream.is_destroyed = true;
    driver.streams.remove(handle);
    std::erase_if(driver.queues,
                  [&](const auto& other) { return other->is_destroyed && other->queue.empty(); });
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamSynchronize(CUstream handle) {
  return with_stream(handle, [&](Driver& driver, Context& context, Stream& stream, Lock& lock) -> CUresult {
    const CUresult refused = refuse_captured(driver, context, stream);
    if (refused != CUDA_SUCCESS) return refused;
    if (&stream == context.legacy) {  // and what it would wait for
      std::vector<TicketPtr> tickets;
      for (const auto& other : driver.queues) {
        if (other->context == &context && other->is_blocking && other->last) tickets.push_back(other->last);
      }
      for (const TicketPtr& ticket : tickets) wait_for(driver, ticket, lock);
    } else {
      wait_for(driver, stream.last, lock);
    }
    return context.error;
  });
}

CUresult cuStreamQuery(CUstream handle) {
  return with_stream(handle, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    const CUresult refused = refuse_captured(driver, context, stream);
    if (refused != CUDA_SUCCESS) return refused;
    const auto is_done = [](const Stream& one) { return !one.last || one.last->done; };
    const bool done = &stream != context.legacy
                          ? is_done(stream)
                          : std::all_of(driver.queues.begin(), driver.queues.end(), [&](const auto& other) {
                              return other->context != &context || !other->is_blocking || is_done(*other);
                            });
    return done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

CUresult cuStreamWaitEvent(CUstream handle, CUevent event_handle, unsigned int) {
  return with_stream(handle, [&](Driver& driver, Context&, Stream& stream, Lock&) -> CUresult {
    const std::shared_ptr<Event> event = driver.events.find(event_handle);
    if (!event) return CUDA_ERROR_INVALID_HANDLE;
    if (event->capture) return join_capture(stream, *event);
    if (stream.capture) {  // on work outside of the capture
      stream.capture->invalidated = true;
      return CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (event->record && !event->record->done) submit_wait(driver, stream, event->record);
    return CUDA_SUCCESS;
  });
}

CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void* user_data) {
  return with_stream(handle, [&](Driver& driver, Context&, Stream& stream, Lock&) -> CUresult {
    if (!function) return CUDA_ERROR_INVALID_VALUE;
    return submit(
        driver, stream,
        {.name = "cuLaunchHostFunc", .run = [=](Device&) { function(user_data); }, .is_host_function = true});
  });
}

CUresult cuStreamAddCallback(CUstream handle, CUstreamCallback function, void* user_data,
                             unsigned int flags) {
  return with_stream(handle, [&](Driver& driver, Context&, Stream& stream, Lock&) -> CUresult {
    if (!function || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    if (stream.capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    return submit(driver, stream,
                  {.name = "cuStreamAddCallback",
                   .run = [=](Device&) { function(handle, CUDA_SUCCESS, user_data); },
                   .is_host_function = true,
                   .callback = [=](CUresult error) { function(handle, error, user_data); }});
  });
}

CUresult cuEventCreate(CUevent* out, unsigned int flags) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    if (!out || flags > 7) return CUDA_ERROR_INVALID_VALUE;
    const auto event = std::make_shared<Event>();
    event->context = &context;
    event->has_timing = !(flags & CU_EVENT_DISABLE_TIMING);
    *out = driver.events.add(event);
    return CUDA_SUCCESS;
  });
}

CUresult cuEventRecord(CUevent handle, CUstream stream_handle) {
  return with_stream(stream_handle, [&](Driver& driver, Context& context, Stream& stream, Lock&) -> CUresult {
    const std::shared_ptr<Event> event = driver.events.find(handle);
    if (!event || event->context != &context) return CUDA_ERROR_INVALID_HANDLE;
    if (stream.capture) {
      if (stream.capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
      event->capture = stream.capture;
      event->capture_after = stream.capture_after;
      return CUDA_SUCCESS;
    }
    event->capture = nullptr;
    return submit(driver, stream, {.name = "cuEventRecord", .run = [](Device&) {}}, &event->record);
  });
}

CUresult cuEventSynchronize(CUevent handle) {
  return with_event(handle, [](Driver& driver, Context& context, Event& event, Lock& lock) -> CUresult {
    if (event.capture) {
      event.capture->invalidated = true;
      return CUDA_ERROR_CAPTURED_EVENT;
    }
    wait_for(driver, event.record, lock);
    return context.error;
  });
}

CUresult cuEventQuery(CUevent handle) {
  return with_event(handle, [](Driver&, Context&, Event& event, Lock&) -> CUresult {
    if (event.capture) {
      event.capture->invalidated = true;
      return CUDA_ERROR_CAPTURED_EVENT;
    }
    return !event.record || event.record->done ? CUDA_SUCCESS : CUDA_ERROR_NOT_READY;
  });
}

CUresult cuEventElapsedTime(float* milliseconds, CUevent start, CUevent end) {
  return with_event(start, [&](Driver& driver, Context&, Event& first, Lock&) -> CUresult {
    const std::shared_ptr<Event> last = driver.events.find(end);
    if (!milliseconds) return CUDA_ERROR_INVALID_VALUE;
    if (!last || !first.has_timing || !last->has_timing || !first.record || !last->record || first.capture ||
        last->capture) {
      return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!first.record->done || !last->record->done) return CUDA_ERROR_NOT_READY;
    *milliseconds = std::chrono::duration<float, std::milli>(last->record->when - first.record->when).count();
    return CUDA_SUCCESS;
  });
}
CUresult cuEventElapsedTime_v2(float* milliseconds, CUevent start, CUevent end) {
  return cuda_emulation::cuEventElapsedTime(milliseconds, start, end);
}

CUresult cuEventDestroy_v2(CUevent handle) {
  return with_event(handle, [&](Driver& driver, Context&, Event&, Lock&) -> CUresult {
    driver.events.remove(handle);
    return CUDA_SUCCESS;
  });
}

}  // namespace bitloom::cuda_emulation
