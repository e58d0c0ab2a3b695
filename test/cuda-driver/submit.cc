// Putting work on streams: what it has to wait for, and what is remembered of its pinned source.
#include <algorithm>
#include <cstring>

#include "state.h"

namespace bitloom::cuda_emulation {

uint64_t hash_bytes(const void* data, size_t bytes) {
  uint64_t hash = 0xcbf29ce484222325ull;
  const unsigned char* at = static_cast<const unsigned char*>(data);
  for (; bytes >= 8; bytes -= 8, at += 8) {
    uint64_t word;
    std::memcpy(&word, at, 8);
    hash = (hash ^ word) * 0x100000001b3ull;
    hash ^= hash >> 29;
  }
  for (; bytes > 0; --bytes) hash = (hash ^ *at++) * 0x100000001b3ull;
  return hash;
}

namespace {

bool overlap(const void* a, const void* b, size_t a_bytes, size_t b_bytes) {
  const uintptr_t x = reinterpret_cast<uintptr_t>(a), y = reinterpret_cast<uintptr_t>(b);
  return a != nullptr && b != nullptr && x < y + b_bytes && y < x + a_bytes;
}

// Whether work that is still to be done may rightly change the pinned source.
bool has_pending_writer(const Driver& driver, const Work& work) {
  const auto writes = [&](const Work& other) {
    return other.is_host_function ||
           overlap(other.host_target, work.host_source, other.host_bytes, work.host_bytes);
  };
  for (const auto& stream : driver.queues) {
    for (const Operation& operation : stream->queue) {
      if (writes(operation.work)) return true;
      if (!operation.graph) continue;
      for (const GraphNode& node : operation.graph->graph->nodes) {
        if (writes(node.work)) return true;
      }
    }
  }
  return false;
}

void order_with_legacy(Driver& driver, Stream& stream, Operation& operation) {
  const auto add = [&](const TicketPtr& ticket) {
    if (ticket && !ticket->done) operation.after.push_back(ticket);
  };
  if (&stream != stream.context->legacy) {
    if (stream.is_blocking) add(stream.context->legacy->last);
    return;
  }
  for (const auto& other : driver.queues) {
    if (other->context == stream.context && other->is_blocking && other.get() != &stream) add(other->last);
  }
}

TicketPtr enqueue(Driver& driver, Stream& stream, Operation operation) {
  start_executor(driver);
  operation.number = driver.submitted++;
  order_with_legacy(driver, stream, operation);
  operation.ticket = std::make_shared<Ticket>();
  const TicketPtr ticket = stream.last = operation.ticket;
  stream.queue.push_back(std::move(operation));
  driver.last_submission = std::chrono::steady_clock::now();
  driver.wake.notify_all();
  return ticket;
}

}  // namespace

CUresult submit(Driver& driver, Stream& stream, Work work, TicketPtr* ticket) {
  if (stream.capture) {
    if (stream.capture->invalidated) return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    std::vector<GraphNode>& nodes = stream.capture->graph->nodes;
    nodes.push_back({std::move(work), stream.capture_after});
    stream.capture_after = {nodes.size() - 1};
    return CUDA_SUCCESS;
  }
  // The legacy stream would wait for blocking streams, which may not wait for anything while they are
  // captured.
  for (const auto& capture : driver.captures) {
    if (capture->invalidated || &stream != stream.context->legacy ||
        capture->origin->context != stream.context)
      continue;
    const bool depends = std::any_of(capture->streams.begin(), capture->streams.end(),
                                     [](const Stream* captured) { return captured->is_blocking; });
    if (!depends) continue;
    capture->invalidated = true;
    return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
  }
  Operation operation;
  if (work.host_source && driver.settings.verify_pinned && !has_pending_writer(driver, work))
    operation.source_hash = hash_bytes(work.host_source, work.host_bytes);
  operation.work = std::move(work);
  const TicketPtr made = enqueue(driver, stream, std::move(operation));
  if (ticket) *ticket = made;
  return CUDA_SUCCESS;
}

void submit_wait(Driver& driver, Stream& stream, const TicketPtr& ticket) {
  Operation operation;
  operation.work = {.name = "cuStreamWaitEvent", .run = [](Device&) {}};
  operation.after.push_back(ticket);
  enqueue(driver, stream, std::move(operation));
}

TicketPtr submit_graph(Driver& driver, Stream& stream, GraphExec& exec) {
  Operation operation;
  operation.work.name = "cuGraphLaunch";
  operation.graph = GraphRun{exec.graph, std::vector<bool>(exec.graph->nodes.size())};
  if (exec.last_launch && !exec.last_launch->done) operation.after.push_back(exec.last_launch);
  return exec.last_launch = enqueue(driver, stream, std::move(operation));
}

}  // namespace bitloom::cuda_emulation
