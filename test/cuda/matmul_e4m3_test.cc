// matmul with compute e4m3: products of fp8 where the build has them (matmul_fp8), else the same numbers in
// bf16 or f16; against the CPU's scalar kernel.
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

// Formats of each kernel, with every kind of scales and groups that it is given.
constexpr const char* kFp8Formats[] = {"u4_g32",   "i4_g64_bf16", "q4_0",      "u4_row",
                                       "i4_g128",  "mxfp4",       "e2m1_g128", "e2m3_g32",
                                       "e3m2_g64", "e3m2_g128",   "e4m3_g32",  "e4m3_g128"};
// Exact in bf16 alone, and in neither.
constexpr const char* kBf16Formats[] = {"u8_g128", "q8_0", "nvfp4", "e2m1_g8", "bf16"};
constexpr const char* kF16Formats[] = {"q4_k", "u4z_g128", "u3_g64", "nf4_g64", "f16", "e5m2_g32", "cb5_g64"};

constexpr int32_t kRow = BL_ACTIVATION_GROUP_row, k32 = BL_ACTIVATION_GROUP_32;

// k products and their groups' sums, f32 on both sides; the CPU's product of code and scale.
double bound_of(int64_t k) { return 2 * static_cast<double>(k + 10) * 0x1p-24; }

const std::string& module_of(const TestQueue& queue) {
  static const std::string kNone = "nothing";
  for (const Launched& launch : queue.launches) {
    if (launch.kernel.find("prompt") != std::string::npos ||
        launch.kernel.find("stream") != std::string::npos)
      return launch.module;
  }
  return kNone;
}

struct Shape {
  int64_t m, n, k;
  int32_t group = kRow, a_type = BL_DTYPE_f32;
  bool transposed = false;
};

// `fp8`: by kernels of products of fp8, where the build has them.
template <typename Fill>
void compare(const Settings& settings, const std::string& format, const Shape& s, double bound,
             const std::string& module, const Fill& values) {
  const std::string what =
      shape_name(format, s.m, s.n, s.k) + " e4m3" + (s.group == k32 ? " of 32" : " of the row");
  try {
    TestQueue queue(settings);
    const PackedWeights b(queue, format, s.n, s.k, 17);
    const std::vector<int64_t> strides = s.transposed ? std::vector<int64_t>{1, s.m} : std::vector<int64_t>{};
    Tensor a(queue, s.a_type, {s.m, s.k}, strides), c(queue, BL_DTYPE_f32, {s.m, s.n});
    a.fill(values);
    bl_matmul_args args = arguments(), host = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device();
    host.a = a.host(), host.b = b.host(), host.c = c.host();
    for (bl_matmul_args* side : {&args, &host}) {
      side->compute = BL_COMPUTE_e4m3;
      side->activation_group = s.group == kRow && s.k % 64 == 0 ? 0 : s.group;  // 0: the row
    }
    host.run.isa = BL_ISA_scalar;
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, what);
    check_ok(bl_matmul(&host, &error), error, what + " cpu");
    check(queue.scratch_in_use() == 0, what + ": scratch is free again");
    const bool has_fp8 = settings.arch == 89 || settings.arch >= 120;
    const std::string expected = module == "matmul_fp8" && !has_fp8 ? "matmul_bf16" : module;
    check(module_of(queue) == expected, what + ": " + module_of(queue) + ", expected " + expected);
    const std::vector<float> got = c.device_values();
    double worst = 0;
    for (int64_t i = 0; i < s.m * s.n; ++i) {
      double magnitude = 0;
      for (int64_t x = 0; x < s.k; ++x) {
        magnitude += std::fabs(static_cast<double>(a.host_value(i / s.n * s.k + x)) * b.value(i % s.n, x));
      }
      magnitude *= 1 + 0x1p-4;  // what a is rounded to
      const float is = got[static_cast<size_t>(i)], want = c.host_value(i);
      if (is != is || want != want) {
        if ((is != is) != (want != want)) worst = 1e30;
        continue;
      }
      const double off = std::fabs(static_cast<double>(is) - want);
      if (!(off <= bound * magnitude)) worst = std::max(worst, magnitude == 0 ? 1e30 : off / magnitude);
    }
    check(worst == 0, what + ": error " + std::to_string(worst * 0x1p20) + " * 2^-20");
  } catch (const std::exception& fault) {
    check(false, what + ": " + fault.what());
  }
}

