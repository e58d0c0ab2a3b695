// matmul of int8 on the interpreter: the scalar kernel's bits where sums are added in its order, exact
// integers, bounds elsewhere; activations in every form; shapes around the edges of tiles.
#include <cstdio>

#include "cuda/ops/matmul/config_i8.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

// How activations become codes.
struct Rounded {
  int32_t group = BL_ACTIVATION_GROUP_auto, bits = 8, type = BL_DTYPE_f32;
};

void set_compute(Call& call, const Rounded& rounded) {
  for (bl_matmul_args* args : {&call.device, &call.host}) {
    args->compute = BL_COMPUTE_i8;
    args->activation_group = rounded.group;
    args->activation_bits = rounded.bits;
  }
  call.host.run.isa = BL_ISA_scalar;
  call.host.algorithm = BL_ALGORITHM_dequant;
}

const std::string& launched(Call& call) {
  static const std::string kNone = "nothing";
  for (const Launched& launch : call.queue.launches) {
    if (launch.kernel.find("prompt") != std::string::npos ||
        launch.kernel.find("stream") != std::string::npos)
      return launch.kernel;
  }
  return kNone;
}

// a b^T by both; equal but for what `bound` times K allows; by a kernel whose name begins so.
void compare_integers(const Settings& settings, const char* format, int64_t m, int64_t n, int64_t k,
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

Settings one_multiprocessor() {  // no splits of K
  Settings settings;
  settings.multiprocessors = 1;
  return settings;
}

// Sums of f32 in another order, of products of at most 1.
constexpr double kReordered = 0x1p-21;

constexpr const char* kIntegers[] = {
    "q4_0",    "q8_0",     "u4_g32",   "u4_g64",       "u4_g128",    "u4_g256", "u4_row",   "i4_g128",
    "i8_g32",  "i8_g64",   "i8_row",   "u8_g128_bf16", "u1_g32",     "i1_g64",  "u1z_g32",  "u2_g64",
    "i2z_g32", "t2_g128",  "tq1_0",    "tq2_0",        "u3_g64",     "i3z_row", "q4_1",     "q4_k",
    "u4z_g32", "u4z_g128", "i4z_g64",  "u4z_row",      "bfp4_g32",   "u5_g64",  "u5z_g128", "q5_0",
    "q5_1",    "q5_k",     "u6_g128",  "i6z_g32",      "u7_g256",    "i7z_row", "u8z_g64",  "i8z_g128",
    "u8z_row", "bfp8_g64", "bfp3_g32", "mxint8_g32",   "u4_g64_bf16"};

}  // namespace

// Every format with integers in groups of 32 and more: one warp, one split, and so the scalar kernel's order.
BITLOOM_CUDA_TEST(matmul_i8_formats) {
  for (const char* format : kIntegers) {
    for (int32_t arch : {80, 120}) {
      Settings settings = one_multiprocessor();
      settings.arch = arch;
      compare_integers(settings, format, 20, 40, 512, "matmul_prompt_fine_", 0);
      compare_integers(settings, format, 3, 24, 512, "matmul_stream_fine_", kReordered);
    }
  }
  for (const char* format : {"u4_g32", "u8_g64", "u3z_g32", "q5_1"}) {  // one warp
    compare_integers(one_multiprocessor(), format, 5, 24, 128, "matmul_stream_fine_", 0);
    compare_integers(one_multiprocessor(), format, 16, 24, 96, "matmul_stream_fine_", 0);
  }
  // No integers, or groups below 32: f16, within what int8 costs.
  for (const char* format : {"nf4_g64", "q6_k", "mxfp4", "bfp4_g8"}) {
    compare_integers({}, format, 20, 24, 256, "matmul_prompt_", 5e-4);
  }
}

