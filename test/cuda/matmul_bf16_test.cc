// matmul with activations of bf16 as they lie: every kernel of kernels_bf16.inc against the CPU's scalar
// kernel.
#include "cuda/ops/matmul/config.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

// Of each kernel, formats with every kind of scales and groups that it is given.
constexpr const char* kFormats[] = {"u4_g32",    "i4_g64_bf16", "q4_0",     "u4_row",   "u8_g128",   "i8_row",
                                    "q8_0",      "u8_g32",      "mxfp4",    "e2m1_g8",  "e2m1_g64",  "nvfp4",
                                    "nvfp4_g16", "e2m3_g32",    "e3m2_g16", "e4m3_g32", "e4m3_g128", "bf16"};

bool is_bf16(const TestQueue& queue) {
  for (const Launched& launch : queue.launches) {
    if (launch.module == "matmul_bf16") return true;
  }
  return false;
}

// Device and the CPU's scalar kernel in f32, within `bound` of the sum of absolute products. a: values of i.
template <typename Fill>
void compare(const Settings& settings, const std::string& format, int64_t m, int64_t n, int64_t k,
             double bound, const Fill& values, bool transposed = false) {
  const std::string what = shape_name(format, m, n, k) + " bf16";
  try {
    TestQueue queue(settings);
    const PackedWeights b(queue, format, n, k, 17);
    const std::vector<int64_t> strides = transposed ? std::vector<int64_t>{1, m} : std::vector<int64_t>{};
    Tensor a(queue, BL_DTYPE_bf16, {m, k}, strides), c(queue, BL_DTYPE_f32, {m, n});
    a.fill(values);
    bl_matmul_args args = arguments(), host = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device();
    host.a = a.host(), host.b = b.host(), host.c = c.host();
    host.run.isa = BL_ISA_scalar;
    bl_error error{};
    queue.launches.clear();
    check_ok(matmul(queue, args, &error), error, what);
    check_ok(bl_matmul(&host, &error), error, what + " cpu");
    check(is_bf16(queue), what + ": a bf16 kernel ran");
    check(transposed == (queue.launches[0].kernel == "matmul_prepare"), what + ": a is read as it lies");
    const std::vector<float> got = c.device_values();
    double worst = 0;
    for (int64_t i = 0; i < m * n; ++i) {
      double magnitude = 0;
      for (int64_t x = 0; x < k; ++x) {
        magnitude += std::fabs(static_cast<double>(a.host_value(i / n * k + x)) * b.value(i % n, x));
      }
      const double off = std::fabs(static_cast<double>(got[static_cast<size_t>(i)]) - c.host_value(i));
      if (!(off <= bound * magnitude)) worst = std::max(worst, magnitude == 0 ? 1e30 : off / magnitude);
      if (off != off) worst = 1e30;
    }
    check(worst == 0, what + ": error " + std::to_string(worst * 0x1p20) + " * 2^-20");
  } catch (const std::exception& fault) {
    check(false, what + ": " + fault.what());
  }
}

// k products and their groups' sums, f32 on both sides.
double bound_of(int64_t k) { return 2 * static_cast<double>(k + 8) * 0x1p-24; }

}  // namespace

BITLOOM_CUDA_TEST(matmul_bf16_formats) {
  for (const char* format : kFormats) {
    for (const Settings& settings : all_archs()) {
      for (int64_t m : {1, 9, 64}) {
        Random random(static_cast<uint64_t>(m));
        compare(settings, format, m, 40, 256, bound_of(256), [&](int64_t) { return random.uniform(); });
      }
    }
  }
}

// A row of the identity: the weight itself, exactly (its code times its scale is one rounding on either
// side).
BITLOOM_CUDA_TEST(matmul_bf16_identity) {
  for (const char* format : kFormats) {
    for (int64_t m : {16, 64}) {
      compare({}, format, m, 24, 64, 0, [&](int64_t i) { return i / 64 % 64 == i % 64 ? 1.0f : 0.0f; });
    }
  }
}

// Magnitudes that f16 does not have, alone and beside each other.
BITLOOM_CUDA_TEST(matmul_bf16_range) {
  for (const char* format : {"u4_g64", "q8_0", "mxfp4", "nvfp4_g16", "e2m3_g32", "e4m3_g32", "bf16"}) {
    for (int64_t m : {3, 20}) {
      for (float size : {1e30f, 1e-30f}) {
        Random random(3);
        compare({}, format, m, 24, 128, bound_of(128), [&](int64_t) { return random.uniform() * size; });
      }
      // Both in a row.
      Random random(4);
      compare({}, format, m, 24, 128, bound_of(128),
              [&](int64_t i) { return random.uniform() * (i % 2 == 0 ? 1e20f : 1e-20f); });
      // Only tiny ones in some rows.
      compare({}, format, m, 24, 128, bound_of(128),
              [&](int64_t i) { return random.uniform() * (i / 128 % 2 == 0 ? 1e30f : 1e-30f); });
    }
  }
}

BITLOOM_CUDA_TEST(matmul_bf16_shapes) {
  for (const char* format : {"u4_g32", "i8_row", "mxfp4", "bf16"}) {
    const auto call = [&](int64_t m, int64_t n, int64_t k) {
      Random random(static_cast<uint64_t>(m * n + k));
      compare({}, format, m, n, k, bound_of(k), [&](int64_t) { return random.uniform(); });
    };
    for (int64_t m : {2, 8, 15, 17, 63, 65, 129}) call(m, 40, 192);
    for (int64_t n : {1, 15, 17, 127, 129}) call(5, n, 96), call(33, n, 96);
    for (int64_t k : {1, 2, 5, 8, 9, 17}) call(4, 20, 32 * k), call(20, 20, 32 * k);
    Random random(9);
    compare({}, format, 5, 20, 96, bound_of(96), [&](int64_t) { return random.uniform(); }, true);
    compare({}, format, 21, 20, 96, bound_of(96), [&](int64_t) { return random.uniform(); }, true);
  }
}

// Every schedule gives the same bits; sums of tensor cores stay within f32's bound twice.
BITLOOM_CUDA_TEST(matmul_bf16_schedules) {
  for (const char* format : {"u4_g64", "q8_0", "nvfp4_g16", "e4m3_g32", "bf16"}) {
    for (int64_t m : {5, 20}) {
      std::vector<uint8_t> first;
      for (const Settings& settings : all_schedules()) {
        const std::string what = shape_name(format, m, 24, 512) + " bf16 schedules";
        try {
          TestQueue queue(settings);
          const PackedWeights b(queue, format, 24, 512, 3);
          Tensor a(queue, BL_DTYPE_bf16, {m, 512}), c(queue, BL_DTYPE_f32, {m, 24});
          a.uniform(1);
          bl_matmul_args args = arguments();
          args.a = a.device(), args.b = b.device(), args.c = c.device();
          bl_error error{};
          check_ok(matmul(queue, args, &error), error, what);
          if (first.empty()) first = c.device_bytes();
          check(c.device_bytes() == first, what + ": the same bits");
        } catch (const std::exception& fault) {
          check(false, what + ": " + fault.what());
        }
      }
      for (uint32_t block : {4, 8, 16}) {
        Settings settings;
        settings.options.mma_block = block;
        check_product(settings, format, m, 24, 512, BL_DTYPE_bf16);
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
