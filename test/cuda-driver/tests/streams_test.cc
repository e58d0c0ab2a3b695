// The order of work in and across streams, events, host functions.
#include <atomic>
#include <thread>

#include "harness.h"

namespace bitloom::cuda_emulation::testing {
namespace {

struct Streams {
  CUstream a = nullptr, b = nullptr;
  CUdeviceptr data = 0;
  explicit Streams(unsigned int flags) {
    ok(cuStreamCreate(&a, flags), "stream a");
    ok(cuStreamCreateWithPriority(&b, flags, -1), "stream b");
    ok(cuMemAlloc_v2(&data, 64), "allocate");
    ok(cuMemsetD8_v2(data, 0, 64), "fill");
    ok(cuCtxSynchronize(), "synchronize");
  }
  void close() {
    ok(cuStreamDestroy_v2(a), "destroy a");
    ok(cuStreamDestroy_v2(b), "destroy b");
    ok(cuMemFree_v2(data), "free");
  }
};

// Work of two streams without an order between them: both orders happen. With an event: one.
void test_order() {
  int unordered_changes = 0, ordered_changes = 0;
  for (int seed = 1; seed <= 12; ++seed) {
    Session session("delay=1000000,seed=" + std::to_string(seed));
    Streams streams(CU_STREAM_NON_BLOCKING);
    CUevent event;
    ok(cuEventCreate(&event, CU_EVENT_DISABLE_TIMING), "event");
    ok(cuMemsetD8Async(streams.data, 1, 4, streams.a), "fill in a");
    ok(cuMemsetD8Async(streams.data, 2, 4, streams.b), "fill in b");
    ok(cuCtxSynchronize(), "synchronize");
    unordered_changes += download(streams.data, 1)[0] == 0x01010101;
    ok(cuMemsetD8Async(streams.data, 3, 4, streams.a), "fill in a");
    ok(cuEventRecord(event, streams.a), "record");
    ok(cuStreamWaitEvent(streams.b, event, 0), "wait");
    ok(cuMemsetD8Async(streams.data, 4, 4, streams.b), "fill in b");
    ok(cuStreamSynchronize(streams.b), "synchronize b");
    ordered_changes += download(streams.data, 1)[0] != 0x04040404;
    ok(cuEventDestroy_v2(event), "destroy event");
    streams.close();
  }
  check(unordered_changes > 0 && unordered_changes < 12, "a missing wait shows with some seeds");
  check(ordered_changes == 0, "events order streams");
}

void test_legacy_stream() {
  for (int seed = 1; seed <= 8; ++seed) {
    Session session("delay=1000000,seed=" + std::to_string(seed));
    Streams streams(CU_STREAM_DEFAULT);
    ok(launch_add(session, streams.data, 1, 1, streams.a), "add in a");
    ok(cuMemsetD8Async(streams.data, 2, 4, nullptr), "fill in the legacy stream");
    ok(launch_add(session, streams.data, 1, 3, streams.b), "add in b");
    check_result(cuStreamQuery(nullptr), CUDA_ERROR_NOT_READY, "query the legacy stream");
    ok(cuStreamSynchronize(nullptr), "synchronize the legacy stream");
    ok(cuStreamQuery(streams.a), "a is done too");
    check(download(streams.data, 1)[0] == 0x02020205, "blocking streams keep the legacy stream's order");
    streams.close();
  }
}

void test_events() {
  Session session("delay=1000000");
  Streams streams(CU_STREAM_NON_BLOCKING);
  CUevent start, end, untimed;
  ok(cuEventCreate(&start, CU_EVENT_DEFAULT), "event");
  ok(cuEventCreate(&end, CU_EVENT_BLOCKING_SYNC), "event");
  ok(cuEventCreate(&untimed, CU_EVENT_DISABLE_TIMING), "event");
  ok(cuEventQuery(start), "an event that was never recorded is done");
  ok(cuEventSynchronize(start), "and waited for");
  ok(cuStreamWaitEvent(streams.a, start, 0), "by streams too");
  float milliseconds = -1;
  check_result(cuEventElapsedTime(&milliseconds, start, end), CUDA_ERROR_INVALID_HANDLE, "time of no record");
  ok(cuEventRecord(start, streams.a), "record");
  ok(launch_add(session, streams.data, 16, 1, streams.a), "add");
  ok(cuEventRecord(end, streams.a), "record");
  ok(cuEventRecord(untimed, streams.a), "record");
  check_result(cuStreamQuery(streams.a), CUDA_ERROR_NOT_READY, "the stream is busy");
  check_result(cuEventQuery(end), CUDA_ERROR_NOT_READY, "the event is ahead");
  check_result(cuEventElapsedTime_v2(&milliseconds, start, end), CUDA_ERROR_NOT_READY, "no time yet");
  ok(cuEventSynchronize(end), "wait");
  ok(cuEventQuery(end), "the event has come");
  ok(cuEventElapsedTime_v2(&milliseconds, start, end), "time");
  check(milliseconds >= 0 && milliseconds < 60000, "a time");
  check_result(cuEventElapsedTime(&milliseconds, start, untimed), CUDA_ERROR_INVALID_HANDLE,
               "an event without time");
  ok(cuStreamSynchronize(streams.a), "synchronize");
  ok(cuStreamQuery(streams.a), "the stream is idle");
  for (CUevent event : {start, end, untimed}) ok(cuEventDestroy_v2(event), "destroy");
  check_result(cuEventRecord(start, streams.a), CUDA_ERROR_INVALID_HANDLE, "a destroyed event");
  check_result(cuEventDestroy_v2(start), CUDA_ERROR_INVALID_HANDLE, "destroyed twice");
  // A stream may be destroyed with work on it.
  CUstream brief;
  ok(cuStreamCreate(&brief, CU_STREAM_NON_BLOCKING), "stream");
  ok(launch_add(session, streams.data, 16, 1, brief), "add");
  ok(cuStreamDestroy_v2(brief), "destroy with work");
  check_result(cuStreamSynchronize(brief), CUDA_ERROR_INVALID_HANDLE, "a destroyed stream");
  ok(cuCtxSynchronize(), "synchronize");
  check(download(streams.data, 1)[0] == 2, "its work was done");
  streams.close();
}

struct Called {
  std::atomic<int> count{0};
  CUresult inside = CUDA_SUCCESS;
  std::thread::id thread;
};

void on_stream(void* user_data) {
  Called& called = *static_cast<Called*>(user_data);
  CUdeviceptr memory;
  called.inside = cuMemAlloc_v2(&memory, 16);
  called.thread = std::this_thread::get_id();
  ++called.count;
}

void test_host_functions() {
  Session session("delay=1000000");
  Streams streams(CU_STREAM_NON_BLOCKING);
  Called called;
  ok(launch_add(session, streams.data, 16, 1, streams.a), "add");
  ok(cuLaunchHostFunc(streams.a, on_stream, &called), "host function");
  check(called.count == 0, "not called yet");
  ok(cuStreamSynchronize(streams.a), "synchronize");
  check(called.count == 1 && called.thread != std::this_thread::get_id(), "called once, by another thread");
  check(called.inside == CUDA_ERROR_NOT_PERMITTED, "no calls from within");
  check_result(cuLaunchHostFunc(streams.a, nullptr, nullptr), CUDA_ERROR_INVALID_VALUE, "no function");
  // Work goes on without anybody who waits.
  control("set delay=0");
  ok(cuLaunchHostFunc(streams.b, on_stream, &called), "host function");
  for (int i = 0; i < 2000 && called.count < 2; ++i)
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  check(called.count == 2, "called without a wait");
  streams.close();
}

struct Told {
  std::atomic<int> count{0};
  std::atomic<CUresult> error{-1};
};

void tell(CUstream, CUresult error, void* user_data) {
  Told& told = *static_cast<Told*>(user_data);
  told.error = error;
  ++told.count;
}

// Unlike host functions, callbacks hear of errors; even those of work that was dropped.
void test_callbacks() {
  Session session("delay=1000000", true);
  Streams streams(CU_STREAM_NON_BLOCKING);
  Told told;
  ok(cuStreamAddCallback(streams.a, tell, &told, 0), "callback");
  check(told.count == 0, "not called yet");
  ok(cuStreamSynchronize(streams.a), "synchronize");
  check(told.count == 1 && told.error == CUDA_SUCCESS, "called");
  check_result(cuStreamAddCallback(streams.a, nullptr, nullptr, 0), CUDA_ERROR_INVALID_VALUE, "no function");
  check_result(cuStreamAddCallback(streams.a, tell, &told, 1), CUDA_ERROR_INVALID_VALUE, "flags");
  ok(launch(session.function("trap_always"), 1, streams.a, {}), "a kernel that traps");
  ok(cuStreamAddCallback(streams.a, tell, &told, 0), "callback behind it");
  ok(cuStreamAddCallback(streams.b, tell, &told, 0), "callback elsewhere");
  check_result(cuCtxSynchronize(), CUDA_ERROR_LAUNCH_FAILED, "the trap");
  check(told.count == 3 && told.error == CUDA_ERROR_LAUNCH_FAILED, "both are told");
}

void test_threads() {
  Session session("seed=3,delay=20");
  const CUfunction add = session.function("add");
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      CUstream stream;
      CUdeviceptr data;
      bool good =
          cuCtxSetCurrent(session.context) == 0 && cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING) == 0;
      for (int i = 0; i < 20 && good; ++i) {
        uint32_t count = 8, value = static_cast<uint32_t>(i), result[8] = {};
        good = good && cuMemAllocAsync(&data, 32, stream) == 0 && cuMemsetD8Async(data, 0, 32, stream) == 0 &&
               launch(add, 32, stream, {&data, &count, &value}) == 0 &&
               cuMemcpyDtoHAsync_v2(result, data, 32, stream) == 0 && result[7] == value &&
               cuMemFreeAsync(data, stream) == 0;
      }
      good = good && cuStreamSynchronize(stream) == 0 && cuStreamDestroy_v2(stream) == 0;
      right += good;
    });
  }
  for (std::thread& thread : threads) thread.join();
  check(right == 4, "four threads on streams of their own");
}

}  // namespace

void test_streams() {
  test_order();
  test_legacy_stream();
  test_events();
  test_host_functions();
  test_callbacks();
  test_threads();
}

}  // namespace bitloom::cuda_emulation::testing