BITLOOM_CUDA_TEST(matmul_i8_shapes) {
  const Settings settings = one_multiprocessor();
  for (const char* format : {"u4_g64", "u8_row", "u5z_g32", "u4z_row"}) {
    for (int64_t m : {17, 63, 64, 65, 129})
      compare_integers(settings, format, m, 40, 160, "matmul_prompt_fine_", 0);
    for (int64_t m : {1, 2, 7, 8, 9, 16})
      compare_integers(settings, format, m, 40, 160, "matmul_stream_fine_", kReordered);
    for (int64_t n : {1, 15, 16, 17, 127, 128, 129, 260}) {
      compare_integers(settings, format, 18, n, 96, "matmul_prompt_fine_", 0);
      compare_integers(settings, format, 5, n, 96, "matmul_stream_fine_", kReordered);
    }
    for (int64_t k :
         {1, 7, 8, 31, 32, 33, 63, 64, 65, 127, 128, 129, 191, 193, 256, 257, 383, 385, 512, 513}) {
      compare_integers(settings, format, 18, 20, k, "matmul_prompt_fine_", 0);
      compare_integers(settings, format, 4, 20, k, "matmul_stream_fine_", kReordered);
    }
  }
}

// A scale per row: whole and coarse kernels, else the fine ones' bits.
BITLOOM_CUDA_TEST(matmul_i8_rows) {
  const Rounded row{BL_ACTIVATION_GROUP_row, 8, BL_DTYPE_f16};
  for (int32_t arch : {80, 120}) {
    Settings settings = one_multiprocessor();
    settings.arch = arch;
    for (const char* format :
         {"u4_g128", "i4_g256", "u8_g128", "i8_g256_bf16", "u4z_g128", "i8z_g256", "u8z_g128"}) {
      for (int64_t k : {128, 256, 320, 513, 900}) {
        compare_integers(settings, format, 20, 40, k, "matmul_prompt_coarse_", 2 * kReordered, row);
      }
      compare_integers(settings, format, 130, 140, 256, "matmul_prompt_coarse_", 2 * kReordered, row);
      compare_integers(settings, format, 3, 40, 320, "matmul_stream_fine_", kReordered, row);
    }
    for (const char* format :
         {"u4_row", "i8_row", "i8_row_bf16", "u4z_row", "i4z_row", "u8z_row", "i8z_row"}) {
      for (int64_t k : {1, 64, 65, 128, 320, 513}) {
        compare_integers(settings, format, 20, 40, k, "matmul_prompt_whole_", 2 * kReordered, row);
        compare_integers(settings, format, 9, 40, k, "matmul_stream_whole_", 2 * kReordered, row);
      }
      compare_integers(settings, format, 70, 140, 256, "matmul_prompt_whole_", 2 * kReordered, row);
    }
  }
  for (const char* format : {"u4_g64", "q8_0", "u3_g128", "i6z_row"}) {
    compare_integers(one_multiprocessor(), format, 20, 40, 512, "matmul_prompt_fine_", 0, row);
  }
}

// Sums over all of K are the integers themselves, whatever the splits: float(sum) * (scale * scale).
BITLOOM_CUDA_TEST(matmul_i8_exact) {
  constexpr int64_t n = 40, k = 2176;
  for (const char* format : {"i8_row", "i4_row"}) {
    const bool bytes = format[1] == '8';
    for (int64_t m : {5, 33}) {
      for (int32_t multiprocessors : {1, 132}) {
        Settings settings;
        settings.multiprocessors = multiprocessors;
        Call call(settings, format, n, k);
        set_compute(call, {});
        Tensor a(call.queue, BL_DTYPE_i8, {m, k}), scales(call.queue, BL_DTYPE_f32, {m});
        Tensor c(call.queue, BL_DTYPE_f32, {m, n});
        // All of one sign, so that sums leave what f32 holds exactly.
        a.fill([](int64_t i) { return static_cast<float>(i % 3 == 0 ? 127 : 100 - i % 29); });
        scales.fill([](int64_t i) { return 0.01f * static_cast<float>(i + 1); });
        call.device.a = a.device();
        call.device.a_scales = scales.device();
        call.device.c = c.device();
        const std::string what = std::string(format) + " exact";
        try {
          bl_error error{};
          check_ok(matmul(call.queue, call.device, &error), error, what);
          check(launched(call).find("_whole_") != std::string::npos, what + ": " + launched(call));
          const std::vector<float> got = c.device_values();
          const uint8_t* data = static_cast<const uint8_t*>(call.host.b.data);
          const int64_t row_bytes = static_cast<int64_t>(bl_row_bytes(call.host.b.format, k));
          for (int64_t i = 0; i < m * n; ++i) {
            const uint8_t* row = data + i % n * row_bytes;
            int64_t sum = 0;
            for (int64_t x = 0; x < k; ++x) {
              const int code = bytes ? static_cast<int8_t>(row[2 + x])
                                     : static_cast<int8_t>(row[2 + x / 2] << (x % 2 == 0 ? 4 : 0)) >> 4;
              sum += code * static_cast<int64_t>(a.host_value(i / n * k + x));
            }
            const float want =
                static_cast<float>(sum) * (to_f32(BL_DTYPE_f16, row) * scales.host_value(i / n));
            if (got[static_cast<size_t>(i)] == want) continue;
            check(false, what + ": " + std::to_string(got[static_cast<size_t>(i)]) + ", expected " +
                             std::to_string(want));
            break;
          }
        } catch (const std::exception& fault) {
          check(false, what + ": " + fault.what());
        }
      }
    }
  }
}

