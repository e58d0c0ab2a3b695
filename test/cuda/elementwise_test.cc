// silu, gelu, swiglu, add, mul on the interpreter, against the CPU's scalar kernels.
#include <cmath>
#include <limits>

#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

enum Op { kSilu, kGeluErf, kGeluTanh, kSwiglu, kAdd, kMul };
const char* const kOpNames[] = {"silu", "gelu", "gelu tanh", "swiglu", "add", "mul"};

struct Case {
  std::vector<int64_t> shape = {2, 64};
  std::vector<int64_t> right_shape = {};  // empty: as left
  int32_t left = BL_DTYPE_f32, right = BL_DTYPE_f32, output = BL_DTYPE_f32;
  std::vector<int64_t> left_strides = {}, right_strides = {}, output_strides = {};
  int in_place = 0;  // 1: output is left, 2: right
  int64_t offset = 0;
  float scale = 3;
  std::string name = "";
};

bl_status call(TestQueue* queue, Op op, const bl_tensor& left, const bl_tensor& right,
               const bl_tensor& output, bl_error* error) {
  bl_silu_args silu_args{sizeof(bl_silu_args), {BL_ISA_scalar, 0, nullptr, nullptr}, left, output};
  bl_gelu_args gelu_args{sizeof(bl_gelu_args), silu_args.run, left, output,
                         op == kGeluTanh ? BL_GELU_tanh : BL_GELU_erf};
  bl_binary_args args{sizeof(bl_binary_args), silu_args.run, left, right, output};
  switch (op) {
    case kSilu:
      return queue ? silu(*queue, silu_args, error) : bl_silu(&silu_args, error);
    case kGeluErf:
    case kGeluTanh:
      return queue ? gelu(*queue, gelu_args, error) : bl_gelu(&gelu_args, error);
    case kSwiglu:
      return queue ? swiglu(*queue, args, error) : bl_swiglu(&args, error);
    case kAdd:
      return queue ? add(*queue, args, error) : bl_add(&args, error);
    default:
      return queue ? mul(*queue, args, error) : bl_mul(&args, error);
  }
}

// In units of 2^-24 of the result (tile/math.cuh).
double units(Op op, double largest) {
  const double u = 1.596 * (largest + 0.0447 * largest * largest * largest);
  const double all[] = {10, 20, 14 + 8 * u, 12, 0, 0};
  return all[op];
}

void run(TestQueue& queue, Op op, const Case& c, const std::function<float(int64_t)>& value = nullptr) {
  const std::string what = std::string(kOpNames[op]) + c.name + " of dtype " + std::to_string(c.left);
  Tensor left(queue, c.left, c.shape, c.left_strides, c.offset);
  Tensor right(queue, c.right, c.right_shape.empty() || op == kSwiglu ? c.shape : c.right_shape,
               c.right_strides);
  Tensor output(queue, c.output, c.shape, c.output_strides);
  left.uniform(1, c.scale);
  if (value) left.fill(value);
  right.uniform(2, 3);
  Tensor& result = c.in_place == 1 ? left : c.in_place == 2 ? right : output;
  bl_error error{};
  check_ok(call(&queue, op, left.device(), right.device(), result.device(), &error), error, what);
  check_ok(call(nullptr, op, left.host(), right.host(), result.host(), &error), error, what + " on the CPU");
  std::vector<float> expected;
  for (int64_t i = 0; i < result.size(); ++i) expected.push_back(result.host_value(i));
  const double relative = units(op, value ? 13 : c.scale) * 0x1p-24;
  // A value may round to the other neighbour in a short type.
  check_close(result, expected, relative + (relative > 0 ? epsilon_of(c.output) : 0), 100 * 0x1p-147, what);
}

void all_ops(TestQueue& queue, const Case& c, const std::function<float(int64_t)>& value = nullptr) {
  for (Op op : {kSilu, kGeluErf, kGeluTanh, kSwiglu, kAdd, kMul}) run(queue, op, c, value);
}

