// Products that are mutated.
#include "mutation_runs.h"

namespace bitloom::cuda::testing {
namespace {

// A choice of one table is made by the kernels of one table, which are the mutated ones.
Product with_one_table(Product it) {
  it.tables = 1;
  return it;
}

}  // namespace

std::vector<MutatedKernel> mutated_products() {
  constexpr int32_t kRow = BL_ACTIVATION_GROUP_row;
  using Formats = std::vector<const char*>;
  // Around the edges of tiles (64 by 128, 16 by 16), units (64), stages and groups; whole and split along K;
  // rows of a as they lie and rounded, with everything that may follow. The first of the formats, then each
  // way that scales are stored.
  const auto prompt = [](const Formats& formats) {
    std::vector<Run> runs;
    for (const Product& it :
         {Product{70, 200, 576}, Product{17, 40, 192},
          Product{65, 129, 328, BL_DTYPE_f16, Around::everything, 1}, Product{20, 20, 72},
          Product{20, 20, 72, BL_DTYPE_bf16, Around::everything, 1},
          Product{64, 128, 1088, BL_DTYPE_f16, Around::gates}, activated(17, BL_ACTIVATION_gelu)})
      runs.push_back(product(formats[0], it));
    for (const char* format : formats)
      runs.push_back(product(format, with_one_table({66, 130, 768, BL_DTYPE_f32, Around::everything, 1})));
    return runs;
  };
  // A warp has up to 12 units under way, a block up to 16 warps.
  const auto stream = [](const Formats& formats) {
    std::vector<Run> runs;
    for (const Product& it :
         {Product{11, 41, 1216}, Product{3, 20, 64},
          Product{9, 16, 2120, BL_DTYPE_f16, Around::everything, 1},
          Product{8, 33, 712, BL_DTYPE_f32, Around::everything, 1},
          Product{1, 15, 8, BL_DTYPE_f16, Around::gates}, activated(2, BL_ACTIVATION_gelu)})
      runs.push_back(product(formats[0], it));
    for (int64_t units = 1; units < 13; ++units) runs.push_back(product(formats[0], {3, 16, 64 * units + 8}));
    for (int64_t units : {16, 20, 24, 32, 40, 48, 64, 80})
      runs.push_back(product(formats[0], {.m = 1, .n = 16, .k = 64 * units, .multiprocessors = 1}));
    for (const char* format : formats) {
      runs.push_back(product(format, with_one_table({8, 17, 768, BL_DTYPE_f16, Around::everything, 1})));
      // Several turns of a ring of 8 warps, in the only tile: what is read from too far on is not there.
      runs.push_back(product(format, with_one_table({.m = 3, .n = 16, .k = 2048, .multiprocessors = 1})));
    }
    return runs;
  };
  const auto integers = [](const char* format, int32_t group, const Formats& others = {}) {
    std::vector<Run> runs = {
        int8_product(format, {.m = 70, .n = 200, .k = 576, .group = group}),
        int8_product(format, {65, 129, 328, BL_DTYPE_f32, Around::everything, 1, 0, group}),
        int8_product(format, {64, 128, 1216, BL_DTYPE_f16, Around::gates, 0, 0, group}),
        int8_product(format, {17, 15, 40, BL_DTYPE_bf16, Around::everything, 1, 0, group}),
        int8_product(format, {66, 130, 1024, BL_DTYPE_f32, Around::everything, 1, 0, group}),
        int8_product(format, {.m = 17, .n = 20, .k = 256, .multiprocessors = 1, .group = group}),
        int8_product(format, activated(17, BL_ACTIVATION_gelu, group))};
    for (const char* other : others)
      runs.push_back(int8_product(other, {20, 130, 768, BL_DTYPE_f32, Around::bias, 1, 0, group}));
    return runs;
  };
  const auto integer_stream = [](const char* format, int32_t group, const Formats& others) {
    std::vector<Run> runs = {
        int8_product(format, {.m = 3, .n = 200, .k = 576, .group = group}),
        int8_product(format, {9, 41, 1216, BL_DTYPE_f32, Around::everything, 0, 0, group}),
        int8_product(format, {16, 17, 2120, BL_DTYPE_f32, Around::everything, 1, 0, group}),
        int8_product(format, {8, 15, 40, BL_DTYPE_bf16, Around::everything, 1, 0, group}),
        int8_product(format, activated(2, BL_ACTIVATION_gelu, group))};
    for (int64_t units : {2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32})
      runs.push_back(
          int8_product(format, {.m = 9, .n = 16, .k = 64 * units, .multiprocessors = 1, .group = group}));
    for (const char* other : others)
      runs.push_back(int8_product(other, {10, 30, 768, BL_DTYPE_f32, Around::bias, 1, 0, group}));
    return runs;
  };
  // From 1 to 17 splits; sums are added by eights and fours.
  const auto finish = [] {
    std::vector<Run> runs = {product("u4_g64", {9, 70, 1216, BL_DTYPE_f16, Around::gates}),
                             product("u4_g32", {5, 33, 1216, BL_DTYPE_f32, Around::everything}),
                             product("u4_g32", {17, 32, 4160, BL_DTYPE_f32, Around::everything}),
                             finished({8, 70, 72}),
                             finished({5, 33, 72, false, BL_ACTIVATION_gelu}),
                             finished({6, 70, 72, true, BL_ACTIVATION_swiglu}),
                             finished({6, 66, 72, true, BL_ACTIVATION_geglu}),
                             finished({5, 70, 72, false, BL_ACTIVATION_relu, BL_DTYPE_i8, true}),
                             finished({5, 70, 72, false, BL_ACTIVATION_silu, BL_DTYPE_i8})};
    for (bool gates : {false, true}) {
      for (int32_t c : {BL_DTYPE_f32, BL_DTYPE_i8}) runs.push_back(finished_in_turns(gates, c));
    }
    for (int64_t rank : {1, 2, 3, 4, 7, 8, 9, 12, 17}) {
      const int32_t outliers = 1 + static_cast<int32_t>(rank) % 8;
      runs.push_back(finished({4, 34, 72, false, BL_ACTIVATION_none, BL_DTYPE_f32, false, rank, outliers}));
      runs.push_back(finished({4, 68, 72, true, BL_ACTIVATION_swiglu, BL_DTYPE_f32, false, rank, outliers}));
    }
    for (int32_t outliers = 1; outliers < 9; ++outliers) {
      runs.push_back(finished({4, 34, 72, false, BL_ACTIVATION_none, BL_DTYPE_f32, false, 1, outliers}));
      runs.push_back(finished({4, 68, 72, true, BL_ACTIVATION_swiglu, BL_DTYPE_f32, false, 1, outliers, 34}));
    }
    for (int64_t splits : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 17}) {
      runs.push_back(product("u4_g64", {8, 68, 64 * 8 * splits, BL_DTYPE_f16, Around::gates}));
      runs.push_back(product("u4_g64", {4, 16, 64 * 8 * splits, BL_DTYPE_f16, Around::bias}));
    }
    return runs;
  };
  const Formats c4 = {"u4_g64", "u4_g32", "u4_row", "u4_g128_bf16"};
  const Formats z4 = {"u4z_g32", "u4z_g32_bf16", "u4z_g128_bf16", "q4_1", "q4_k", "bfp4_g8", "bfp4_g64"};
  const Formats e4 = {"nvfp4_g16", "mxfp4", "e2m1_g32", "e2m1_g8", "fp4_g64", "fp4_g32_bf16", "fp4_row_bf16"};
  const Formats t4 = {"nf4_g64", "nf4_g64_bf16", "nf4_g32",       "nf4_row",
                      "iq4_nl",  "cbs4_g32",     "cbs4_g32_bf16", "cbs4_g64_bf16"};
  return {
      {"matmul", "matmul_prompt_c4", prompt(c4)},
      {"matmul", "matmul_prompt_z4", prompt(z4)},
      {"matmul", "matmul_prompt_e4", prompt(e4)},
      {"matmul", "matmul_prompt_t4", prompt(t4)},
      {"matmul", "matmul_stream_c4", stream(c4)},
      {"matmul", "matmul_stream_z4", stream(z4)},
      {"matmul", "matmul_stream_e4", stream(e4)},
      {"matmul", "matmul_stream_t4", stream(t4)},
      {"matmul_i8", "matmul_prompt_fine_c4", integers("u4_g64", 0, {"u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul_i8", "matmul_prompt_fine_z4",
       integers("u4z_g64", 0, {"u4z_g32", "u4z_row", "q4_1", "q4_k", "u4z_g64_bf16", "bfp4_g32", "i4z_g64"})},
      {"matmul_i8", "matmul_prompt_coarse_c4", integers("u4_g128", kRow, {"u4_g256", "u4_g128_bf16"})},
      {"matmul_i8", "matmul_prompt_whole_c8", integers("i8_row", kRow)},
      {"matmul_i8", "matmul_stream_fine_c4",
       integer_stream("u4_g64", 0, {"u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul", "matmul_finish", finish()}};
}

}  // namespace bitloom::cuda::testing
