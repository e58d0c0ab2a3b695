// Everything the emulated driver remembers. One mutex guards it all; the memory and kernels of a device are
// used by the executor's thread, and by others under the device's `machine_mutex`, which may be taken while
// the first is held and not the other way round.
#pragma once

#include <chrono>
#include <condition_variable>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <random>
#include <string>
#include <thread>
#include <vector>

#include "api.h"
#include "kernel_counters.h"
#include "machine.h"
#include "settings.h"

namespace bitloom::cuda_emulation {

struct Context;
struct Device;
struct Stream;
struct Capture;

// The completion of one piece of work.
struct Ticket {
  bool done = false;
  std::chrono::steady_clock::time_point when;
};
using TicketPtr = std::shared_ptr<Ticket>;

// What a stream or a graph is asked to do.
struct Work {
  std::string name;                   // of the call, for messages
  std::function<void(Device&)> run;   // on the executor's thread, without the mutex; may throw ptx::Fault
  bool is_host_function = false;      // runs code of the program
  const void* host_source = nullptr;  // pinned memory that `run` reads
  void* host_target = nullptr;        // pinned memory that `run` writes
  size_t host_bytes = 0;
  bool is_kernel = false;
  std::function<void(CUresult)> callback = {};  // of the program, called after errors of the context as well
  std::function<void(Device&)> finish = {};     // after `run`, with the mutex held
};

struct GraphNode {
  Work work;
  std::vector<size_t> after;  // indices of nodes
};

struct Graph {
  Context* context;
  std::vector<GraphNode> nodes;
};

struct GraphExec {
  Context* context;
  std::shared_ptr<const Graph> graph;
  TicketPtr last_launch;  // an instance runs once at a time
};

// One launch of a graph on its way.
struct GraphRun {
  std::shared_ptr<const Graph> graph;
  std::vector<bool> done;
};

struct Operation {
  uint64_t number = 0;  // in order of submission
  Work work;
  std::optional<GraphRun> graph;  // then `work` only names it
  std::vector<TicketPtr> after;
  TicketPtr ticket;
  std::optional<uint64_t> source_hash;  // of pinned memory at the call
};

struct Stream {
  Context* context;
  bool is_blocking;             // takes part in the order of the legacy stream
  std::deque<Operation> queue;  // the first one may be running
  bool running = false;
  bool is_destroyed = false;          // the handle is gone, the work goes on
  TicketPtr last;                     // of what was submitted last, or null
  std::shared_ptr<Capture> capture;   // or null
  std::vector<size_t> capture_after;  // nodes that the next captured one depends on
};

// A capture begun by cuStreamBeginCapture and not yet ended.
struct Capture {
  Stream* origin;
  int mode;
  std::thread::id thread;
  bool invalidated = false;
  std::shared_ptr<Graph> graph;
  std::vector<Stream*> streams;  // the origin and those that joined by events
};

struct Event {
  Context* context;
  bool has_timing;
  TicketPtr record;                  // the latest, or null
  std::shared_ptr<Capture> capture;  // set when the latest record was captured
  std::vector<size_t> capture_after;
};

struct Module {
  Context* context;
  const ptx::LoadedModule* loaded = nullptr;
  uint64_t text_hash = 0;
  ~Module();
};

struct Function {
  Context* context;
  std::weak_ptr<Module> module;
  std::string name;
  const ptx::Program* program;
  uint32_t dynamic_shared_limit = 48 << 10;
};

struct DeviceAllocation {
  uint64_t bytes;
  bool is_freed = false;  // cuMemFreeAsync was called
};

struct HostRange {
  Context* context;
  size_t bytes;
  bool is_registered;  // by cuMemHostRegister, else allocated here
};

struct Context {
  Device* device;
  int retained = 0;
  bool is_active = false;
  CUresult error = CUDA_SUCCESS;  // sticky
  Stream* legacy = nullptr;
};

struct Device {
  int ordinal;
  int arch;
  Context context;
  std::unique_ptr<ptx::Machine> machine;
  std::mutex machine_mutex;
  std::map<CUdeviceptr, DeviceAllocation> allocations;
  std::vector<std::pair<CUdeviceptr, uint64_t>>
      uncommitted;  // of cuMemAlloc; they get memory before the next work
  CUdeviceptr next_address;
  ptx::Options launch_options;  // of the kernel that the executor runs
  uint64_t used_bytes = 0;
  uint64_t peak_bytes = 0;
};

// Handles are numbers that are never used twice, so that a stale one is noticed.
template <typename Handle, typename T>
class Handles {
 public:
  Handle add(std::shared_ptr<T> object) {
    static uintptr_t next = 0x500000000000;
    const Handle handle = reinterpret_cast<Handle>(next += 64);
    objects_[handle] = std::move(object);
    return handle;
  }
  std::shared_ptr<T> find(Handle handle) const {
    const auto found = objects_.find(handle);
    return found == objects_.end() ? nullptr : found->second;
  }
  bool remove(Handle handle) { return objects_.erase(handle) != 0; }
  template <typename Predicate>
  void remove_if(const Predicate& predicate) {
    std::erase_if(objects_, [&](const auto& entry) { return predicate(*entry.second); });
  }
  void remove_of(const Context* context) {
    remove_if([&](const T& object) { return object.context == context; });
  }
  size_t size() const { return objects_.size(); }
  const std::map<Handle, std::shared_ptr<T>>& all() const { return objects_; }