void compare(const Settings& settings, const std::string& format, const Shape& s,
             const std::string& module = "matmul_fp8", double bound = 0) {
  Random random(static_cast<uint64_t>(s.m * s.n + s.k));
  compare(settings, format, s, bound == 0 ? bound_of(s.k) : bound, module,
          [&](int64_t) { return random.uniform() * std::exp(4 * random.uniform()); });
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_e4m3_formats) {
  for (const Settings& settings : all_archs()) {
    for (int32_t group : {kRow, k32}) {
      for (int64_t m : {1, 9, 64}) {
        for (const char* format : kFp8Formats) compare(settings, format, {m, 40, 256, group});
        for (const char* format : kBf16Formats) compare(settings, format, {m, 40, 256, group}, "matmul_bf16");
        if (m == 9) continue;
        // Weights rounded to f16, as with any activations.
        for (const char* format : kF16Formats)
          compare(settings, format, {m, 24, 256, group}, "matmul", 0x1.8p-11);
      }
    }
  }
}

// A row of the identity: the weight itself, exactly.
BITLOOM_CUDA_TEST(matmul_e4m3_identity) {
  for (const Settings& settings : all_archs()) {
    for (const char* format : kFp8Formats) {
      for (int64_t m : {16, 64}) {
        compare(settings, format, {m, 24, 128, k32}, 0, "matmul_fp8",
                [&](int64_t i) { return i / 128 % 128 == i % 128 ? 1.0f : 0.0f; });
      }
    }
  }
}

// Every activation type and way to lie; numbers at the borders of rounding: ties, subnormal codes, the
// largest.
BITLOOM_CUDA_TEST(matmul_e4m3_rounding) {
  for (const Settings& settings : all_archs()) {
    for (int32_t group : {kRow, k32}) {
      for (const char* format : {"u4_g64", "e4m3_g32"}) {
        for (int32_t type : kFloatDtypes) compare(settings, format, {5, 20, 96, group, type});
        compare(settings, format, {21, 20, 96, group, BL_DTYPE_bf16, true});
        const auto numbers = [&](float size) {
          compare(settings, format, {3, 20, 128, group}, bound_of(128), "matmul_fp8", [size](int64_t i) {
            // 448 first, so that scales are powers of two; then sixteenths of steps.
            const int64_t at = i % 32;
            const float x = at == 0 ? 448
                                    : std::ldexp(static_cast<float>(8 + at % 8) + at / 8 * 0.5f,
                                                 -12 + static_cast<int>(i % 17));
            return (i % 3 == 0 ? -x : x) * size;
          });
        };
        numbers(1), numbers(0x1p-20f), numbers(0x1p100f);
        // Small: subnormal, and where scales of 32 end.
        numbers(0x1p-126f), numbers(0x1p-140f), numbers(0);
        for (float bad : {NAN, INFINITY, -INFINITY}) {
          compare(settings, format, {18, 20, 128, group}, bound_of(128), "matmul_fp8",
                  [bad](int64_t i) { return i == 3 * 128 + 40 ? bad : static_cast<float>(i % 7) - 3; });
        }
      }
    }
  }
}

BITLOOM_CUDA_TEST(matmul_e4m3_shapes) {
  const int32_t archs = all_archs().back().arch;
  for (const char* format : {"u4_g32", "i4_row", "mxfp4", "e4m3_g128", "e3m2_g32"}) {
    const auto call = [&](int64_t m, int64_t n, int64_t k) {
      compare({archs, {}, 0}, format, {m, n, k, (m + n) % 2 == 0 ? kRow : k32});
    };
    for (int64_t m : {2, 8, 15, 17, 63, 65, 129}) call(m, 40, 192), call(m, 41, 192);
    for (int64_t n : {1, 15, 127, 129}) call(5, n, 96), call(33, n, 96);
    for (int64_t k : {1, 2, 5, 8, 9, 17}) call(4, 20, 32 * k), call(20, 20, 32 * k), call(21, 20, 32 * k);
    // No splits of K: the epilogue of the product's own kernel.
    for (int64_t m : {4, 20, 21}) compare({archs, {}, 1}, format, {m, 20, 256, m % 2 == 0 ? kRow : k32});
  }
}

