// matmul: more splits of K than the loops over them are unrolled by, and tables that are too many for shared
// memory.
#include "matmul_i8_calls.h"

namespace bitloom::cuda::testing {
namespace {

// 31 splits of 8 units: a turn of 16, and a rest of every kind.
void many_splits(const Settings& settings, const char* format, int32_t compute, int64_t m, bool gated) {
  constexpr int64_t n = 20, k = 31 * 8 * 64;
  Call call(settings, format, n, k);
  if (compute == BL_COMPUTE_i8) set_compute(call, {BL_ACTIVATION_GROUP_row});
  Tensor a(call.queue, BL_DTYPE_f16, {m, k}), c(call.queue, BL_DTYPE_f32, {m, gated ? n / 2 : n});
  a.uniform(1, 0.1f);
  call.set(&bl_matmul_args::a, a);
  if (gated) call.device.activation = call.host.activation = BL_ACTIVATION_swiglu;
  const std::string what = shape_name(format, m, n, k) + " in many splits" + (gated ? ", gated" : "");
  // Products of at most 0.1, of f16 or of codes that are off by 2^-8 of the largest.
  call.compare(c, (gated ? 20 : 1) * 0.1 * 0x1p-9 * std::sqrt(static_cast<double>(k)), what);
  check(call.queue.launches.front().shape.grid.y == 31 || call.queue.launches[1].shape.grid.y == 31,
        what + ": other splits");
}

// A table for every 32 weights, of more than a kernel keeps: f16 fragments in scratch.
void tables_in_scratch(const Settings& settings) {
  for (const auto& [format, tables] : {std::pair{"cbs2_g32", 17}, {"cbs3_g64", 5}, {"cbs4_g32_bf16", 6}}) {
    Call call(settings, format, 20, 128, tables);
    Tensor a(call.queue, BL_DTYPE_f16, {3, 128}), c(call.queue, BL_DTYPE_f32, {3, 20});
    a.uniform(1);
    call.set(&bl_matmul_args::a, a);
    call.compare(c, 0.05, std::string(format) + " with tables in scratch");
    check(call.queue.launches.front().kernel == "matmul_unpack", std::string(format) + ": tables in scratch");
  }
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_many_splits) {
  for (const Settings& settings : all_archs()) {
    for (bool gated : {false, true}) many_splits(settings, "u4_g128", BL_COMPUTE_f32, 2, gated);
    for (const char* format : {"u4_row", "i8z_row", "i8z_row_bf16"})
      many_splits(settings, format, BL_COMPUTE_i8, 2, false);
    tables_in_scratch(settings);
  }
}

}  // namespace bitloom::cuda::testing
