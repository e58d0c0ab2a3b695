// matmul on the interpreter: identity activations, shapes around the edges of tiles, types, schedules.
#include "matmul_calls.h"

namespace bitloom::cuda::testing {

BITLOOM_CUDA_TEST(matmul_first) {
  for (const char* format : {"u4_g128", "q4_0"}) {
    check_identity({}, format, 16, 40, 128);
    check_identity({}, format, 64, 40, 128);
    check_product({}, format, 3, 40, 256);
    check_product({}, format, 70, 150, 256);
  }
}

BITLOOM_CUDA_TEST(matmul_formats) {
  for (const char* format :
       {"u1_g128",       "u2_g64",   "u3_g32",   "u4_g32",   "u5_g64",     "u6_g128",      "u7_g256",
        "u8_g32",        "i1_g32",   "i2_row",   "i3_g64",   "i4_row",     "i5_g32",       "i6_g32",
        "i7_g64",        "i8_row",   "u1z_g32",  "u2z_g32",  "u3z_g64",    "u4z_g32",      "u5z_row",
        "u6z_g128",      "u7z_g32",  "u8z_g64",  "i4z_g64",  "i8z_g32",    "u4_g128_bf16", "u4z_g64_bf16",
        "u8_row_bf16",   "t2_g256",  "nf4_g64",  "fp4_g32",  "cb1_g32",    "cb2_g64",      "cb3_row",
        "cb4_g128",      "cb5_g32",  "cb6_g64",  "cb7_g32",  "cb8_row",    "bfp2_g8",      "bfp3_g16",
        "bfp4_g32",      "bfp5_g16", "bfp6_g64", "bfp7_g8",  "bfp8_g128",  "e2m1_g16",     "e2m1_g8",
        "e2m3_g32",      "e3m2_g32", "e4m3_g32", "e5m2_g64", "mxint8_g32", "nvfp4_g16",    "mxfp4",
        "nvfp4",         "q8_0",     "q4_0",     "q4_1",     "q5_0",       "q5_1",         "q2_k",
        "q3_k",          "q4_k",     "q5_k",     "q6_k",     "tq1_0",      "tq2_0",        "iq4_nl",
        "f16",           "bf16",     "f32",      "cbs2_g32", "cbs3_g64",   "cbs4_g128",    "lut2_row",
        "lut3_row_bf16", "lut4_row"}) {
    for (const Settings& settings : all_archs()) {
      check_identity(settings, format, 16, 24, 256);
      check_identity(settings, format, 64, 24, 256);
    }
  }
}

// Around every edge of tiles, units and groups.
BITLOOM_CUDA_TEST(matmul_shapes) {
  const Settings settings;
  for (const char* format : {"u4_g64", "u3z_row", "q4_0", "nf4_g128"}) {
    const int64_t step = std::string(format) == "q4_0" ? 32 : 8;
    for (int64_t m : {1, 2, 15, 16, 17, 63, 64, 65, 129}) check_product(settings, format, m, 40, 192);
    for (int64_t n : {1, 15, 16, 17, 127, 128, 129, 260}) {
      check_product(settings, format, 5, n, 96);
      check_product(settings, format, 40, n, 96);
    }
    for (int64_t k : {1, 3, 4, 5, 7, 8, 9, 12, 16, 17, 24, 31, 33, 64}) {
      check_product(settings, format, 4, 20, k * step);
      check_product(settings, format, 20, 20, k * step);
    }
  }
  for (int64_t k : {1, 7, 63, 65, 77, 130}) {  // rows of a at odd places
    check_product(settings, "u5_row", 3, 20, k);
    check_product(settings, "i8z_g32", 33, 20, k);
  }
}

BITLOOM_CUDA_TEST(matmul_types) {
  for (int32_t a_type : kFloatDtypes) {
    for (int32_t c_type : kFloatDtypes) {
      check_product({}, "u4_g32", 7, 48, 128, a_type, c_type);
      check_product({}, "u4_g32", 37, 48, 128, a_type, c_type);
    }
  }
}

// Every schedule gives the same bits; sums of tensor cores stay within the bound.
BITLOOM_CUDA_TEST(matmul_schedules) {
  for (const char* format : {"u4_g32", "q4_k", "nf4_g64", "u3z_g32", "mxfp4", "f16"}) {
    for (int64_t m : {5, 20}) {
      std::vector<uint8_t> first;
      for (const Settings& settings : all_schedules()) {
        const std::string what =
            shape_name(format, m, 24, 512) + " seed " + std::to_string(settings.options.seed);
        try {
          TestQueue queue(settings);
          const PackedWeights b(queue, format, 24, 512, 3);
          Tensor a(queue, BL_DTYPE_f16, {m, 512}), c(queue, BL_DTYPE_f32, {m, 24});
          a.uniform(1);
          bl_matmul_args args = arguments();
          args.a = a.device();
          args.b = b.device();
          args.c = c.device();
          bl_error error{};
          check_ok(matmul(queue, args, &error), error, what);
          if (first.empty() || settings.arch != 80) {
            if (first.empty()) first = c.device_bytes();
          }
          check(c.device_bytes() == first, what + ": the same bits");
        } catch (const std::exception& fault) {
          check(false, what + ": " + fault.what());
        }
      }
      for (uint32_t block : {4, 8, 16}) {
        Settings settings;
        settings.options.mma_block = block;
        check_product(settings, format, m, 24, 512);
      }
    }
  }
}

// Splits of K: the same products for every device, whatever its size.
BITLOOM_CUDA_TEST(matmul_splits) {
  for (int32_t multiprocessors : {1, 4, 16, 132}) {
    Settings settings;
    settings.multiprocessors = multiprocessors;
    check_product(settings, "u4_g128", 4, 40, 2048 + 64);
    check_product(settings, "u4_g128", 17, 40, 2048 + 64);
    check_product(settings, "q6_k", 17, 40, 1792);
  }
}

}  // namespace bitloom::cuda::testing