// Activations in every form: types, codes with their scales, 4 bits, picked and scaled columns, odd strides.
BITLOOM_CUDA_TEST(matmul_i8_activations) {
  const Settings settings = one_multiprocessor();
  for (int32_t type : kFloatDtypes) {
    for (int32_t bits : {4, 8}) {
      for (int32_t group : {BL_ACTIVATION_GROUP_auto, BL_ACTIVATION_GROUP_32, BL_ACTIVATION_GROUP_row}) {
        compare_integers(settings, "u4_g64", 20, 24, 200, "matmul_prompt_fine_", 0, {group, bits, type});
        compare_integers(settings, "u4_g64", 2, 24, 120, "matmul_stream_fine_", 0, {group, bits, type});
      }
    }
  }
  for (int64_t m : {3, 20}) {
    constexpr int64_t n = 24, k = 96;
    for (bool per_row : {false, true}) {
      Call call(settings, "u4z_g32", n, k);
      set_compute(call, {});
      Tensor a(call.queue, BL_DTYPE_i8, {m, k}, {110, 1}, 3), c(call.queue, BL_DTYPE_f32, {m, n});
      Tensor scales(call.queue, BL_DTYPE_f32,
                    per_row ? std::vector<int64_t>{m} : std::vector<int64_t>{m, k / 32});
      a.fill([](int64_t i) { return static_cast<float>(i * 7 % 255 - 127); });
      scales.uniform(3);
      call.set(&bl_matmul_args::a, a);
      call.set(&bl_matmul_args::a_scales, scales);
      call.compare(c, 0, "i8 codes");
    }
    Call call(settings, "u6_g32", n, k);
    set_compute(call, {});
    Tensor a(call.queue, BL_DTYPE_f16, {m, 50}, {61, 1}), c(call.queue, BL_DTYPE_f32, {m, n}, {31, 1});
    Tensor column_scale(call.queue, BL_DTYPE_f32, {50}), order(call.queue, BL_DTYPE_i32, {k});
    a.uniform(2);
    column_scale.uniform(4);
    std::vector<int32_t> columns;
    for (int32_t i = 0; i < k; ++i) columns.push_back(i * 17 % 50);
    order.integers(columns);
    call.set(&bl_matmul_args::a, a);
    call.set(&bl_matmul_args::column_scale, column_scale);
    call.set(&bl_matmul_args::column_order, order);
    call.compare(c, 0, "i8 columns");
  }
  // Groups and rows of zeros, of numbers below FLT_MIN, with an infinity, with a NaN.
  for (int32_t group : {BL_ACTIVATION_GROUP_32, BL_ACTIVATION_GROUP_row}) {
    for (const char* format : {"u8_g32", "u4z_g32", "i8_row"}) {
      Call call(settings, format, 24, 128);
      set_compute(call, {group});
      Tensor a(call.queue, BL_DTYPE_f32, {20, 128}), c(call.queue, BL_DTYPE_f32, {20, 24});
      a.fill([](int64_t i) {
        const int64_t row = i / 128, k = i % 128;
        if (row == 1 || (row == 2 && k < 32)) return 0.0f;
        if (row == 3) return 1e-39f * static_cast<float>(k);
        if (row == 4 && k == 77) return INFINITY;
        if (row == 5 && k == 3) return NAN;
        return static_cast<float>(i * 37 % 201 - 100) * (row == 6 ? 1e30f : 1.0f);
      });
      call.set(&bl_matmul_args::a, a);
      call.compare(c, format[1] == '8' && group == BL_ACTIVATION_GROUP_row ? 1e-5 : 0,
                   std::string("i8 rare numbers ") + format);
    }
  }
}

