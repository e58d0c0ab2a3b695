#include "harness.h"

#include <cstdio>

namespace bitloom::cuda_emulation::testing {
namespace {
int passed = 0, failed = 0;
}

void check(bool condition, const std::string& what) {
  ++(condition ? passed : failed);
  if (!condition) std::printf("FAILED: %s\n", what.c_str());
}

void check_result(CUresult result, CUresult expected, const std::string& what) {
  check(result == expected,
        what + ": gave " + std::to_string(result) + ", expected " + std::to_string(expected));
}

std::string control(const std::string& command) { return bitloom_cuda_emulation_control(command.c_str()); }

void check_fault(const std::vector<std::string>& parts, const std::string& what) {
  const std::string faults = control("faults");
  for (const std::string& part : parts)
    check(faults.find(part) != std::string::npos, what + ": a fault names '" + part + "' in " + faults);
}

int finish() {
  std::printf("%d passed, %d failed\n", passed, failed);
  std::fflush(stdout);
  return failed == 0 ? 0 : 1;
}

Session::Session(const std::string& settings, bool allow_leaks) : allow_leaks_(allow_leaks) {
  check(control("restart " + settings) == "ok", "restart " + settings);
  ok(cuInit(0), "cuInit");
  ok(cuDevicePrimaryCtxRetain(&context, 0), "retain");
  ok(cuCtxSetCurrent(context), "set current");
}

Session::~Session() {
  if (module && !allow_leaks_) ok(cuModuleUnload(module), "unload");
  if (!allow_leaks_) {
    check(control("live") ==
              "{\"allocations\":0,\"bytes\":0,\"pinned\":0,\"streams\":0,\"events\":0,\"modules\":0,"
              "\"graphs\":0,"
              "\"graphExecs\":0,\"contexts\":1}",
          "nothing is left alive: " + control("live"));
  }
  ok(cuCtxSetCurrent(nullptr), "set no context");
  ok(cuDevicePrimaryCtxRelease_v2(0), "release");
}

CUfunction Session::function(const char* name) {
  if (!module) ok(cuModuleLoadData(&module, test_kernels()), "load the test kernels");
  CUfunction found = nullptr;
  ok(cuModuleGetFunction(&found, module, name), std::string("get ") + name);
  return found;
}

CUresult launch(CUfunction function, unsigned int threads, CUstream stream, std::vector<void*> parameters,
                unsigned int shared_bytes, unsigned int blocks) {
  return cuLaunchKernel(function, blocks, 1, 1, threads, 1, 1, shared_bytes, stream, parameters.data(),
                        nullptr);
}

CUresult launch_add(Session& session, CUdeviceptr data, uint32_t count, uint32_t value, CUstream stream) {
  return launch(session.function("add"), 64, stream, {&data, &count, &value}, 0, (count + 63) / 64);
}

std::vector<uint32_t> download(CUdeviceptr data, size_t count) {
  std::vector<uint32_t> values(count);
  ok(cuMemcpyDtoH_v2(values.data(), data, count * 4), "download");
  return values;
}

const char* test_kernels() {
  return R"(
.version 8.0
.target sm_80
.address_size 64
.visible .entry add(.param .u64 p0, .param .u32 p1, .param .u32 p2) {
  .reg .b64 %d<4>; .reg .b32 %r<8>; .reg .pred %p<2>;
  ld.param.u64 %d0, [p0]; ld.param.u32 %r0, [p1]; ld.param.u32 %r1, [p2];
  mov.u32 %r2, %ctaid.x; mov.u32 %r3, %ntid.x; mov.u32 %r4, %tid.x;
  mad.lo.s32 %r5, %r2, %r3, %r4;
  setp.ge.u32 %p0, %r5, %r0;
  @%p0 bra done;
  mul.wide.u32 %d1, %r5, 4;
  add.s64 %d2, %d0, %d1;
  ld.global.u32 %r6, [%d2];
  add.s32 %r6, %r6, %r1;
  st.global.u32 [%d2], %r6;
done:
  ret;
}
.visible .entry copy(.param .align 8 .b8 p0[24]) {
  .reg .b64 %d<6>; .reg .b32 %r<8>; .reg .pred %p<2>;
  ld.param.u64 %d0, [p0]; ld.param.u64 %d1, [p0+8]; ld.param.u32 %r0, [p0+16];
  mov.u32 %r1, %tid.x;
  setp.ge.u32 %p0, %r1, %r0;
  @%p0 bra done;
  mul.wide.u32 %d2, %r1, 4;
  add.s64 %d3, %d0, %d2;
  add.s64 %d4, %d1, %d2;
  ld.global.u32 %r2, [%d3];
  st.global.u32 [%d4], %r2;
done:
  ret;
}
.visible .entry overrun(.param .u64 p0, .param .u32 p1) {
  .reg .b64 %d<4>; .reg .b32 %r<4>;
  ld.param.u64 %d0, [p0]; ld.param.u32 %r0, [p1];
  mul.wide.u32 %d1, %r0, 4;
  add.s64 %d2, %d0, %d1;
  st.global.u32 [%d2], %r0;
  ret;
}
.visible .entry misaligned(.param .u64 p0) {
  .reg .b64 %d<2>; .reg .b32 %r<2>;
  ld.param.u64 %d0, [p0];
  mov.u32 %r0, 1;
  st.global.u32 [%d0+2], %r0;
  ret;
}
.visible .entry racy(.param .u64 p0) {
  .reg .b64 %d<2>; .reg .b32 %r<2>;
  ld.param.u64 %d0, [p0];
  mov.u32 %r0, %tid.x;
  st.global.u32 [%d0], %r0;
  ret;
}
.visible .entry trap_always() {
  trap;
  ret;
}
.visible .entry unknown_opcode() {
  frobnicate.u32 5;
  ret;
}
.visible .entry spin() {
again:
  bra again;
}
.extern .shared .align 16 .b8 buffer[];
.visible .entry shared(.param .u64 p0) {
  .reg .b64 %d<4>; .reg .b32 %r<8>;
  ld.param.u64 %d0, [p0];
  mov.u32 %r0, %tid.x; mov.u32 %r1, %ntid.x;
  mov.u32 %r2, buffer;
  shl.b32 %r3, %r0, 2;
  add.s32 %r4, %r2, %r3;
  st.shared.u32 [%r4], %r0;
  bar.sync 0;
  sub.s32 %r5, %r1, %r0;
  add.s32 %r5, %r5, -1;
  shl.b32 %r5, %r5, 2;
  add.s32 %r5, %r2, %r5;
  ld.shared.u32 %r6, [%r5];
  mul.wide.u32 %d1, %r0, 4;
  add.s64 %d2, %d0, %d1;
  st.global.u32 [%d2], %r6;
  ret;
}
)";
}

}  // namespace bitloom::cuda_emulation::testing