// Every schedule gives the same bits.
BITLOOM_CUDA_TEST(matmul_e4m3_schedules) {
  for (const char* format : {"u4_g128", "mxfp4", "u8_g64"}) {
    for (int64_t m : {5, 20}) {
      std::vector<uint8_t> first;
      int32_t arch = 0;
      for (const Settings& settings : all_schedules()) {
        const std::string what = shape_name(format, m, 24, 512) + " e4m3 schedules";
        try {
          TestQueue queue(settings);
          const PackedWeights b(queue, format, 24, 512, 3);
          Tensor a(queue, BL_DTYPE_bf16, {m, 512}), c(queue, BL_DTYPE_f32, {m, 24});
          a.uniform(1);
          bl_matmul_args args = arguments();
          args.a = a.device(), args.b = b.device(), args.c = c.device();
          args.compute = BL_COMPUTE_e4m3;
          bl_error error{};
          check_ok(matmul(queue, args, &error), error, what);
          if (arch != settings.arch) first = c.device_bytes();  // fp8 and bf16 add in another order
          arch = settings.arch;
          check(c.device_bytes() == first, what + ": the same bits");
        } catch (const std::exception& fault) {
          check(false, what + ": " + fault.what());
        }
      }
    }
  }
}

// Tensor cores add less exactly than f32: blocks of products aligned to the largest.
BITLOOM_CUDA_TEST(matmul_e4m3_sums) {
  for (uint32_t block : {4, 8, 16}) {
    for (const Settings& given : all_archs()) {
      Settings settings = given;
      settings.options.mma_block = block;
      for (const char* format : {"i4_g128", "mxfp4"}) {
        compare(settings, format, {5, 24, 512, k32}, "matmul_fp8", 4 * bound_of(512));
        compare(settings, format, {20, 24, 512}, "matmul_fp8", 4 * bound_of(512));
      }
    }
  }
}

// What follows a product, with its factor for the row.
BITLOOM_CUDA_TEST(matmul_e4m3_epilogue) {
  for (const Settings& settings : all_archs()) {
    for (int32_t group : {kRow, k32}) {
      for (int64_t m : {3, 20}) {
        Call call(settings, "u4_g128", 32, 256);
        for (bl_matmul_args* side : {&call.device, &call.host}) {
          side->compute = BL_COMPUTE_e4m3;
          side->activation_group = group;
          side->activation = BL_ACTIVATION_swiglu;
          side->scale = 0.25f;
        }
        call.host.run.isa = BL_ISA_scalar;
        Tensor a(call.queue, BL_DTYPE_f32, {m, 256}), bias(call.queue, BL_DTYPE_f32, {32}),
            scale(call.queue, BL_DTYPE_f32, {256}), c(call.queue, BL_DTYPE_f32, {m, 16});
        a.uniform(3), bias.uniform(4), scale.uniform(5);
        call.set(&bl_matmul_args::a, a);
        call.set(&bl_matmul_args::bias, bias);
        call.set(&bl_matmul_args::column_scale, scale);
        call.compare(c, 0x1p-14, "e4m3 epilogue");
      }
    }
  }
}

// Every activation and type of c in each kernel, without splits of K: the kernel's own epilogue.
BITLOOM_CUDA_TEST(matmul_e4m3_activations) {
  const Settings settings{all_archs().back().arch, {}, 1};
  for (const char* format :
       {"u4_g128_bf16", "u4_g64", "e2m1_g128", "mxfp4", "e2m3_g128", "e3m2_g32", "e4m3_g128", "e4m3_g32"}) {
    for (int64_t m : {9, 20}) {
      for (int32_t activation = BL_ACTIVATION_none; activation <= BL_ACTIVATION_relu; ++activation) {
        Call call(settings, format, 24, 256);
        for (bl_matmul_args* side : {&call.device, &call.host}) {
          side->compute = BL_COMPUTE_e4m3;
          side->activation = activation;
          side->scale = 0.05f;
        }
        call.host.run.isa = BL_ISA_scalar;
        const int32_t type = kFloatDtypes[activation % 3], other = kFloatDtypes[(activation + 1) % 3];
        Tensor a(call.queue, BL_DTYPE_f16, {m, 256}), c(call.queue, type, {m, 24});
        Tensor bias(call.queue, BL_DTYPE_f32, {24}), row_scale(call.queue, BL_DTYPE_f32, {24});
        Tensor addend(call.queue, other, {m, 24}), residual(call.queue, type, {m, 24});
        a.uniform(3, 8), bias.uniform(4), row_scale.uniform(5), addend.uniform(6, 4), residual.uniform(7);
        call.set(&bl_matmul_args::a, a);
        if (activation != 0) call.set(&bl_matmul_args::bias, bias);
        if (activation != 1) call.set(&bl_matmul_args::row_scale, row_scale);
        if (activation != 2) call.set(&bl_matmul_args::addend, addend);
        if (activation != 3) call.set(&bl_matmul_args::residual, residual);
        call.compare(c, std::max(2 * epsilon_of(type), 0x1p-14),
                     shape_name(format, m, 24, 256) + " e4m3 activations");
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
