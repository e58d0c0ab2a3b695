// matmul of int8 on the interpreter: exact sums, epilogues, stacks, splits, schedules.
#include "matmul_i8_calls.h"

namespace bitloom::cuda::testing {

// Every PTX, K whole and cut.
static std::vector<Settings> both_splits() {
  std::vector<Settings> all;
  for (Settings settings : all_archs()) {
    for (int32_t multiprocessors : {1, 132}) {
      settings.multiprocessors = multiprocessors;
      all.push_back(settings);
    }
  }
  return all;
}

// Sums over all of K are the integers themselves, whatever the splits: float(sum) * (scale * scale).
BITLOOM_CUDA_TEST(matmul_i8_exact) {
  constexpr int64_t n = 40, k = 2176;
  for (const char* format : {"i8_row", "i4_row"}) {
    const bool bytes = format[1] == '8';
    for (int64_t m : {5, 33}) {
      for (Settings settings : both_splits()) {
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
