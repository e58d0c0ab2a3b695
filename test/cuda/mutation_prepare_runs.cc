// Calls of products for the kernels that prepare a.
#include "matmul_calls.h"
#include "mutation_runs.h"

namespace bitloom::cuda::testing {

Run prepared(Prepared it) {
  return [=](TestQueue& queue) {
    constexpr int64_t kRows = 16, kColumns = 12;
    const int64_t wide = it.picked ? it.k + 32 : it.k;
    const bool codes = it.a == BL_DTYPE_i8;
    const PackedWeights b(queue, it.format, kColumns, it.k, 3);
    Tensor a(queue, it.a, {kRows, wide},
             it.strided ? std::vector<int64_t>{1, kRows + 1} : std::vector<int64_t>{wide + 8, 1});
    Tensor scales(queue, BL_DTYPE_f32,
                  it.scale_columns == 0
                      ? std::vector<int64_t>{kRows}
                      : std::vector<int64_t>{kRows, (wide + it.scale_columns - 1) / it.scale_columns});
    Tensor order(queue, BL_DTYPE_i32, {it.k}), factors(queue, BL_DTYPE_f32, {wide});
    Tensor c(queue, BL_DTYPE_f32, {kRows, kColumns});
    a.fill([&](int64_t i) {
      const int64_t row = i / wide, column = i % wide;
      if (row > 2) return column == std::min(160 * (row - 3) + 5, it.k - 1) ? 4.0f : 1.0f;
      if (codes) return static_cast<float>(i * 37 % 256 - 128);
      if (row == 1) return 0.0f;
      const float value = static_cast<float>(i * 37 % 225 - 112) / 64;
      return row == 2 ? 1e-38f * value : i % 3 == 1 ? 0x1p-17f * value : value;
    });
    scales.uniform(4);
    factors.uniform(6);
    std::vector<int32_t> columns;
    for (int64_t i = 0; i < it.k; ++i)
      columns.push_back(static_cast<int32_t>(i % 5 == 1   ? -3 - i
                                             : i % 5 == 3 ? wide + i
                                                          : (i * 5 + 3) % wide));
    order.integers(columns);
    bl_matmul_args args = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device();
    args.compute = it.compute, args.activation_group = codes ? 0 : it.group;
    if (codes) args.a_scales = scales.device();
    if (it.picked) args.column_order = order.device();
    if (it.scaled) args.column_scale = factors.device();
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, it.format);
  };
}

std::vector<Run> all_prepared(int32_t compute, int32_t group, const char* format,
                              const std::vector<int64_t>& columns) {
  std::vector<Run> runs;
  for (int64_t k : columns) {
    for (bool strided : {false, true}) {
      for (int32_t a : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) {
        for (bool picked : {false, true}) {
          for (bool scaled : {false, true})
            runs.push_back(prepared({compute, group, format, a, 0, k, picked, scaled, strided}));
        }
      }
      // Codes are not scaled, and not picked where they have scales of groups.
      for (bool picked : {false, true})
        runs.push_back(prepared({compute, group, format, BL_DTYPE_i8, 0, k, picked, false, strided}));
      if (k % 32 == 0)
        runs.push_back(prepared({compute, group, format, BL_DTYPE_i8, 32, k, false, false, strided}));
    }
  }
  return runs;
}

Run adapted(int32_t a_type, int64_t scale_columns, int32_t down_type, int64_t k, bool by_row) {
  return [=](TestQueue& queue) {
    constexpr int64_t kRows = 7, kColumns = 12, kAdapters = 3, kRank = 5;
    const bool codes = a_type == BL_DTYPE_i8;
    const PackedWeights b(queue, "i8_g32", kColumns, k, 3);
    using Sizes = std::vector<int64_t>;
    Tensor a(queue, a_type, {kRows, k}, {k + 8, 1}), c(queue, BL_DTYPE_f32, {kRows, kColumns});
    Tensor scales(queue, BL_DTYPE_f32, scale_columns == 0 ? Sizes{kRows} : Sizes{kRows, k / scale_columns});
    Tensor down(queue, down_type, by_row ? Sizes{kAdapters, kRank, k} : Sizes{kRank, k});
    Tensor up(queue, BL_DTYPE_f32, by_row ? Sizes{kAdapters, kColumns, kRank} : Sizes{kColumns, kRank});
    Tensor ids(queue, BL_DTYPE_i32, {kRows});
    a.uniform(1, codes ? 100 : 1), scales.uniform(4), down.uniform(2), up.uniform(3);
    ids.integers({2, -1, 0, 3, 1, 4, -2});
    bl_matmul_args args = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device();
    if (codes) args.a_scales = scales.device();
    args.low_rank_down = down.device(), args.low_rank_up = up.device(), args.low_rank_scale = 0.5f;
    if (by_row) args.low_rank_ids = ids.device();
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, "matmul_low_rank");
  };
}

}  // namespace bitloom::cuda::testing