void shapes(TestQueue& queue) {
  for (int32_t left : kFloatDtypes) {
    for (int32_t right : kFloatDtypes) {
      for (int32_t output : kFloatDtypes) {
        run(queue, kAdd, {.left = left, .right = right, .output = output, .name = " types"});
        run(queue, kMul, {.shape = {2, 3}, .left = left, .right = right, .output = output, .name = " types"});
      }
    }
    all_ops(queue, {.left = left, .right = left, .output = left, .name = " types"});
    all_ops(queue, {.shape = {3, 5}, .left = left, .right = left, .output = left, .name = " odd"});
  }
  for (int64_t count : {1, 8, 9, 255, 264, 2056}) all_ops(queue, {.shape = {count}, .name = " count"});
  all_ops(queue, {.shape = {}, .name = " scalar"});
  all_ops(queue, {.shape = {0, 4}, .name = " empty"});
  all_ops(queue, {.shape = {4, 8}, .in_place = 1, .name = " in place"});
  run(queue, kMul, {.shape = {4, 8}, .in_place = 2, .name = " in place right"});
  all_ops(queue, {.shape = {4, 8}, .offset = 1, .name = " at an odd address"});
}

void strides(TestQueue& queue) {
  for (Op op : {kAdd, kMul}) {
    run(queue, op, {.shape = {3, 2, 16}, .right_shape = {16}, .name = " suffix"});
    run(queue, op, {.shape = {3, 2, 5}, .right_shape = {2, 5}, .name = " suffix"});
    run(queue, op, {.shape = {3, 1}, .right_shape = {1}, .name = " one"});
  }
  all_ops(queue,
          {.shape = {3, 2, 16}, .left_strides = {64, 32, 1}, .output_strides = {16, 48, 1}, .name = " gaps"});
  all_ops(queue, {.shape = {4, 6}, .left_strides = {1, 4}, .output_strides = {13, 2}, .name = " transposed"});
  all_ops(queue, {.shape = {2, 3, 2, 2}, .left_strides = {50, 3, 20, 1}, .name = " rank 4"});
}

void extremes(TestQueue& queue) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float values[] = {0.0f,   -0.0f, 1e-40f, -1e-40f, 88.0f,     -88.0f,     -95.0f,        -104.0f,
                          -12.9f, -9.5f, 1e30f,  -1e30f,  kInfinity, -kInfinity, std::nanf(""), 3e38f};
  all_ops(queue, {.shape = {16}, .name = " extremes"}, [&](int64_t i) { return values[i]; });
  all_ops(queue, {.shape = {15}, .name = " extremes"}, [&](int64_t i) { return values[i]; });
  all_ops(queue, {.shape = {2048}, .scale = 9, .name = " range"});
}

// Every operator with every pair of types, on views that can't be joined, wide and not.
void every_branch(TestQueue& queue) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float values[] = {0,  -0.0f, 0.3f, -0.3f,     2,          -2,           9, -9, 1e-6f,
                          50, -50,   -100, kInfinity, -kInfinity, std::nanf("")};
  for (int32_t left : kFloatDtypes) {
    for (int32_t output : kFloatDtypes) {
      const auto value = [&](int64_t i) { return values[i % 15]; };
      const int32_t right = left == BL_DTYPE_f32 ? output : left;
      const Case types{.shape = {15}, .left = left, .right = right, .output = output, .name = " branches"};
      all_ops(queue, types, value);
      Case rows = types;
      rows.shape = {3, 5}, rows.left_strides = {11, 2};
      all_ops(queue, rows, value);
      all_ops(queue,
              {.shape = {2, 2, 2, 8},
               .left = left,
               .right = right,
               .output = output,
               .left_strides = {240, 32, 112, 1},
               .name = " branches"},
              value);
      all_ops(queue,
              {.shape = {2, 2, 2, 7},
               .left = left,
               .right = right,
               .output = output,
               .left_strides = {210, 23, 77, 2},
               .name = " branches"},
              value);
    }
  }
}

void counters(TestQueue& queue) {
  queue.launches.clear();
  run(queue, kSwiglu,
      {.shape = {4, 512}, .left = BL_DTYPE_f16, .right = BL_DTYPE_f16, .output = BL_DTYPE_f16});
  const auto& report = queue.launches.back().report.counters;
  check(report.total("ld.global").bytes == 2 * 4096 && report.total("st.global").bytes == 4096,
        "swiglu: bytes");
  check(report.total("").sectors * 32 == 3 * 4096, "swiglu: every byte moved is used");
}

}  // namespace

BITLOOM_CUDA_TEST(elementwise) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    shapes(queue);
    strides(queue);
    extremes(queue);
    every_branch(queue);
    counters(queue);
  }
  TestQueue few({first_arch(), {}, 1});  // fewer blocks than pieces: the kernels' strides over them
  all_ops(few, {.shape = {16 * 256 * 8 + 8}, .name = " long"});
  all_ops(few, {.shape = {16 * 256 + 3}, .name = " long"});
}
