// Capture into graphs and their launches.
#include <thread>

#include "harness.h"

namespace bitloom::cuda_emulation::testing {
namespace {

void count_call(void* user_data) { ++*static_cast<int*>(user_data); }

void test_replay(Session& session, CUstream a, CUstream b, CUdeviceptr data) {
  CUgraph graph = nullptr;
  CUgraphExec exec = nullptr;
  CUevent fork, join;
  int status = -1, calls = 0;
  uint32_t* pinned = nullptr;
  ok(cuMemHostAlloc(reinterpret_cast<void**>(&pinned), 64, 0), "pinned");
  ok(cuEventCreate(&fork, CU_EVENT_DISABLE_TIMING), "event");
  ok(cuEventCreate(&join, CU_EVENT_DISABLE_TIMING), "event");
  ok(cuMemsetD8_v2(data, 0, 64), "fill");
  ok(cuStreamIsCapturing(a, &status), "capturing?");
  check(status == CU_STREAM_CAPTURE_STATUS_NONE, "not yet");
  ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "begin");
  check_result(cuStreamBeginCapture_v2(a, 0), CUDA_ERROR_ILLEGAL_STATE, "begin twice");
  ok(cuMemcpyHtoDAsync_v2(data, pinned, 4, a), "upload");
  ok(launch_add(session, data, 1, 5, a), "add");
  ok(cuEventRecord(fork, a), "fork");
  ok(cuStreamWaitEvent(b, fork, 0), "b joins");
  ok(cuStreamIsCapturing(b, &status), "capturing?");
  check(status == CU_STREAM_CAPTURE_STATUS_ACTIVE, "b is captured too");
  ok(cuMemcpyDtoDAsync_v2(data + 16, data, 4, b), "copy in b");
  ok(cuMemsetD8Async(data + 32, 3, 4, a), "fill in a");
  ok(cuEventRecord(join, b), "join");
  ok(cuStreamWaitEvent(a, join, 0), "a waits");
  ok(launch_add(session, data + 16, 5, 1, a), "add to all");
  ok(cuLaunchHostFunc(a, count_call, &calls), "host function");
  ok(cuStreamEndCapture(a, &graph), "end");
  ok(cuStreamIsCapturing(b, &status), "capturing?");
  check(status == CU_STREAM_CAPTURE_STATUS_NONE, "b is free again");
  check(calls == 0, "nothing has run");
  ok(cuGraphInstantiateWithFlags(&exec, graph, 0), "instantiate");
  ok(cuGraphDestroy(graph), "destroy the graph");
  for (uint32_t i = 0; i < 3; ++i) {
    pinned[0] = 100 * i;  // read at every launch
    ok(cuGraphLaunch(exec, i == 2 ? b : a), "launch");
    ok(cuCtxSynchronize(), "synchronize");
    const std::vector<uint32_t> got = download(data, 16);
    check(got[0] == 100 * i + 5 && got[4] == 100 * i + 6 && got[8] == 0x03030304, "what the graph computes");
  }
  check(calls == 3, "its host function");
  ok(cuGraphLaunch(exec, a), "launch");
  ok(cuGraphLaunch(exec, b), "launch again, elsewhere");
  ok(cuGraphExecDestroy(exec), "destroy while it runs");
  ok(cuCtxSynchronize(), "synchronize");
  check(calls == 5, "both have run");
  check_result(cuGraphLaunch(exec, a), CUDA_ERROR_INVALID_HANDLE, "a destroyed instance");
  check_result(cuGraphDestroy(graph), CUDA_ERROR_INVALID_HANDLE, "destroyed twice");
  check_result(cuGraphExecDestroy(exec), CUDA_ERROR_INVALID_HANDLE, "destroyed twice");
  check_result(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_ERROR_INVALID_VALUE, "a destroyed graph");
  ok(cuEventDestroy_v2(fork), "destroy");
  ok(cuEventDestroy_v2(join), "destroy");
  ok(cuMemFreeHost(pinned), "free");
}

void test_refusals(Session& session, CUstream a, CUstream b, CUdeviceptr data) {
  CUgraph graph = nullptr;
  CUdeviceptr memory = 0;
  CUevent event;
  ok(cuEventCreate(&event, 0), "event");
  check_result(cuStreamEndCapture(a, &graph), CUDA_ERROR_ILLEGAL_STATE, "end without begin");
  check_result(cuStreamBeginCapture_v2(nullptr, 0), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
               "the legacy stream");

  const auto invalidates = [&](const char* what, CUresult expected, auto call) {
    ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL), "begin");
    ok(cuMemsetD8Async(data, 1, 4, a), "fill");
    check_result(call(), expected, what);
    check_result(cuMemsetD8Async(data, 1, 4, a), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 std::string(what) + ", then a fill");
    check_result(cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
                 std::string(what) + ", then the end");
    check(!graph, "no graph");
  };
  invalidates("synchronize", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuStreamSynchronize(a); });
  invalidates("query", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuStreamQuery(a); });
  invalidates("synchronize all", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuCtxSynchronize(); });
  invalidates("allocate", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, [&] { return cuMemAlloc_v2(&memory, 16); });
  invalidates("copy", CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
              [&] { return cuMemcpyDtoD_v2(data, data + 16, 4); });
  invalidates("legacy stream", CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
              [&] { return cuMemsetD8Async(data, 1, 4, nullptr); });
  invalidates("query a captured event", CUDA_ERROR_CAPTURED_EVENT, [&] {
    ok(cuEventRecord(event, a), "record");
    return cuEventQuery(event);
  });
  invalidates("end on another stream", CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, [&] {
    ok(cuEventRecord(event, a), "record");
    ok(cuStreamWaitEvent(b, event, 0), "b joins");
    return cuStreamEndCapture(b, &graph);
  });
  invalidates("wait for what is outside", CUDA_ERROR_STREAM_CAPTURE_ISOLATION, [&] {
    ok(cuEventRecord(event, b), "record");
    return cuStreamWaitEvent(a, event, 0);
  });

  ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_GLOBAL), "begin");
  ok(cuEventRecord(event, a), "record");
  ok(cuStreamWaitEvent(b, event, 0), "b joins");
  ok(cuMemsetD8Async(data, 1, 4, b), "fill in b");
  check_result(cuStreamEndCapture(a, &graph), CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "b was not joined");

  ok(cuStreamBeginCapture_v2(a, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL), "begin");
  std::thread([&] {
    CUgraph none = nullptr;
    ok(cuCtxSetCurrent(session.context), "set current");
    ok(cuMemAlloc_v2(&memory, 16), "another thread may allocate");
    check_result(cuStreamEndCapture(a, &none), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
                 "another thread may not end");
  }).join();
  ok(cuStreamEndCapture(a, &graph), "end of an empty capture");
  CUgraphExec exec = nullptr;
  ok(cuGraphInstantiateWithFlags(&exec, graph, 0), "instantiate");
  ok(cuGraphLaunch(exec, a), "launch of nothing");
  ok(cuStreamSynchronize(a), "synchronize");
  ok(cuGraphExecDestroy(exec), "destroy");
  ok(cuGraphDestroy(graph), "destroy");
  ok(cuMemFree_v2(memory), "free");
  ok(cuEventDestroy_v2(event), "destroy");
}

}  // namespace

void test_graphs() {
  for (int seed : {0, 1, 2}) {
    Session session("delay=50,seed=" + std::to_string(seed));
    CUstream a, b;
    CUdeviceptr data = 0;
    ok(cuStreamCreate(&a, CU_STREAM_DEFAULT), "stream a");
    ok(cuStreamCreate(&b, CU_STREAM_NON_BLOCKING), "stream b");
    ok(cuMemAlloc_v2(&data, 64), "allocate");
    session.function("add");  // loaded before the captures
    test_replay(session, a, b, data);
    test_refusals(session, a, b, data);
    ok(cuMemFree_v2(data), "free");
    ok(cuStreamDestroy_v2(a), "destroy");
    ok(cuStreamDestroy_v2(b), "destroy");
  }
}

}  // namespace bitloom::cuda_emulation::testing
