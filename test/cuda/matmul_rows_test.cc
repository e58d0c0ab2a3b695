// matmul: rows of a of every type, with scales, columns picked and scaled, to f16, bf16, int8 and e4m3,
// around the counts of columns that the kernels which prepare them take at once.
#include "matmul_i8_calls.h"

namespace bitloom::cuda::testing {
namespace {

enum class Scales { none, rows, groups };
struct Given {
  int32_t type;
  Scales scales;
};
constexpr Given kGiven[] = {{BL_DTYPE_f32, Scales::none},
                            {BL_DTYPE_f16, Scales::none},
                            {BL_DTYPE_bf16, Scales::none},
                            {BL_DTYPE_i8, Scales::rows},
                            {BL_DTYPE_i8, Scales::groups}};

struct Rows {
  int32_t compute, group;
  const char* format;
  double bound;  // of a row's largest sums
};

// picked: columns in another order; scaled: by factors; strided: a is transposed.
void compare(const Settings& settings, const Rows& rows, const Given& given, int64_t m, int64_t k,
             bool picked, bool scaled, bool strided) {
  constexpr int64_t n = 12;
  Call call(settings, rows.format, n, k);
  TestQueue& queue = call.queue;
  for (bl_matmul_args* args : {&call.device, &call.host}) {
    args->compute = rows.compute;
    args->activation_group = given.scales == Scales::none ? rows.group : 0;
  }
  const int64_t wide = picked ? k + 32 : k;
  Tensor a(queue, given.type, {m, wide},
           strided ? std::vector<int64_t>{1, m + 1} : std::vector<int64_t>{wide + 8, 1});
  Tensor scales(queue, BL_DTYPE_f32,
                given.scales == Scales::rows ? std::vector<int64_t>{m} : std::vector<int64_t>{m, wide / 32});
  Tensor order(queue, BL_DTYPE_i32, {k}), factors(queue, BL_DTYPE_f32, {wide}),
      c(queue, BL_DTYPE_f32, {m, n});
  if (given.type == BL_DTYPE_i8) a.fill([](int64_t i) { return static_cast<float>(i * 37 % 255 - 127); });
  if (given.type != BL_DTYPE_i8) a.uniform(1);
  scales.fill([](int64_t i) { return 0.004f + 0.001f * static_cast<float>(i % 7); });
  std::vector<int32_t> columns;
  for (int64_t i = 0; i < k; ++i) columns.push_back(static_cast<int32_t>((i * 5 + 3) % wide));
  order.integers(columns);
  factors.uniform(6);
  call.set(&bl_matmul_args::a, a);
  if (given.scales != Scales::none) call.set(&bl_matmul_args::a_scales, scales);
  if (picked) call.set(&bl_matmul_args::column_order, order);
  if (scaled) call.set(&bl_matmul_args::column_scale, factors);
  call.compare(c, rows.bound * std::sqrt(static_cast<double>(k)),
               "rows " + shape_name(rows.format, m, n, k) + " compute " + std::to_string(rows.compute) +
                   " of type " + std::to_string(given.type) + (picked ? " picked" : "") +
                   (scaled ? " scaled" : "") + (strided ? " strided" : ""));
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_rows) {
  constexpr int32_t k32 = BL_ACTIVATION_GROUP_32, kRow = BL_ACTIVATION_GROUP_row;
  constexpr Rows kRows[] = {
      {BL_COMPUTE_f32, 0, "u4_g32", 0.004},     {BL_COMPUTE_bf16, 0, "u4_g32", 0.02},
      {BL_COMPUTE_i8, k32, "u4_g32", 0.02},     {BL_COMPUTE_i8, kRow, "u4z_g128", 0.02},
      {BL_COMPUTE_i8, kRow, "i8z_row", 0.02},   {BL_COMPUTE_e4m3, k32, "u4_g32", 0.05},
      {BL_COMPUTE_e4m3, kRow, "u4_g128", 0.05}, {BL_COMPUTE_e4m3, kRow, "u3_g64", 0.05}};
  for (const Settings& settings : all_archs()) {
    for (const Rows& rows : kRows) {
      for (const Given& given : kGiven) {
        int32_t turn = 0;
        for (int64_t k : {64, 320, 576, 1088, 1344, 2112}) {
          for (int32_t part = 0; part < 8; ++part, ++turn) {
            if (k > 320 && (turn + part) % 3 != 0) continue;
            // Columns of codes are not scaled, and not picked where they have scales of groups.
            if (given.scales != Scales::none && (part & 2) != 0) continue;
            if (given.scales == Scales::groups && (part & 1) != 0) continue;
            compare(settings, rows, given, 3, k, (part & 1) != 0, (part & 2) != 0, (part & 4) != 0);
          }
        }
      }
    }
    // Rows of f32 as they lie, each vector of a thread there or not.
    for (const Rows& rows :
         {Rows{BL_COMPUTE_f32, 0, "u4_g128", 0.004}, Rows{BL_COMPUTE_bf16, 0, "u4_g128", 0.02}}) {
      for (int64_t k : {32, 1024, 4096, 5120, 8192, 12288, 16384}) {
        compare(settings, rows, kGiven[0], 2, k, false, false, false);
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
