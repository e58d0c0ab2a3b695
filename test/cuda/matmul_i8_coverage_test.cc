// matmul of int8 and e4m3: every kernel with every kind of scales, counts of units around what a lane has
// under way, and everything that may follow the product, so that every instruction runs. Small shapes: other
// tests are about values.
#include <limits>
#include <set>

#include "matmul_i8_calls.h"

namespace bitloom::cuda::testing {
namespace {

// Formats of each kernel: groups of 32, of 64 and rows, scales of every type, with zero points and without.
std::vector<std::string> integer_formats() {
  std::vector<std::string> all = {"q4_0", "q8_0",  "q4_1",  "q4_k",    "q5_0",      "q5_1",
                                  "q5_k", "tq1_0", "tq2_0", "t2_g128", "mxint8_g32"};
  for (int bits = 1; bits <= 8; ++bits) {
    for (const char* zero : {"", "z"}) {
      for (const char* group : {"_g32", "_g64", "_row"}) {
        for (const char* scale : {"", "_bf16"})
          all.push_back("u" + std::to_string(bits) + zero + group + scale);
      }
    }
    for (const char* group : {"_g32", "_g64"}) {
      if (bits > 1) all.push_back("bfp" + std::to_string(bits) + group);
    }
  }
  return all;
}
std::vector<std::string> row_formats() {
  std::vector<std::string> all;
  for (const char* bits : {"4", "8"}) {
    for (const char* zero : {"", "z"}) {
      for (const char* group : {"_g128", "_g256", "_row"}) {
        for (const char* scale : {"", "_bf16"}) all.push_back(std::string("i") + bits + zero + group + scale);
      }
    }
  }
  return all;
}
std::vector<std::string> fp8_formats() {
  return {"u4_g32",    "u4_g64_bf16", "q4_0",     "u4_row",    "i4_g128_bf16", "mxfp4",    "e2m1_g32",
          "e2m1_g128", "e2m3_g32",    "e2m3_g64", "e3m2_g128", "e4m3_g32",     "e4m3_g64", "e4m3_g128"};
}

struct Way {
  int32_t compute, group;
  std::vector<std::string> formats;
};

// The i-th of a row of calls that differ in what a is and in everything that follows the product. Gives the
// product's kernel.
std::string call_once(const Settings& settings, const Way& way, const std::string& format, int64_t m,
                      int64_t n, int64_t k, int32_t i) {
  Call call(settings, format.c_str(), n, k);
  set_compute(call, {way.group});
  call.device.compute = call.host.compute = way.compute;
  Tensor a(call.queue, kFloatDtypes[(i + i / 3) % 3], {m, k});
  a.uniform(1, 0.2f);
  call.set(&bl_matmul_args::a, a);
  Surroundings around(call, m, n, i);
  const double bound = 0.04 * (static_cast<double>(k) / 256) + around.epsilon(i);
  call.compare(around.c, bound, "i8 coverage " + shape_name(format, m, n, k) + " call " + std::to_string(i));
  return launched(call);
}

// Rows with NaN (in every 32 columns) and infinity, which have no scale.
void not_finite(const Settings& settings, int32_t group, const char* format) {
  constexpr int64_t m = 3, n = 20, k = 160;
  Call call(settings, format, n, k);
  set_compute(call, {group});
  Tensor a(call.queue, BL_DTYPE_f32, {m, k}), c(call.queue, BL_DTYPE_f32, {m, n});
  a.fill([&](int64_t i) {
    return i < k && i % 32 == 8 ? std::nanf("")
           : i == k + 7         ? std::numeric_limits<float>::infinity()
                                : 0.01f * static_cast<float>(i % 9);
  });
  call.set(&bl_matmul_args::a, a);
  call.compare(c, 0.04, std::string("i8 of rows that are not finite, ") + format);
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_i8_coverage) {
  constexpr int32_t k32 = BL_ACTIVATION_GROUP_32, kRow = BL_ACTIVATION_GROUP_row;
  const Way ways[] = {{BL_COMPUTE_i8, k32, integer_formats()},
                      {BL_COMPUTE_i8, kRow, row_formats()},
                      {BL_COMPUTE_e4m3, k32, fp8_formats()},
                      {BL_COMPUTE_e4m3, kRow, fp8_formats()}};
  for (Settings settings : all_archs()) {
    std::set<std::string> seen;
    for (const Way& way : ways) {
      for (const std::string& format : way.formats) {
        const int32_t number = bl_find_format(format.c_str());
        check(number >= 0, "no format " + format);
        if (number < 0) continue;
        const int64_t step = std::max<int64_t>(bl_get_format_info(number)->block_elements, 32);
        const auto columns = [&](int64_t units) { return (64 * units + step - 1) / step * step; };
        // Of each format every place of a unit among those that a lane or a block has under way: no splits of
        // K.
        settings.multiprocessors = 1;
        const std::string stream = call_once(settings, way, format, 3, 20, columns(30), 1);
        const std::string prompt = call_once(settings, way, format, 19, 30, columns(6), 2);
        // Of each kernel other numbers of units and of rows, splits, and what follows the product.
        if (seen.insert(stream).second) {
          for (int64_t units : {1, 13, 21}) call_once(settings, way, format, 3, 20, columns(units), 3);
          call_once(settings, way, format, 12, 20, columns(14), 4);
          for (int32_t i = 0; i < 15; ++i) call_once(settings, way, format, 3, 10, step, i);
          settings.multiprocessors = 4;
          call_once(settings, way, format, 3, 20, columns(20), 5);
        }
        settings.multiprocessors = 1;
        if (seen.insert(prompt).second) {
          for (int64_t k : {step, columns(3)}) call_once(settings, way, format, 19, 30, k, 6);
          for (int32_t i = 0; i < 15; ++i) call_once(settings, way, format, 18, 10, step, i);
          settings.multiprocessors = 4;
          call_once(settings, way, format, 19, 20, columns(20), 7);
        }
      }
    }
    for (int32_t group : {k32, kRow}) {
      for (const char* format : {"u4_g32", "u4z_g32", "u4_g128", "u8z_row"})
        not_finite(settings, group, format);
    }
  }
}

}  // namespace bitloom::cuda::testing
