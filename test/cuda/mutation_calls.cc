#include "mutation_calls.h"

#include "mutation_runs.h"

namespace bitloom::cuda::testing {
namespace {

// A choice of one table is made by the kernels of one table, which are the mutated ones.
Product with_one_table(Product it) {
  it.tables = 1;
  return it;
}

std::vector<Run> with(std::vector<Run> runs, const std::vector<Run>& more) {
  runs.insert(runs.end(), more.begin(), more.end());
  return runs;
}

// Heads that end at each of 8 channels.
std::vector<Run> ends_of_heads(int64_t queries, int64_t heads, bool nan) {
  std::vector<Run> runs;
  for (int64_t head_dim = 9; head_dim <= 16; ++head_dim) {
    for (int64_t nan_rows : nan ? std::vector<int64_t>{0, 1} : std::vector<int64_t>{-1})
      runs.push_back(attended(
          {.queries = queries, .keys = 18, .heads = heads, .kv_heads = 1, .head_dim = head_dim, .causal = 1},
          nan_rows));
  }
  return runs;
}

}  // namespace

std::vector<MutatedKernel> mutated_kernels(bool thorough) {
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
  std::vector<MutatedKernel> all = {
      {"matmul", "matmul_prompt_c4", prompt({"u4_g64", "u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul", "matmul_prompt_z4",
       prompt({"u4z_g32", "u4z_g32_bf16", "u4z_g128_bf16", "q4_1", "q4_k", "bfp4_g8", "bfp4_g64"})},
      {"matmul", "matmul_prompt_e4",
       prompt({"nvfp4_g16", "mxfp4", "e2m1_g32", "e2m1_g8", "fp4_g64", "fp4_g32_bf16", "fp4_row_bf16"})},
      {"matmul", "matmul_prompt_t4",
       prompt({"nf4_g64", "nf4_g64_bf16", "nf4_g32", "nf4_row", "iq4_nl", "cbs4_g32", "cbs4_g32_bf16",
               "cbs4_g64_bf16"})},
      {"matmul", "matmul_stream_c4", stream({"u4_g64", "u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul", "matmul_stream_z4",
       stream({"u4z_g32", "u4z_g32_bf16", "u4z_g128_bf16", "q4_1", "q4_k", "bfp4_g8", "bfp4_g64"})},
      {"matmul", "matmul_stream_e4",
       stream({"nvfp4_g16", "mxfp4", "e2m1_g32", "e2m1_g8", "fp4_g64", "fp4_g32_bf16", "fp4_row_bf16"})},
      {"matmul", "matmul_stream_t4",
       stream({"nf4_g64", "nf4_g64_bf16", "nf4_g32", "nf4_row", "iq4_nl", "cbs4_g32", "cbs4_g32_bf16",
               "cbs4_g64_bf16"})},
      {"matmul_i8", "matmul_prompt_fine_c4", integers("u4_g64", 0, {"u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul_i8", "matmul_prompt_fine_z4",
       integers("u4z_g64", 0, {"u4z_g32", "u4z_row", "q4_1", "q4_k", "u4z_g64_bf16", "bfp4_g32", "i4z_g64"})},
      {"matmul_i8", "matmul_prompt_coarse_c4", integers("u4_g128", kRow, {"u4_g256", "u4_g128_bf16"})},
      {"matmul_i8", "matmul_prompt_whole_c8", integers("i8_row", kRow)},
      {"matmul_i8", "matmul_stream_fine_c4",
       integer_stream("u4_g64", 0, {"u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul", "matmul_finish", finish()},
      {"attention",
       "attention_decode_wide_4",
       {// Four rows of causal queries: in one part, in parts, with a window within a part and over parts.
        attended({.queries = 4,
                  .keys = 300,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .kv = BL_DTYPE_f16,
                  .causal = 1}),
        attended({.queries = 4,
                  .keys = 61,
                  .heads = 2,
                  .head_dim = 24,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .window = 20}),
        attended({.queries = 4,
                  .keys = 701,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 16,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .window = 150}),
        // As many rounds as parts at most; more, of which a part has several.
        attended(
            {.keys = 512, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 512}),
        attended({.keys = 1152,
                  .heads = 216,
                  .kv_heads = 54,
                  .head_dim = 8,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .key_count = 1152}),
        attended({.queries = 3,
                  .keys = 300,
                  .heads = 3,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .kv = BL_DTYPE_f16,
                  .causal = 1}),
        attended(
            {.keys = 900, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 530}),
        attended(
            {.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 37}),
        attended(
            {.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 45}),
        attended(
            {.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 60}),
        attended({.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 64},
                 -1, 7),
        attended({.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 64},
                 -1, -70),
        attended({.keys = 41, .heads = 6, .head_dim = 24, .value_dim = 16, .kv = BL_DTYPE_bf16}),
        attended(
            {.keys = 33, .heads = 4, .kv_heads = 1, .head_dim = 256, .value_dim = 248, .kv = BL_DTYPE_f16}),
        attended({.queries = 5,
                  .keys = 70,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 8,
                  .value_dim = 8,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .window = 9})}},
      {"attention", "attention_decode_plain_4",
       with(
           {attended({.queries = 2,
                      .keys = 45,
                      .heads = 3,
                      .kv_heads = 1,
                      .head_dim = 9,
                      .causal = 1,
                      .window = 20}),
            attended({.queries = 1, .keys = 300, .heads = 3, .kv_heads = 1, .head_dim = 255, .value_dim = 1}),
            attended({.keys = 600, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 513}),
            attended({.queries = 4, .keys = 61, .heads = 2, .head_dim = 12, .causal = 1, .window = 20}),
            attended({.queries = 4,
                      .keys = 701,
                      .heads = 1,
                      .kv_heads = 1,
                      .head_dim = 8,
                      .causal = 1,
                      .window = 150}),
            attended({.keys = 512, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 512}),
            attended(
                {.keys = 1152, .heads = 54, .kv_heads = 54, .head_dim = 8, .causal = 1, .key_count = 1152}),
            attended({.keys = 700, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 100}),
            attended({.keys = 64, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 64}, -1, -70),
            attended({.queries = 5,
                      .keys = 40,
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 63,
                      .value_dim = 33,
                      .causal = 1})},
           ends_of_heads(1, 4, true))},
      {"attention",
       "attention_merge",
       {attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16}),
        attended({.keys = 1500, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 600}),
        attended({.keys = 1500, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 100}),
        attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 600}, -1, -700),
        attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 600}, -1, 700),
        attended({.keys = 600, .head_dim = 32, .kv = BL_DTYPE_f16})}},
      {"attention", "attention_prompt_128",
       with({attended({.queries = 70,
                       .keys = 75,
                       .heads = 2,
                       .kv_heads = 1,
                       .head_dim = 40,
                       .value_dim = 72,
                       .causal = 1}),
             attended({.queries = 20,
                       .keys = 90,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 9,
                       .causal = 1,
                       .window = 30}),
             attended(
                 {.queries = 64, .keys = 64, .heads = 1, .kv_heads = 1, .head_dim = 128, .value_dim = 128}),
             // Longer than what is before the first query.
             attended({.queries = 80,
                       .keys = 80,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .causal = 1,
                       .window = 60}),
             // Windows that begin and end at each place of a tile of keys, where the largest score is.
             attended({.queries = 90,
                       .keys = 210,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .causal = 1,
                       .window = 100},
                      -1, 0, 1),
             attended({.queries = 90,
                       .keys = 210,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .causal = 1,
                       .window = 100},
                      -1, 0, -1),
             attended({.queries = 33, .keys = 64, .heads = 1, .kv_heads = 1, .head_dim = 8, .value_dim = 1}),
             attended({.queries = 17,
                       .keys = 130,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 127,
                       .value_dim = 65,
                       .causal = 1})},
            ends_of_heads(17, 1, false))},
      {"sampling", "sample_keys", {drawn({300}, 5, -5)}},
      // Turns; logits of 0.
      {"sampling",
       "sample_penalize",
       {drawn({300}, 5, -5), drawn({.vocab = 1900, .previous = 300}, 5, -5), levelled({40}, 40)}},
      // The largest is where every step of a reduction hands it on.
      {"sampling",
       "sample_largest",
       {drawn({700, 0.1f}, 5, -5),
        sampled({700, 0.1f}, [](int64_t i, Random& random) { return i == 255 ? 9 : random.uniform(); })}},
      {"sampling", "sample_mass", {drawn({2300}, 1, -1)}},
      {"sampling",
       "sample_pick",
       {drawn({.vocab = 1500, .top_p = 0.9f}, 0.3f, -0.3f), drawn({1300, 1, 1100, 0, 0.01f}, 3, -3),
        drawn({40, 1, 7, 0.9f, 0.2f}, 5, -5), drawn({40, 1, 40, 0.9f, 0.2f}, 5, -5),
        // All of one sign and binade: the first passes of the search do not tell them apart.
        drawn({.vocab = 1100, .top_p = 0.9f}, 0.4f, 1), searched(400), searched(511), searched(512),
        drawn({.vocab = 4100, .min_p = 0.9f}, 3,
              -3),  // masses of several blocks
                    // Keys that begin with those of id 1023: a batch of all from there on, which answers a
                    // question or does not; one more than a batch. A second batch of what is left, which it
                    // just holds.
        levelled({.vocab = 1030, .top_k = 1024}, 1030), levelled({.vocab = 1030, .top_k = 1026}, 1030),
        levelled({.vocab = 1025, .top_p = 0.9f}, 1024, 1),
        levelled({.vocab = 1536, .top_p = 0.9f}, 1024, 512), picked(1024)}},
      {"norm", "rms_norm_wide", {normalized(1000), normalized(8 * 512 + 264), normalized(8)}},
      {"norm", "rms_norm_plain", {normalized(701), normalized(1)}},
  };
  const auto add = [&](const char* module, std::initializer_list<const char*> kernels,
                       std::initializer_list<const char*> parts) {
    for (const char* kernel : kernels) all.push_back({module, kernel, {}, {parts.begin(), parts.end()}});
  };
  if (!thorough) return all;
  for (MutatedKernel& of : all) {
    if (of.module == "norm" || (of.module == "sampling" && of.kernel != "sample_pick"))
      of.parts.push_back(of.module);
  }
  add("norm", {"layer_norm_wide", "layer_norm_plain"}, {"norm"});
  add("softmax", {"softmax_wide", "softmax_plain"}, {"softmax"});
  add("rope", {"rope"}, {"rope"});
  add("kv", {"kv_write"}, {"kv"});
  add("copy", {"copy_wide", "copy_plain", "copy_convert"}, {"copy"});
  add("elementwise",
      {"elementwise_silu_wide", "elementwise_silu_plain", "elementwise_swiglu_wide",
       "elementwise_swiglu_plain"},
      {"elementwise"});
  add("embedding", {"embedding"}, {"embedding"});
  add("quantize", {"dequantize", "quantize_check", "quantize", "quantize_mse"}, {"quantize"});
  add("matmul", {"matmul_prepare", "matmul_prepare_wide", "matmul_prepare_e4m3"}, {"matmul_rows"});
  add("matmul", {"matmul_low_rank"}, {"matmul_low_rank_types"});
  add("matmul", {"matmul_unpack"}, {"matmul_formats"});
  add("matmul_i8", {"matmul_integer_rows"}, {"matmul_rows"});
  add("matmul_i8", {"matmul_collect"}, {"matmul_rows", "matmul_i8_epilogue"});
  add("matmul_fp8", {"matmul_fp8_rows"}, {"matmul_rows"});
  return all;
}

}  // namespace bitloom::cuda::testing
