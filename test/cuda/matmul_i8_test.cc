// matmul of int8 on the interpreter: the scalar kernel's bits where sums are added in its order, exact
// integers, bounds elsewhere; activations in every form; shapes around the edges of tiles.
#include "matmul_i8_calls.h"

namespace bitloom::cuda::testing {
namespace {

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
    for (Settings settings : all_archs()) {
      settings.multiprocessors = 1;
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
  for (Settings settings : all_archs()) {
    settings.multiprocessors = 1;
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
  // Longer than int32 sums are kept for.
  compare_integers(one_multiprocessor(), "u4_row", 17, 1, 65600, "matmul_prompt_coarse_", 2 * kReordered,
                   row);
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

}  // namespace bitloom::cuda::testing