 private:
  std::map<Handle, std::shared_ptr<T>> objects_;
};

using Lock = std::unique_lock<std::mutex>;

struct Driver {
  std::mutex mutex;
  bool is_initialized = false;
  Settings settings;
  Failures failures;
  std::string environment_error;  // what is wrong with the environment's settings
  std::vector<std::unique_ptr<Device>> devices;
  std::vector<std::unique_ptr<Device>> retired;  // of earlier configurations
  Handles<CUstream, Stream> streams;
  Handles<CUevent, Event> events;
  Handles<CUmodule, Module> modules;
  Handles<CUfunction, Function> functions;
  Handles<CUgraph, Graph> graphs;
  Handles<CUgraphExec, GraphExec> graph_execs;
  std::map<uintptr_t, HostRange> host_ranges;
  std::vector<std::shared_ptr<Stream>> queues;  // all streams, and destroyed ones until they are empty
  std::vector<std::shared_ptr<Capture>> captures;
  std::map<std::string, KernelCounters> counters;  // by kernel and architecture
  std::vector<std::string> faults;                 // messages
  uint64_t launches = 0;

  // The executor.
  std::condition_variable changed;  // a ticket is done
  std::condition_variable wake;     // there is work, or a thread waits for some
  bool has_executor = false, stopping = false, is_executing = false;
  int waiters = 0;
  uint64_t submitted = 0;
  std::chrono::steady_clock::time_point last_submission;
  std::mt19937_64 random;

  static Driver& get();  // never destroyed: the executor and the program's static objects may outlive main()
};

// The calls below want the mutex held.

// The context current on this thread, if it can be used: else null, and `result` says why.
Context* current_context(Driver& driver, CUresult& result);
// The device of an ordinal or context handle, or null.
Device* find_device(Driver& driver, CUdevice ordinal);
Device* find_device(Driver& driver, CUcontext context);
// A sticky error of the context with a message on stderr.
void fail_context(Driver& driver, Context& context, CUresult code, const std::string& message);
void create_devices(Driver& driver);
// Makes a primary context usable, with a fresh machine.
void activate(Driver& driver, Context& context);
void record_fault(Driver& driver, const std::string& message);
// The stream of a handle within the context, or null. 0 and 1 name the legacy stream.
std::shared_ptr<Stream> find_stream(Driver& driver, Context& context, CUstream handle);
// Drops all that belongs to the context, after waiting for what runs.
void tear_down(Driver& driver, Context& context, Lock& lock);

// Submits work to a stream; while the stream is captured, adds a node instead and gives a null ticket.
CUresult submit(Driver& driver, Stream& stream, Work work, TicketPtr* ticket = nullptr);
void wait_for(Driver& driver, const TicketPtr& ticket, Lock& lock);
// Waits for all work of the context that has been submitted.
void wait_for_context(Driver& driver, Context& context, Lock& lock);
bool is_idle(const Driver& driver, const Context& context);
void start_executor(Driver& driver);  // once
uint64_t hash_bytes(const void* data, size_t bytes);
// Lets what is submitted to the stream from now wait for the ticket.
void submit_wait(Driver& driver, Stream& stream, const TicketPtr& ticket);
TicketPtr submit_graph(Driver& driver, Stream& stream, GraphExec& exec);
// Whether this thread runs a host function of a stream just now.
bool is_in_host_function();

// "9.0" after a directive of a PTX text -> 90; 0 if there is no such directive. `skip`: characters before the
// number.
int number_after(const std::string& text, const char* directive, const char* skip);

// While a capture that concerns this thread is on, calls that would synchronize are refused and end it.
CUresult refuse_in_capture(Driver& driver);

// Runs body(driver, context, lock) with the mutex held in the thread's current context.
template <typename Body>
CUresult in_context(Body&& body) {
  Driver& driver = Driver::get();
  Lock lock(driver.mutex);
  CUresult result = CUDA_SUCCESS;
  Context* context = current_context(driver, result);
  return context ? body(driver, *context, lock) : result;
}

}  // namespace bitloom::cuda_emulation
