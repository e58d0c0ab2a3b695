// matmul of int8 and e4m3: every kernel with every kind of scales, counts of units around what a lane has under way, and
// everything that may follow the product, so that every instruction runs. Small shapes: other tests are about values.
#include "matmul_i8_calls.h"

namespace bitloom::cuda::testing {
namespace {

struct Way {
  int32_t compute, group;
  const char* formats[40];
};
// Formats of each kernel; groups of 32, of 64 and more, and rows; scales of every type.
constexpr Way kWays[] = {
    {BL_COMPUTE_i8, BL_ACTIVATION_GROUP_32,
     {"u4_g32",   "q4_0",      "u4_g64_bf16", "u4_row",  "u8_g32",  "q8_0",     "i8_row",  "mxint8_g32", "bfp4_g32", "bfp8_g64",
      "u1_g32",   "u1_g64",    "u1z_g32",     "i1_g64",  "u2_g32",  "u2_g64",   "i2z_g32",    "t2_g128",  "tq2_0",
      "u3_g32",   "u3_g64",    "i3z_row",     "u4z_g32", "u4z_g128", "q4_1",    "q4_k",       "u5_g64",   "u5z_g128",
      "q5_k",     "q5_1",      "u6_g128",     "i6z_g32", "u7_g256", "i7z_row",  "u8z_g64", "i8z_g128",   "u7_g32",   "u5_g32"}},
    {BL_COMPUTE_i8, BL_ACTIVATION_GROUP_row,
     {"u4_g128", "i4_g128_bf16", "u8_g128", "i8_g256_bf16", "u4z_g128", "i8z_g256", "u8z_g128", "u4_row", "u4_row_bf16", "i8_row",
      "i8_row_bf16", "u4z_row", "i4z_row", "u8z_row", "i8z_row"}},
    {BL_COMPUTE_e4m3, BL_ACTIVATION_GROUP_32,
     {"u4_g32", "i4_g64_bf16", "q4_0", "u4_row", "i4_g128", "mxfp4", "e2m1_g128", "e2m3_g32", "e3m2_g64", "e3m2_g128", "e4m3_g32",
      "e4m3_g128", "mxfp6_e2m3", "mxfp8_e4m3"}},
    {BL_COMPUTE_e4m3, BL_ACTIVATION_GROUP_row,
     {"u4_g32", "i4_g64_bf16", "q4_0", "u4_row", "i4_g128", "mxfp4", "e2m1_g128", "e2m3_g32", "e3m2_g64", "e3m2_g128", "e4m3_g32",
      "e4m3_g128", "mxfp6_e2m3", "mxfp8_e4m3"}},
};

// The i-th of a row of calls that differ in what a is and in everything that follows the product.
void call_once(const Settings& settings, const Way& way, const char* format, int64_t m, int64_t n, int64_t k, int32_t i) {
  Call call(settings, format, n, k);
  TestQueue& queue = call.queue;
  set_compute(call, {way.group});
  call.device.compute = call.host.compute = way.compute;
  const int32_t type = kFloatDtypes[i % 3];
  Tensor a(queue, kFloatDtypes[(i + i / 3) % 3], {m, k}), c(queue, type, {m, n});
  Tensor bias(queue, BL_DTYPE_f32, {n}), row_scale(queue, BL_DTYPE_f32, {n});
  Tensor addend(queue, kFloatDtypes[(i + 1) % 3], {m, n}), residual(queue, kFloatDtypes[(i + 2) % 3], {m, n});
  a.uniform(1, 0.2f);
  bias.uniform(2);
  row_scale.uniform(3);
  addend.uniform(4);
  residual.uniform(5);
  call.set(&bl_matmul_args::a, a);
  if (i % 4 != 0) {
    call.set(&bl_matmul_args::bias, bias);
    call.set(&bl_matmul_args::row_scale, row_scale);
    call.set(&bl_matmul_args::addend, addend);
    call.set(&bl_matmul_args::residual, residual);
  }
  call.device.activation = call.host.activation = i % 5;
  const double bound = 0.04 * (static_cast<double>(k) / 256) + 2 * epsilon_of(type);
  call.compare(c, bound, std::string("i8 coverage ") + shape_name(format, m, n, k) + " call " + std::to_string(i));
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_i8_coverage) {
  for (const Way& way : kWays) {
    for (const char* format : way.formats) {
      if (format == nullptr) break;
      if (bl_find_format(format) < 0) {
        check(false, std::string("no format ") + format);
        continue;
      }
      const int64_t step = std::max<int64_t>(bl_get_format_info(bl_find_format(format))->block_elements, 32);
      const auto columns = [&](int64_t units) { return (64 * units + step - 1) / step * step; };
      for (Settings settings : all_archs()) {
        settings.multiprocessors = 1;  // no splits of K
        int32_t i = 0;
        // Units of a lane: one to a whole turn, more, and rests.
        for (int64_t m : {3, 12}) {
          for (int64_t units : {1, 7, 13, 21, 30}) call_once(settings, way, format, m, 20, columns(units), i++);
        }
        for (int64_t k : {step, columns(3), columns(6)}) call_once(settings, way, format, 19, 30, k, i++);
        settings.multiprocessors = 4;
        for (int64_t m : {3, 12, 19}) call_once(settings, way, format, m, 20, columns(20), i++);
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