// What comes after the product is as with other numbers; stacks; splits.
BITLOOM_CUDA_TEST(matmul_i8_epilogue) {
  for (const char* format : {"u4_g32", "i8_row", "u4z_g128", "u4_g128", "u4z_row"}) {
    for (int64_t m : {9, 30}) {
      for (int32_t activation : {BL_ACTIVATION_silu, BL_ACTIVATION_swiglu}) {
        for (int32_t group : {BL_ACTIVATION_GROUP_32, BL_ACTIVATION_GROUP_row}) {
          for (int32_t multiprocessors : {1, 108}) {
            Settings settings;
            settings.multiprocessors = multiprocessors;
            constexpr int64_t n = 48, k = 1152;
            Call call(settings, format, n, k);
            set_compute(call, {group});
            const int64_t columns = activation == BL_ACTIVATION_swiglu ? n / 2 : n;
            Tensor a(call.queue, BL_DTYPE_f32, {m, k}), c(call.queue, BL_DTYPE_f32, {m, columns});
            Tensor bias(call.queue, BL_DTYPE_f32, {n}), row_scale(call.queue, BL_DTYPE_f32, {n});
            Tensor down(call.queue, BL_DTYPE_f16, {4, k}), up(call.queue, BL_DTYPE_f32, {n, 4});
            a.uniform(1, 0.1f);
            bias.uniform(2);
            row_scale.uniform(3);
            down.uniform(4, 0.1f);
            up.uniform(5);
            call.set(&bl_matmul_args::a, a);
            call.set(&bl_matmul_args::bias, bias);
            call.set(&bl_matmul_args::row_scale, row_scale);
            call.set(&bl_matmul_args::low_rank_down, down);
            call.set(&bl_matmul_args::low_rank_up, up);
            call.device.low_rank_scale = call.host.low_rank_scale = 0.5f;
            call.device.activation = call.host.activation = activation;
            call.compare(c, 2e-5, "i8 epilogue " + shape_name(format, m, n, k));
          }
        }
      }
    }
  }
  for (int64_t m : {4, 20}) {  // a stack of three matrices
    Call call(one_multiprocessor(), "u4_g32", 3 * 16, 128);
    set_compute(call, {});
    Tensor a(call.queue, BL_DTYPE_f16, {3, m, 128}), c(call.queue, BL_DTYPE_bf16, {3, m, 16});
    a.uniform(7);
    call.set(&bl_matmul_args::a, a);
    call.device.batch = call.host.batch = 3;
    call.compare(c, 0, "i8 stack");
  }
}

// Every schedule and delivery of copies gives the same bits, and no fault.
BITLOOM_CUDA_TEST(matmul_i8_schedules) {
  const struct {
    const char* format;
    int32_t group;
  } cases[] = {{"u4_g32", 0},   {"q4_k", 0},   {"u3z_g64", 0}, {"q8_0", 0},    {"u4_g128", 1},
               {"u4z_g128", 1}, {"i8_row", 1}, {"u4z_row", 1}, {"u8z_g128", 1}};
  for (const auto& it : cases) {
    for (int64_t m : {5, 20}) {
      std::vector<uint8_t> first;
      for (const Settings& settings : all_schedules()) {
        const std::string what =
            "i8 " + shape_name(it.format, m, 24, 768) + " seed " + std::to_string(settings.options.seed);
        try {
          Call call(settings, it.format, 24, 768);
          set_compute(call, {it.group});
          Tensor a(call.queue, BL_DTYPE_f16, {m, 768}), c(call.queue, BL_DTYPE_f32, {m, 24});
          a.uniform(1);
          call.device.a = a.device();
          call.device.c = c.device();
          bl_error error{};
          check_ok(matmul(call.queue, call.device, &error), error, what);
          if (first.empty()) first = c.device_bytes();
          check(c.device_bytes() == first, what + ": the same bits");
        } catch (const std::exception& fault) {
          check(false, what + ": " + fault.what());
        }
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
