// The kernels that are mutated.
#include "mutation_calls.h"

#include "mutation_runs.h"

namespace bitloom::cuda::testing {
namespace {

constexpr int64_t kPlain = 13, kWide = 24;  // rows of single elements and of vectors

void append(std::vector<Run>& runs, const std::vector<Run>& more) {
  runs.insert(runs.end(), more.begin(), more.end());
}

// Views and turns of every pair of types.
std::vector<Run> of_types(RowOp op) {
  std::vector<Run> runs = views(op, kPlain);
  for (int32_t from : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) {
    for (int32_t to : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) append(runs, turns(op, 300, from, to));
  }
  return runs;
}

std::vector<MutatedKernel> mutated_sampling() {
  const std::vector<Run> picks = {
      drawn({.vocab = 1500, .top_p = 0.9f}, 0.3f, -0.3f), drawn({40, 1, 7, 0.9f, 0.2f}, 5, -5),
      drawn({1300, 1, 1100, 0, 0.01f}, 3, -3), drawn({40, 1, 40, 0.9f, 0.2f}, 5, -5),
      // All of one sign and binade: the first passes of the search do not tell them apart. Masses of several
      // blocks.
      drawn({.vocab = 1100, .top_p = 0.9f}, 0.4f, 1), searched(400), searched(511), searched(512),
      drawn({.vocab = 4100, .min_p = 0.9f}, 3, -3),
      // Keys that begin with those of id 1023: a batch of all from there on, which answers a question or does
      // not; one more than a batch. A second batch of what is left, which it just holds.
      levelled({.vocab = 1030, .top_k = 1024}, 1030), levelled({.vocab = 1030, .top_k = 1026}, 1030),
      levelled({.vocab = 1025, .top_p = 0.9f}, 1024, 1), levelled({.vocab = 1536, .top_p = 0.9f}, 1024, 512),
      picked(1024)};
  return {{"sampling", "sample_keys", {drawn({300}, 5, -5)}},
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
          {"sampling", "sample_pick", picks}};
}

// Kernels that walk rows: launches of their own beside those of the suite's parts. thorough: also those that
// do not synchronize.
std::vector<MutatedKernel> mutated_rows(bool thorough) {
  std::vector<MutatedKernel> all;
  const auto add = [&](const char* module, const char* kernel, std::vector<Run> runs) {
    all.push_back({module, kernel, std::move(runs), {module}});
  };
  std::vector<Run> wide = views(RowOp::rms_norm, kWide), plain = views(RowOp::rms_norm, kPlain);
  append(wide, {normalized(1000), normalized(8 * 512 + 264), normalized(8)});
  append(plain, {normalized(701), normalized(1)});
  add("norm", "rms_norm_wide", wide);
  add("norm", "rms_norm_plain", plain);
  wide = views(RowOp::layer_norm, kWide);
  for (int32_t type : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16})
    append(wide, turns(RowOp::layer_norm, 8 * 512 + 264, type, type));
  add("norm", "layer_norm_wide", wide);
  add("norm", "layer_norm_plain", views(RowOp::layer_norm, kPlain));
  add("softmax", "softmax_wide", views(RowOp::softmax, kWide));
  add("softmax", "softmax_plain", views(RowOp::softmax, kPlain));
  std::vector<Run> rotations;
  for (int32_t type : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) {
    for (int32_t mode : {BL_ROPE_half, BL_ROPE_interleaved}) rotations.push_back(rotated(2, 256, type, mode));
  }
  add("rope", "rope", rotations);
  if (!thorough) return all;
  add("kv", "kv_write", {});
  wide = views(RowOp::copy, kWide);
  append(wide, turns(RowOp::copy, 1200));
  add("copy", "copy_wide", wide);
  plain.clear();
  for (int32_t type : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_i8}) {
    append(plain, views(RowOp::copy, kPlain, type, type));
    append(plain, turns(RowOp::copy, 301, type, type));
  }
  add("copy", "copy_plain", plain);
  plain = views(RowOp::copy, kPlain, BL_DTYPE_i32, BL_DTYPE_i8);
  append(plain, turns(RowOp::copy, 300, BL_DTYPE_i32, BL_DTYPE_i8));
  add("copy", "copy_convert", plain);
  add("elementwise", "elementwise_silu_wide", views(RowOp::silu, kWide));
  add("elementwise", "elementwise_silu_plain", of_types(RowOp::silu));
  add("elementwise", "elementwise_swiglu_wide", views(RowOp::swiglu, kWide));
  add("elementwise", "elementwise_swiglu_plain", of_types(RowOp::swiglu));
  add("embedding", "embedding", {});
  all.push_back({"quantize", "dequantize", {}, {"quantize"}});
  std::vector<Run> encodings;
  for (int32_t from : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) {
    for (int32_t format : {BL_FORMAT_i8_g32, BL_FORMAT_u4_g32, BL_FORMAT_u4z_g32, BL_FORMAT_t2_g64,
                           BL_FORMAT_u3_g32, BL_FORMAT_q8_0, BL_FORMAT_q4_0})
      encodings.push_back(quantized(format, 64, from));
    for (int32_t format : {BL_FORMAT_i8_g32, BL_FORMAT_u4_g32, BL_FORMAT_u4z_g32, BL_FORMAT_t2_g64})
      encodings.push_back(quantized(format, 72, from));
    // Turns of 128 threads.
    encodings.insert(encodings.end(), 2, quantized(BL_FORMAT_i8_g32, 32 * 133, from));
  }
  add("quantize", "quantize", encodings);
  add("quantize", "quantize_check", encodings);
  return all;
}

