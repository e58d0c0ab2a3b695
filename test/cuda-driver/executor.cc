// Streams and the thread that executes them. One piece of work at a time; where several streams could go on,
// `seed` chooses. Work waits a little for more work (the `delay`), so that what should have been waited for
// is really unfinished when somebody forgets to.
#include <algorithm>
#include <cstdio>
#include <cstring>

#include "state.h"

namespace bitloom::cuda_emulation {
namespace {

thread_local bool in_host_function = false;

CUresult code_of(ptx::FaultKind kind) {
  switch (kind) {
    case ptx::FaultKind::out_of_bounds:
    case ptx::FaultKind::bad_address:
      return CUDA_ERROR_ILLEGAL_ADDRESS;
    case ptx::FaultKind::misaligned:
      return CUDA_ERROR_MISALIGNED_ADDRESS;
    case ptx::FaultKind::unknown_instruction:
      return CUDA_ERROR_ILLEGAL_INSTRUCTION;
    case ptx::FaultKind::deadlock:
    case ptx::FaultKind::endless_loop:
      return CUDA_ERROR_LAUNCH_TIMEOUT;
    default:  // what hardware would not notice, or would fail to launch
      return CUDA_ERROR_LAUNCH_FAILED;
  }
}

bool is_ready(const Operation& operation) {
  return std::all_of(operation.after.begin(), operation.after.end(),
                     [](const TicketPtr& ticket) { return ticket->done; });
}

std::vector<std::shared_ptr<Stream>> ready_streams(const Driver& driver) {
  std::vector<std::shared_ptr<Stream>> ready;
  for (const auto& stream : driver.queues) {
    if (!stream->queue.empty() && is_ready(stream->queue.front())) ready.push_back(stream);
  }
  return ready;
}

// Draws a number only for work that is then done, so that a seed means one order.
std::shared_ptr<Stream> choose(Driver& driver, const std::vector<std::shared_ptr<Stream>>& ready) {
  if (driver.settings.seed != 0) return ready[driver.random() % ready.size()];
  return *std::min_element(ready.begin(), ready.end(), [](const auto& a, const auto& b) {
    return a->queue.front().number < b->queue.front().number;
  });
}

void complete(Driver& driver, Stream& stream) {
  const TicketPtr ticket = stream.queue.front().ticket;
  stream.queue.pop_front();
  ticket->done = true;
  ticket->when = std::chrono::steady_clock::now();
  if (stream.is_destroyed && stream.queue.empty())
    std::erase_if(driver.queues, [&](const auto& other) { return other.get() == &stream; });
  driver.changed.notify_all();
}

// A node of the graph whose predecessors are done: the first, or one at random.
size_t choose_node(Driver& driver, const GraphRun& run) {
  std::vector<size_t> ready;
  for (size_t i = 0; i < run.done.size(); ++i) {
    const GraphNode& node = run.graph->nodes[i];
    if (!run.done[i] &&
        std::all_of(node.after.begin(), node.after.end(), [&](size_t j) { return run.done[j]; }))
      ready.push_back(i);
  }
  return driver.settings.seed != 0 ? ready[driver.random() % ready.size()] : ready[0];
}

void check_source(const Work& work, const std::optional<uint64_t>& hash) {
  if (hash && hash_bytes(work.host_source, work.host_bytes) != *hash) {
    throw ptx::Fault(ptx::FaultKind::global_race, work.name + ": the pinned source (" +
                                                      std::to_string(work.host_bytes) +
                                                      " bytes) changed between the call and its execution");
  }
}

// Runs one piece of work without the mutex. Gives the error, with its message.
CUresult run_unlocked(Driver& driver, Device& device, const Work& work, const std::optional<uint64_t>& hash,
                      std::string& message, Lock& lock) {
  std::vector<std::pair<CUdeviceptr, uint64_t>> uncommitted;
  uncommitted.swap(device.uncommitted);
  CUresult injected = work.is_kernel ? driver.failures.next("kernel") : CUDA_SUCCESS;
  device.launch_options = driver.settings.launch;
  if (work.is_kernel && driver.settings.seed != 0)  // another schedule at every launch
    device.launch_options.seed = driver.settings.seed * 0x9e3779b97f4a7c15ull + ++driver.launches;
  lock.unlock();
  CUresult code = CUDA_SUCCESS;
  try {
    if (injected != CUDA_SUCCESS) {
      code = injected;
      message = work.name + ": injected failure";
    } else if (work.is_host_function) {
      in_host_function = true;
      work.run(device);
      in_host_function = false;
    } else {
      const std::lock_guard machine_lock(device.machine_mutex);
      for (const auto& [address, bytes] : uncommitted) device.machine->memory.allocate_at(address, bytes);
      uncommitted.clear();
      check_source(work, hash);
      work.run(device);
    }
  } catch (const ptx::Fault& fault) {
    code = code_of(fault.kind);
    message = fault.what();
  } catch (const std::exception& error) {
    code = CUDA_ERROR_UNKNOWN;
    message = work.name + ": " + error.what();
  }
  in_host_function = false;
  lock.lock();
  device.uncommitted.insert(device.uncommitted.begin(), uncommitted.begin(), uncommitted.end());
  if (code == CUDA_SUCCESS && work.finish) work.finish(device);
  return code;
}

// One turn: the whole of an operation, or one node of a graph.
void execute_one(Driver& driver, const std::shared_ptr<Stream>& stream, Lock& lock) {
  Operation& operation = stream->queue.front();  // stays in place: only this thread takes from the front
  Context& context = *stream->context;
  if (context.error != CUDA_SUCCESS) {
    if (operation.graph || !operation.work.callback) return complete(driver, *stream);
    stream->running = driver.is_executing = true;
    const auto callback = operation.work.callback;
    const CUresult error = context.error;
    lock.unlock();
    in_host_function = true;
    callback(error);
    in_host_function = false;
    lock.lock();
    stream->running = driver.is_executing = false;
    return complete(driver, *stream);
  }
  std::string message;
  CUresult code = CUDA_SUCCESS;
  stream->running = driver.is_executing = true;
  if (!operation.graph) {
    code = run_unlocked(driver, *context.device, operation.work, operation.source_hash, message, lock);
  } else if (!operation.graph->done.empty()) {
    const size_t index = choose_node(driver, *operation.graph);
    std::optional<uint64_t> hash;
    const Work& work = operation.graph->graph->nodes[index].work;
    code = run_unlocked(driver, *context.device, work, hash, message, lock);
    operation.graph->done[index] = true;
  }
  stream->running = driver.is_executing = false;
  if (code != CUDA_SUCCESS) fail_context(driver, context, code, message);
  const bool finished =
      !operation.graph || code != CUDA_SUCCESS ||
      std::all_of(operation.graph->done.begin(), operation.graph->done.end(), [](bool b) { return b; });
  if (finished) {
    complete(driver, *stream);
  } else {
    driver.changed.notify_all();
  }
}

void run_executor(Driver& driver) {
  Lock lock(driver.mutex);
  while (!driver.stopping) {
    const std::vector<std::shared_ptr<Stream>> ready = ready_streams(driver);
    if (ready.empty()) {
      driver.wake.wait(lock);
      continue;
    }
    const auto due = driver.last_submission + std::chrono::microseconds(driver.settings.delay_microseconds);
    if (driver.waiters == 0 && std::chrono::steady_clock::now() < due) {
      driver.wake.wait_until(lock, due);
      continue;
    }
    execute_one(driver, choose(driver, ready), lock);
  }
  driver.changed.notify_all();
}

}  // namespace

void start_executor(Driver& driver) {
  if (driver.has_executor) return;
  driver.has_executor = true;
  driver.random.seed(driver.settings.seed);
  std::thread([&driver] { run_executor(driver); }).detach();
}

bool is_in_host_function() { return in_host_function; }

void wait_for(Driver& driver, const TicketPtr& ticket, Lock& lock) {
  if (!ticket || ticket->done) return;
  ++driver.waiters;
  driver.wake.notify_all();
  driver.changed.wait(lock, [&] { return ticket->done || driver.stopping; });
  --driver.waiters;
}

void wait_for_context(Driver& driver, Context& context, Lock& lock) {
  std::vector<TicketPtr> tickets;
  for (const auto& stream : driver.queues) {
    if (stream->context == &context && stream->last) tickets.push_back(stream->last);
  }
  for (const TicketPtr& ticket : tickets) wait_for(driver, ticket, lock);
}

bool is_idle(const Driver& driver, const Context& context) {
  return std::all_of(driver.queues.begin(), driver.queues.end(), [&](const auto& stream) {
    return stream->context != &context || stream->queue.empty();
  });
}

}  // namespace bitloom::cuda_emulation
