#include "harness.h"
namespace bitloom::cuda_emulation::testing {
void test_modules() {}
void test_launches() {
  Session s;
  CUdeviceptr d;
  ok(cuMemAlloc_v2(&d, 400), "alloc");
  ok(cuMemsetD8_v2(d, 0, 400), "set");
  ok(launch_add(s, d, 100, 5, nullptr), "launch");
  auto v = download(d, 100);
  check(v[0] == 5 && v[99] == 5, "added");
  ok(cuMemFree_v2(d), "free");
}
void test_streams() {}
void test_graphs() {}
void test_faults() {}
void test_failures() {}
void test_compiled_kernels() {}
}  // namespace bitloom::cuda_emulation::testing