// Kernels around the products.
std::vector<MutatedKernel> mutated_preparations() {
  constexpr int32_t k32 = BL_ACTIVATION_GROUP_32, kRow = BL_ACTIVATION_GROUP_row;
  const std::vector<int64_t> columns = {32, 72, 96, 104, 136, 168, 576};  // ends in each quarter of 128
  std::vector<MutatedKernel> all;
  std::vector<Run> runs =
      all_prepared(BL_COMPUTE_f32, 0, "u4_g32", {72, 328, 584, 840, 1088, 1336, 1592, 2112});
  append(runs, all_prepared(BL_COMPUTE_bf16, 0, "u4_g32", {72, 1088}));
  all.push_back({"matmul", "matmul_prepare", runs, {"matmul_rows"}});
  runs = all_prepared(BL_COMPUTE_e4m3, k32, "u4_g32", columns);
  for (int32_t group : {k32, kRow}) append(runs, all_prepared(BL_COMPUTE_e4m3, group, "u3_g64", {72, 576}));
  all.push_back({"matmul", "matmul_prepare_e4m3", runs, {"matmul_rows"}});
  append(runs, all_prepared(BL_COMPUTE_e4m3, kRow, "u4_g128", columns));
  append(runs, all_prepared(BL_COMPUTE_e4m3, kRow, "u4_g128", {328, 840, 1592}));
  all.push_back({"matmul_fp8", "matmul_fp8_rows", runs, {"matmul_rows"}});
  all.push_back({"matmul",
                 "matmul_prepare_wide",
                 {prepared({BL_COMPUTE_f32, 0, "u4_g32", BL_DTYPE_f32, 0, 72}),
                  prepared({BL_COMPUTE_f32, 0, "u4_g32", BL_DTYPE_f32, 0, 1088})},
                 {"matmul_rows"}});
  runs = all_prepared(BL_COMPUTE_i8, k32, "u4_g32", columns);
  for (const char* format : {"u4_g128", "i8z_row"})
    append(runs, all_prepared(BL_COMPUTE_i8, kRow, format, columns));
  all.push_back({"matmul_i8", "matmul_integer_rows", runs, {"matmul_rows"}});
  runs.clear();
  for (int64_t k : {8, 24, 40, 72, 96, 104, 128, 136, 160, 168, 264, 296}) {
    for (int32_t down : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) {
      for (bool by_row : {false, true}) {
        for (int32_t a : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16, BL_DTYPE_i8})
          runs.push_back(adapted(a, 0, down, k, by_row));
        if (k % 32 == 0) runs.push_back(adapted(BL_DTYPE_i8, 32, down, k, by_row));
      }
    }
  }
  all.push_back({"matmul", "matmul_low_rank", runs, {"matmul_low_rank_types"}});
  runs.clear();
  for (int64_t splits : {1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 15, 16, 17, 23})
    runs.push_back(int8_product("i8z_row", {.m = 9, .n = 70, .k = 128 * 8 * splits, .group = kRow}));
  all.push_back({"matmul_i8", "matmul_collect", runs, {"matmul_i8_epilogue"}});
  return all;
}

}  // namespace

std::vector<MutatedKernel> mutated_kernels(bool thorough) {
  std::vector<MutatedKernel> all;
  for (const auto& some :
       {mutated_products(), mutated_attention(), mutated_sampling(), mutated_rows(thorough)})
    all.insert(all.end(), some.begin(), some.end());
  if (!thorough) return all;
  for (MutatedKernel& of : all) {
    if (of.module == "sampling" && of.kernel != "sample_pick") of.parts.push_back("sampling");
  }
  for (const MutatedKernel& of : mutated_preparations()) all.push_back(of);
  return all;
}

}  // namespace bitloom::cuda::testing
