#include "thread_pool.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <set>
#include <system_error>
#include <thread>

#include "error.h"
#include "shares.h"

namespace bitloom {

namespace {

constexpr int32_t kMaxThreads = 256;

// How long a thread polls before it sleeps. A decode step calls operators a few microseconds apart; to
// wake a sleeping thread costs about 50 microseconds here, so polling a little longer than that pays.
constexpr auto kSpin = std::chrono::microseconds(80);

void pause() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

// Polls, then sleeps, until `value` has changed in the bits of `mask`; says what it is then.
// (std::atomic::wait alone: std::condition_variable would raise the libstdc++ that a prebuilt binary needs
// from 3.4.22 to 3.4.30.)
uint32_t wait_for_change(const std::atomic<uint32_t>& value, uint32_t old, uint32_t mask) {
  const auto changed = [&](uint32_t now) { return ((now ^ old) & mask) != 0; };
  const auto deadline = std::chrono::steady_clock::now() + kSpin;
  uint32_t now = value.load(std::memory_order_acquire);
  for (int i = 0; !changed(now); ++i, now = value.load(std::memory_order_acquire)) {
    pause();
    if (i % 32 == 31 && std::chrono::steady_clock::now() > deadline) break;
  }
  for (; !changed(now); now = value.load(std::memory_order_acquire))
    value.wait(now, std::memory_order_acquire);
  return now;
}

// The calling thread goes on elsewhere, if there is another processor that it may use. A thread that is woken
// often comes to lie on the waker's processor, though others have nothing to do; the two of them then take
// turns of 80 microseconds, each polling for what the other would do.
void leave_processor(int cpu) {
  cpu_set_t allowed;
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) < 2) return;
  cpu_set_t others = allowed;
  CPU_CLR(cpu, &others);
  if (sched_setaffinity(0, sizeof(others), &others) == 0) sched_setaffinity(0, sizeof(allowed), &allowed);
}

// Cores this process may run on, hyper-threads counted once.
int32_t physical_cores() {
  cpu_set_t allowed;
  CPU_ZERO(&allowed);
  if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0) {
    return static_cast<int32_t>(std::clamp(std::thread::hardware_concurrency(), 1u, 256u));
  }
  std::set<int64_t> cores;
  for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
    if (!CPU_ISSET(cpu, &allowed)) continue;
    int64_t id[2] = {0, cpu};
    const char* const files[2] = {"physical_package_id", "core_id"};
    for (int i = 0; i < 2; ++i) {
      char path[96];
      std::snprintf(path, sizeof(path), "/sys/devices/system/cpu/cpu%d/topology/%s", cpu, files[i]);
      if (FILE* file = std::fopen(path, "re")) {
        int value = 0;
        if (std::fscanf(file, "%d", &value) == 1) id[i] = value;
        std::fclose(file);
      }
    }
    cores.insert(id[0] << 32 | id[1]);
  }
  return static_cast<int32_t>(std::clamp<size_t>(cores.size(), 1, kMaxThreads));
}

int32_t default_threads() {
  if (const char* text = std::getenv("BITLOOM_THREADS")) {
    char* end = nullptr;
    const long value = std::strtol(text, &end, 10);
    if (*end == 0 && value >= 1 && value <= kMaxThreads) return static_cast<int32_t>(value);
    std::fprintf(stderr, "bitloom: BITLOOM_THREADS is \"%s\", expected 1 to %d; ignored\n", text,
                 kMaxThreads);
  }
  return physical_cores();
}

class Pool {
 public:
  // Never destroyed: its threads may be at work when the process exits.
  static Pool& instance() {
    static Pool* pool = new Pool;
    return *pool;
  }

  int32_t size() const { return size_.load(std::memory_order_relaxed); }
  void resize(int32_t threads) {
    size_.store(threads == 0 ? default_threads() : threads, std::memory_order_relaxed);
  }

