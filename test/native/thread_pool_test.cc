// The pool under the thread sanitizer: every task runs exactly once and is visible to the caller afterwards,
// whatever the sizes, callers and nesting. Prints "N passed, N failed".
#include "../../native/base/thread_pool.h"

#include <sched.h>

#include <atomic>
#include <cstdint>
#include <cstdio>
#include <thread>
#include <vector>

namespace {

int passed = 0;
int failed = 0;

void check(bool condition, const char* what) {
  if (condition) {
    ++passed;
  } else {
    ++failed;
    std::fprintf(stderr, "FAILED: %s\n", what);
  }
}

bl_run with_threads(int32_t threads) {
  bl_run run{};
  run.isa = BL_ISA_default;
  run.threads = threads;
  return run;
}

// Plain (not atomic) counters: a task that ran twice, or whose writes the caller can not see yet, is a data
// race that the sanitizer reports.
bool each_once(const bl_run& run, int64_t count) {
  std::vector<int> runs(static_cast<size_t>(count), 0);
  bitloom::parallel_for(run, count, [&](int64_t i) { ++runs[static_cast<size_t>(i)]; });
  for (int value : runs) {
    if (value != 1) return false;
  }
  return true;
}

void test_sizes() {
  bool all = true;
  for (int32_t threads : {1, 2, 3, 7, 16}) {
    for (int64_t count : {0, 1, 2, 3, 7, 8, 100, 1000}) all = all && each_once(with_threads(threads), count);
  }
  check(all, "each task runs once for all thread counts and sizes");
}

void test_many_small_jobs() {
  bool all = true;
  for (int i = 0; i < 3000; ++i) all = all && each_once(with_threads(2 + i % 3), 8);
  check(all, "jobs one after another");
}

void test_sleeping_workers() {
  bool all = true;
  for (int i = 0; i < 20; ++i) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));  // workers stop polling after 80 microseconds
    all = all && each_once(with_threads(4), 64);
  }
  check(all, "workers wake from sleep");
}

cpu_set_t processors() {
  cpu_set_t set;
  CPU_ZERO(&set);
  sched_getaffinity(0, sizeof(set), &set);
  return set;
}

// A worker that finds itself on its caller's processor goes elsewhere, and may use all of them afterwards.
void test_processors() {
  const cpu_set_t all = processors();
  cpu_set_t one;
  CPU_ZERO(&one);
  CPU_SET(sched_getcpu(), &one);
  std::atomic<int> bad{0};
  for (int i = 0; i < 60; ++i) {
    if (i % 3 == 0) std::this_thread::sleep_for(std::chrono::microseconds(300));
    if (i == 20) sched_setaffinity(0, sizeof(one), &one);  // of the caller alone
    if (i == 40) sched_setaffinity(0, sizeof(all), &all);
    const std::thread::id caller = std::this_thread::get_id();
    bitloom::parallel_for(with_threads(4), 64, [&](int64_t) {
      const cpu_set_t now = processors();
      if (std::this_thread::get_id() != caller && !CPU_EQUAL(&now, &all)) ++bad;
    });
  }
  check(bad == 0, "workers may use every processor");
}

void test_concurrent_callers() {
  std::atomic<int> good{0};
  std::vector<std::thread> callers;
  for (int caller = 0; caller < 4; ++caller) {
    callers.emplace_back([&good, caller] {
      bool all = true;
      for (int i = 0; i < 300; ++i) all = all && each_once(with_threads(1 + (caller + i) % 4), 33);
      if (all) ++good;
    });
  }
  for (std::thread& caller : callers) caller.join();
  check(good == 4, "four callers at once");
}

void test_nested() {
  std::vector<int64_t> sums(16, 0);
  bitloom::parallel_for(with_threads(4), 16, [&](int64_t i) {
    int64_t parts[8] = {};
    bitloom::parallel_for(with_threads(4), 8, [&](int64_t j) { parts[j] = i * j; });
    for (int64_t part : parts) sums[static_cast<size_t>(i)] += part;
  });
  bool all = true;
  for (int64_t i = 0; i < 16; ++i) all = all && sums[static_cast<size_t>(i)] == i * 28;
  check(all, "a task may start tasks");
}

void test_resize() {
  bl_error error{};
  bool all = true;
  std::thread resizer([] {
    for (int32_t i = 0; i < 200; ++i) bl_set_threads(1 + i % 5, nullptr);
  });
  for (int i = 0; i < 200; ++i) all = all && each_once(with_threads(0), 40);
  resizer.join();
  check(all, "the size may change while calls run");
  check(bl_set_threads(257, &error) == BL_STATUS_invalid_argument, "257 threads are refused");
  check(bl_set_threads(0, &error) == BL_STATUS_ok, "0 threads mean the default");
  check(bl_threads() >= 1, "the default is at least one thread");
}

void test_executor() {
  int calls = 0;
  bl_run run = with_threads(4);
  run.executor = [](void* context, void (*task)(void*, int64_t), void* argument, int64_t count) {
    ++*static_cast<int*>(context);
    for (int64_t i = count; i-- > 0;) task(argument, i);
  };
  run.executor_context = &calls;
  check(each_once(run, 50) && calls == 1, "the caller's executor is used instead");
}

}  // namespace

int main() {
  test_sizes();
  test_many_small_jobs();
  test_sleeping_workers();
  test_processors();
  test_concurrent_callers();
  test_nested();
  test_resize();
  test_executor();
  std::printf("%d passed, %d failed\n", passed, failed);
  return failed == 0 ? 0 : 1;
}
