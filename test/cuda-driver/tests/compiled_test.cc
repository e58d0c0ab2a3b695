// Kernels as nvcc compiled them, by way of the driver; needs nvcc at build time.
#include <cstdio>
#include <fstream>
#include <sstream>

#include "harness.h"

namespace bitloom::cuda_emulation::testing {

void test_compiled_kernels() {
#ifdef BITLOOM_PTX_KERNELS
  for (const std::string arch : {"80", "120"}) {
    std::ifstream file(std::string(BITLOOM_PTX_KERNELS) + "/vector_add.compute_" + arch + ".ptx");
    std::stringstream text;
    text << file.rdbuf();
    check(!text.str().empty(), "the PTX of vector_add is there");
    for (const char* settings : {"mma=8", "delivery=early,seed=4", "checks=0,delivery=late"}) {
      Session session("arch=" + arch + "," + settings);
      ok(cuModuleLoadData(&session.module, text.str().c_str()), "load");
      CUfunction function = nullptr;
      ok(cuModuleGetFunction(&function, session.module, "vector_add"), "get");
      int count = 1000;
      std::vector<float> a(1000), b(1000), c(1000);
      for (size_t i = 0; i < 1000; ++i)
        a[i] = static_cast<float>(i) * 0.5f, b[i] = 3 - static_cast<float>(i * i);
      CUdeviceptr on_a = 0, on_b = 0, on_c = 0;
      for (CUdeviceptr* memory : {&on_a, &on_b, &on_c}) ok(cuMemAlloc_v2(memory, 4000), "allocate");
      ok(cuMemcpyHtoD_v2(on_a, a.data(), 4000), "upload");
      ok(cuMemcpyHtoD_v2(on_b, b.data(), 4000), "upload");
      ok(launch(function, 128, nullptr, {&on_a, &on_b, &on_c, &count}, 0, 8), "launch");
      ok(cuMemcpyDtoH_v2(c.data(), on_c, 4000), "download");
      bool right = true;
      for (size_t i = 0; i < 1000; ++i) right = right && c[i] == a[i] + b[i];
      check(right, "vector_add of compute_" + arch + ", " + settings);
      for (CUdeviceptr memory : {on_a, on_b, on_c}) ok(cuMemFree_v2(memory), "free");
    }
  }
#else
  std::puts("built without nvcc: no compiled kernels");
#endif
}

}  // namespace bitloom::cuda_emulation::testing
