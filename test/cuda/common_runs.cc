// A launch of every kernel of products and attention, of several stages, units and turns.
#include "mutation_runs.h"

namespace bitloom::cuda::testing {
namespace {

using Formats = std::vector<const char*>;

// Rows of a that stream kernels of 8 and of 16 rows take, and prompt kernels.
constexpr int64_t kRows[] = {3, 12, 20};

void add_products(std::vector<Run>& runs, const Formats& formats, Product it) {
  it.multiprocessors = 1;
  for (const char* format : formats) {
    for (int64_t m : kRows) {
      it.m = m;
      runs.push_back(product(format, it));
    }
  }
}

}  // namespace

std::vector<Run> common_runs() {
  constexpr int32_t kRow = BL_ACTIVATION_GROUP_row, k32 = BL_ACTIVATION_GROUP_32;
  const Product it{.m = 0, .n = 70, .k = 1280};
  const auto with = [&](int32_t a, int32_t compute = BL_COMPUTE_f32, int32_t group = 0) {
    Product other = it;
    other.a = a, other.compute = compute, other.group = group;
    return other;
  };
  std::vector<Run> runs;
  add_products(
      runs,
      {"u4_g32", "u8_g32", "u1_g32", "u2_g32", "u3_g32", "u4z_g32", "u5_g32", "u6_g32", "u7_g32", "u8z_g32",
       "e2m1_g32", "e2m3_g32", "e4m3_g32", "cb2_g32", "cb3_g32", "nf4_g32", "cbs4_g32", "f16"},
      it);
  add_products(runs, {"u4_g32", "u8_g32", "e2m1_g32", "e2m3_g32", "e4m3_g32", "bf16"}, with(BL_DTYPE_bf16));
  add_products(runs, {"u4_g32"}, with(BL_DTYPE_f32));
  add_products(runs, {"u4z_g32"}, with(BL_DTYPE_bf16));
  add_products(
      runs,
      {"u4_g64", "u8_g64", "u1_g64", "u2_g64", "u3_g64", "u4z_g64", "u5_g64", "u6_g64", "u7_g64", "u8z_g64"},
      with(BL_DTYPE_f32, BL_COMPUTE_i8, k32));
  add_products(runs, {"i4_g128", "i8_g128", "i4z_g128", "i8z_g128", "i4_row", "i8_row", "i4z_row", "i8z_row"},
               with(BL_DTYPE_f32, BL_COMPUTE_i8, kRow));
  add_products(runs, {"i8_row"}, with(BL_DTYPE_i8, BL_COMPUTE_i8));  // codes, whose rows have no largest
  for (int32_t group : {k32, kRow})
    add_products(runs, {"u4_g128", "e2m1_g128", "e2m3_g128", "e4m3_g128", "u8_g128"},
                 with(BL_DTYPE_f32, BL_COMPUTE_e4m3, group));
  // Decoding: each number of rows and heads of each length; prompts.
  for (int32_t kv : {BL_DTYPE_f16, BL_DTYPE_f32}) {
    for (int64_t head_dim : {64, 320}) {
      for (int64_t heads : {2, 8, 16})
        runs.push_back(attended(
            {.keys = 200, .heads = heads, .kv_heads = 2, .head_dim = head_dim, .kv = kv, .causal = 1}));
    }
  }
  for (int64_t head_dim : {64, 256, 576})
    runs.push_back(
        attended({.queries = 40, .keys = 90, .heads = 1, .kv_heads = 1, .head_dim = head_dim, .causal = 1}));
  return runs;
}

}  // namespace bitloom::cuda::testing
