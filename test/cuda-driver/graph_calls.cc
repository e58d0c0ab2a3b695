// Capture of streams into graphs, and their launches.
#include <algorithm>

#include "calls.h"
#include "state.h"

namespace bitloom::cuda_emulation {
namespace {

// Whether every node of the capture comes before the end of its origin.
bool is_joined(const Capture& capture) {
  const std::vector<GraphNode>& nodes = capture.graph->nodes;
  std::vector<bool> reached(nodes.size());
  std::vector<size_t> stack = capture.origin->capture_after;
  while (!stack.empty()) {
    const size_t node = stack.back();
    stack.pop_back();
    if (reached[node]) continue;
    reached[node] = true;
    stack.insert(stack.end(), nodes[node].after.begin(), nodes[node].after.end());
  }
  return std::all_of(reached.begin(), reached.end(), [](bool b) { return b; });
}

}  // namespace

CUresult cuStreamBeginCapture_v2(CUstream handle, int mode) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<Stream> stream = find_stream(driver, context, handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (mode < CU_STREAM_CAPTURE_MODE_GLOBAL || mode > CU_STREAM_CAPTURE_MODE_RELAXED)
      return CUDA_ERROR_INVALID_VALUE;
    if (stream.get() == context.legacy) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (stream->capture) return CUDA_ERROR_ILLEGAL_STATE;
    const auto capture = std::make_shared<Capture>();
    capture->origin = stream.get();
    capture->mode = mode;
    capture->thread = std::this_thread::get_id();
    capture->graph = std::make_shared<Graph>();
    capture->graph->context = &context;
    capture->streams = {stream.get()};
    stream->capture = capture;
    stream->capture_after.clear();
    driver.captures.push_back(capture);
    return CUDA_SUCCESS;
  });
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph* out) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<Stream> stream = find_stream(driver, context, handle);
    if (!stream || stream.get() == context.legacy) return CUDA_ERROR_INVALID_HANDLE;
    if (!out) return CUDA_ERROR_INVALID_VALUE;
    *out = nullptr;
    const std::shared_ptr<Capture> capture = stream->capture;
    if (!capture) return CUDA_ERROR_ILLEGAL_STATE;
    if (capture->origin != stream.get()) {
      capture->invalidated = true;
      return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED && capture->thread != std::this_thread::get_id())
      return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    const CUresult result = capture->invalidated  ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                            : is_joined(*capture) ? CUDA_SUCCESS
                                                  : CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    for (Stream* captured : capture->streams) captured->capture = nullptr;
    std::erase(driver.captures, capture);
    if (result == CUDA_SUCCESS) *out = driver.graphs.add(capture->graph);
    return result;
  });
}

CUresult cuStreamIsCapturing(CUstream handle, int* status) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<Stream> stream = find_stream(driver, context, handle);
    if (!stream) return CUDA_ERROR_INVALID_HANDLE;
    if (!status) return CUDA_ERROR_INVALID_VALUE;
    *status = !stream->capture               ? CU_STREAM_CAPTURE_STATUS_NONE
              : stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                             : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphInstantiateWithFlags(CUgraphExec* out, CUgraph handle, unsigned long long flags) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<Graph> graph = driver.graphs.find(handle);
    if (!out || !graph || flags != 0) return CUDA_ERROR_INVALID_VALUE;
    const auto exec = std::make_shared<GraphExec>();
    exec->context = &context;
    exec->graph = graph;
    *out = driver.graph_execs.add(exec);
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphLaunch(CUgraphExec handle, CUstream stream_handle) {
  return in_context([&](Driver& driver, Context& context, Lock&) -> CUresult {
    const std::shared_ptr<GraphExec> exec = driver.graph_execs.find(handle);
    const std::shared_ptr<Stream> stream = find_stream(driver, context, stream_handle);
    if (!exec || !stream) return CUDA_ERROR_INVALID_HANDLE;
    if (stream->capture) return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;  // child graphs are not emulated
    submit_graph(driver, *stream, *exec);
    return CUDA_SUCCESS;
  });
}

CUresult cuGraphExecDestroy(CUgraphExec handle) {
  return in_context([&](Driver& driver, Context&, Lock&) -> CUresult {
    return driver.graph_execs.remove(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  });
}

CUresult cuGraphDestroy(CUgraph handle) {
  return in_context([&](Driver& driver, Context&, Lock&) -> CUresult {
    return driver.graphs.remove(handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
  });
}

}  // namespace bitloom::cuda_emulation
