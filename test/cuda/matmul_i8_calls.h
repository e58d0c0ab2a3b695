// What the tests of int8 products share: the same call on the device and by the scalar kernel.
#pragma once

#include "cuda/ops/matmul/config_i8.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {

// How activations become codes.
struct Rounded {
  int32_t group = BL_ACTIVATION_GROUP_auto, bits = 8, type = BL_DTYPE_f32;
};

inline void set_compute(Call& call, const Rounded& rounded) {
  for (bl_matmul_args* args : {&call.device, &call.host}) {
    args->compute = BL_COMPUTE_i8;
    args->activation_group = rounded.group;
    args->activation_bits = rounded.bits;
  }
  call.host.run.isa = BL_ISA_scalar;
  call.host.algorithm = BL_ALGORITHM_dequant;
}

inline const std::string& launched(Call& call) {
  static const std::string kNone = "nothing";
  for (const Launched& launch : call.queue.launches) {
    if (launch.kernel.find("prompt") != std::string::npos ||
        launch.kernel.find("stream") != std::string::npos)
      return launch.kernel;
  }
  return kNone;
}

// a b^T by both; equal but for what `bound` times K allows; by a kernel whose name begins so.
inline void compare_integers(const Settings& settings, const char* format, int64_t m, int64_t n, int64_t k,
                             const std::string& kernel, double bound, const Rounded& rounded = {}) {
  const std::string what = "i8 " + shape_name(format, m, n, k) + " " + kernel;
  Call call(settings, format, n, k);
  set_compute(call, rounded);
  Tensor a(call.queue, rounded.type, {m, k}), c(call.queue, BL_DTYPE_f32, {m, n});
  a.uniform(static_cast<uint64_t>(m + 5));
  call.set(&bl_matmul_args::a, a);
  call.compare(c, bound * static_cast<double>(k), what);
  check(launched(call).rfind(kernel, 0) == 0, what + ": " + launched(call));
}

inline Settings one_multiprocessor() {  // no splits of K
  Settings settings;
  settings.multiprocessors = 1;
  return settings;
}

// Sums of f32 in another order, of products of at most 1.
constexpr double kReordered = 0x1p-21;

}  // namespace bitloom::cuda::testing