  void run(int32_t threads, int64_t count, void (*task)(void*, int64_t), void* body) {
    threads = static_cast<int32_t>(std::min<int64_t>(threads, count));
    if (threads <= 1 || count > kMaxShareTasks || busy_.test_and_set(std::memory_order_acquire)) {
      // Alone, nested, or another thread's call has the pool: the calling thread does all of it.
      for (int64_t i = 0; i < count; ++i) task(body, i);
      return;
    }
    threads = std::min(threads, start_workers(threads - 1) + 1);
    job_ = {task, body, threads};
    cut_shares(shares_, threads, count);
    caller_cpu_.store(sched_getcpu(), std::memory_order_relaxed);
    const uint32_t number = state_.load(std::memory_order_relaxed) & kNumber;
    state_.store((number + kNextNumber) | kOpen, std::memory_order_release);
    state_.notify_all();
    run_share(job_, 0);
    // Tasks that nobody has begun there are none now: who comes later has nothing to do, and is not waited
    // for.
    state_.fetch_and(~kOpen, std::memory_order_acq_rel);
    for (;;) {
      const uint32_t leavings = leavings_.load(std::memory_order_acquire);
      if ((state_.load(std::memory_order_acquire) & kWorkers) == 0) break;
      wait_for_change(leavings_, leavings, ~0u);
    }
    busy_.clear(std::memory_order_release);
  }

 private:
  struct Job {
    void (*task)(void*, int64_t);
    void* body;
    int32_t threads;
  };

  void run_share(const Job& job, int32_t thread) {
    if (thread >= job.threads) return;
    run_shares(shares_, job.threads, thread, 1, [&job](int64_t task, int64_t) { job.task(job.body, task); });
  }

  // Makes sure that `wanted` workers exist, as far as the system gives them; says how many there are.
  int32_t start_workers(int32_t wanted) {
    while (started_ < wanted) {
      try {
        std::thread(&Pool::work, this, started_ + 1, state_.load(std::memory_order_relaxed)).detach();
      } catch (const std::system_error&) {
        break;
      }
      ++started_;
    }
    return started_;
  }

  void work(int32_t thread, uint32_t state) {
    for (;;) {
      state = wait_for_change(state_, state, kNumber);
      const int cpu = caller_cpu_.load(std::memory_order_relaxed);
      if (cpu >= 0 && cpu == sched_getcpu()) leave_processor(cpu);
      if (!join(state)) continue;
      run_share(job_, thread);
      // The last one to leave a closed job: its caller may sleep.
      if ((state_.fetch_sub(1, std::memory_order_acq_rel) & (kOpen | kWorkers)) != 1) continue;
      leavings_.fetch_add(1, std::memory_order_release);
      leavings_.notify_one();
    }
  }

  // Joins the job of this state, or whatever one is open by now; false if there is none.
  bool join(uint32_t& state) {
    while ((state & kOpen) != 0) {
      if (state_.compare_exchange_weak(state, state + 1, std::memory_order_acq_rel,
                                       std::memory_order_acquire))
        return true;
    }
    return false;
  }

  std::atomic<int32_t> size_{default_threads()};
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;  // held by the call that owns the members below
  int32_t started_ = 0;
  Job job_{};
  Share shares_[kMaxThreads];
  // The current job in one word, so that who joins it knows that job_ and shares_ are its: how many workers
  // are at it, whether more may come, and its number.
  static constexpr uint32_t kWorkers = 0x1ff, kOpen = 0x200, kNextNumber = 0x400, kNumber = ~0x3ffu;
  std::atomic<uint32_t> state_{0};
  std::atomic<uint32_t> leavings_{0};  // counts jobs whose caller may have waited for workers
  std::atomic<int> caller_cpu_{-1};    // where the current job's caller was
};

}  // namespace

int32_t thread_count(const bl_run& run) { return run.threads > 0 ? run.threads : Pool::instance().size(); }

void run_tasks(const bl_run& run, int64_t count, void (*task)(void*, int64_t), void* body) {
  if (run.executor != nullptr) {
    run.executor(run.executor_context, task, body, count);
  } else {
    Pool::instance().run(thread_count(run), count, task, body);
  }
}

}  // namespace bitloom

extern "C" {

int32_t bl_threads(void) { return bitloom::Pool::instance().size(); }

bl_status bl_set_threads(int32_t threads, bl_error* error) {
  BL_CHECK(threads >= 0 && threads <= bitloom::kMaxThreads, invalid_argument,
           "set_threads: threads is %d, expected 0 to %d", threads, bitloom::kMaxThreads);
  bitloom::Pool::instance().resize(threads);
  return BL_STATUS_ok;
}

}  // extern "C"
