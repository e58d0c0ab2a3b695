// rope on the interpreter: the CPU's bits.
#include <cmath>

#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  std::vector<int64_t> shape = {3, 2, 16};  // [..., tokens, heads, head_dim]
  int32_t x = BL_DTYPE_f32, output = BL_DTYPE_f32;
  std::vector<int64_t> x_strides = {}, output_strides = {};
  int32_t mode = BL_ROPE_half, rotary_dim = 0, scaling = BL_ROPE_SCALING_none;
  bool factors = false, in_place = false;
  float factor = 1;
  int64_t position_stride = 1;
  int32_t first_position = 0, step = 1;
  std::string name = "";
};

void run(TestQueue& queue, const Case& c) {
  const int64_t tokens = c.shape[c.shape.size() - 3], head_dim = c.shape.back();
  const int64_t pairs = (c.rotary_dim == 0 ? head_dim : c.rotary_dim) / 2;
  Tensor x(queue, c.x, c.shape, c.x_strides), output(queue, c.output, c.shape, c.output_strides);
  Tensor positions(queue, BL_DTYPE_i32, {tokens}, {c.position_stride}), factors(queue, BL_DTYPE_f32, {pairs});
  x.uniform(7, 2);
  factors.fill([&](int64_t i) { return c.factor + 0.25f * static_cast<float>(i % 7); });
  std::vector<int32_t> at;
  for (int32_t t = 0; t < tokens; ++t)
    at.push_back(c.first_position + (c.position_stride == 0 ? 0 : t * c.step));
  positions.integers(at);
  bl_rope_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_scalar;
  args.mode = c.mode;
  args.rotary_dim = c.rotary_dim;
  args.theta = 10000;
  args.scaling = c.scaling;
  args.factor = 8;
  args.low_freq_factor = 1;
  args.high_freq_factor = 4;
  args.original_context = 64;
  Tensor& result = c.in_place ? x : output;
  const std::string what = "rope" + c.name + " mode " + std::to_string(c.mode) + " head_dim " +
                           std::to_string(head_dim) + " dtype " + std::to_string(c.x);
  bl_error error{};
  args.x = x.device(), args.positions = positions.device(), args.output = result.device();
  if (c.factors) args.freq_factors = factors.device();
  check_ok(rope(queue, args, &error), error, what);
  args.x = x.host(), args.positions = positions.host(), args.output = result.host();
  if (c.factors) args.freq_factors = factors.host();
  check_ok(bl_rope(&args, &error), error, what + " on the CPU");
  check_same(result, what);
  check(queue.scratch_in_use() == 0, what + ": scratch is left");
}

void shapes(TestQueue& queue) {
  for (int32_t mode : {BL_ROPE_interleaved, BL_ROPE_half}) {
    for (int32_t x : kFloatDtypes) {
      for (int32_t output : kFloatDtypes)
        run(queue, {.x = x, .output = output, .mode = mode, .name = " types"});
      run(queue,
          {.x = x, .output = x, .mode = mode, .rotary_dim = 10, .in_place = true, .name = " in place"});
    }
    for (int64_t head_dim : {2, 6, 64, 128, 130}) run(queue, {.shape = {2, 5, head_dim}, .mode = mode});
    run(queue, {.shape = {2, 3, 20}, .mode = mode, .rotary_dim = 12, .name = " part"});
    run(queue, {.shape = {1, 2, 576}, .mode = mode, .name = " two tables"});
    run(queue, {.shape = {3, 2, 4, 2, 3, 8}, .mode = mode, .name = " batches"});
    run(queue, {.shape = {130, 3, 4}, .mode = mode, .name = " many tokens"});
    run(queue, {.shape = {2, 3, 8},
                .x_strides = {64, 8, 2},
                .output_strides = {3, 11, 40},
                .mode = mode,
                .name = " strided"});
  }
  for (int32_t x : kFloatDtypes) {
    for (int32_t output : kFloatDtypes) {
      run(queue,
          {.shape = {3, 5, 47}, .x = x, .output = output, .rotary_dim = 6, .name = " part of each type"});
      run(queue, {.shape = {2, 3, 2, 40},
                  .x = x,
                  .output = output,
                  .x_strides = {1000, 300, 90, 2},
                  .mode = BL_ROPE_interleaved,
                  .rotary_dim = 4,
                  .name = " part of each type"});
    }
  }
  run(queue, {.shape = {0, 2, 4}, .name = " empty"});
  run(queue, {.shape = {3, 2, 7}, .rotary_dim = 6, .name = " odd head_dim"});
}

void scalings(TestQueue& queue) {
  for (int32_t scaling :
       {BL_ROPE_SCALING_none, BL_ROPE_SCALING_linear, BL_ROPE_SCALING_llama3, BL_ROPE_SCALING_yarn}) {
    for (bool factors : {false, true}) {
      run(queue, {.shape = {4, 2, 64},
                  .scaling = scaling,
                  .factors = factors,
                  .first_position = 100,
                  .step = 1000,
                  .name = " scaling"});
    }
  }
  run(queue, {.shape = {1, 2, 576}, .factors = true, .name = " two tables"});
  run(queue,
      {.factors = true, .factor = 1e-4f, .first_position = 2147483000, .name = " beyond 2^31 radians"});
  for (float factor : {1e-3f, 1e-9f, 1e-18f, 1e-30f, 1e-38f}) {
    run(queue,
        {.factors = true, .factor = factor, .first_position = 2147000000, .step = 12345, .name = " huge"});
  }
  run(queue, {.position_stride = 0, .first_position = 77, .name = " one position"});
  run(queue, {.position_stride = 3, .first_position = 5, .step = 2, .name = " strided positions"});
  run(queue, {.first_position = 2147483000, .step = 100, .name = " far"});
}

// What the CPU refuses and a device does not see: negative positions turn the other way, an angle that is no
// number gives NaN.
void unchecked(TestQueue& queue) {
  const auto turned = [&](int32_t position, float factor) {
    Tensor x(queue, BL_DTYPE_f32, {1, 1, 2}), positions(queue, BL_DTYPE_i32, {1}),
        factors(queue, BL_DTYPE_f32, {1});
    x.fill([](int64_t i) { return i == 0 ? 1.0f : 0.0f; });
    positions.integers({position});
    factors.fill([&](int64_t) { return factor; });
    bl_rope_args args{};
    args.size = sizeof(args);
    args.theta = 10000;
    args.x = args.output = x.device();
    args.positions = positions.device();
    args.freq_factors = factors.device();
    bl_error error{};
    check_ok(rope(queue, args, &error), error, "rope of what is not checked");
    return x.device_values();
  };
  for (float factor : {1.0f, 1e-9f}) {
    const std::vector<float> there = turned(2000000123, factor), back = turned(-2000000123, factor);
    check(there[0] == back[0] && there[1] == -back[1], "rope: a negative position turns back");
  }
  check(std::isnan(turned(3, 0)[0]), "rope: an infinite angle gives NaN");
}

}  // namespace

BITLOOM_CUDA_TEST(rope) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    shapes(queue);
    scalings(queue);
    unchecked(queue);
  }
  for (const Settings& settings : all_schedules()) {
    TestQueue queue(settings);
    run(queue, {.shape = {2, 9, 70}, .name = " scheduled"});
    run(queue, {.shape = {1, 3, 600}, .name = " scheduled"});
  }
}
