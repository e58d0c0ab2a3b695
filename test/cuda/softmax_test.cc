// softmax on the interpreter, against the CPU's scalar kernel.
#include <cmath>
#include <limits>

#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  std::vector<int64_t> shape = {2, 64};
  int32_t x = BL_DTYPE_f32, output = BL_DTYPE_f32;
  std::vector<int64_t> x_strides = {}, output_strides = {};
  bool in_place = false;
  float scale = 1;
  std::string name = "";
};

void run(TestQueue& queue, const Case& c, const std::function<float(int64_t)>& value = nullptr) {
  Tensor x(queue, c.x, c.shape, c.x_strides), output(queue, c.output, c.shape, c.output_strides);
  x.uniform(1, 4);
  if (value) x.fill(value);
  Tensor& result = c.in_place ? x : output;
  bl_softmax_args args{
      sizeof(args), {BL_ISA_scalar, 0, nullptr, nullptr}, x.device(), result.device(), c.scale};
  bl_error error{};
  const std::string what =
      "softmax" + c.name + " of " + std::to_string(c.shape.back()) + " dtype " + std::to_string(c.x);
  check_ok(softmax(queue, args, &error), error, what);
  args.x = x.host(), args.output = result.host();
  check_ok(bl_softmax(&args, &error), error, what + " on the CPU");
  std::vector<float> expected;
  for (int64_t i = 0; i < result.size(); ++i) expected.push_back(result.host_value(i));
  const double t = 8 * std::fabs(c.scale);
  check_close(result, expected, (2 * t + 28) * 0x1p-24 + epsilon_of(c.output),
              c.output == BL_DTYPE_f16 ? 0x1p-24 : 1e-38, what);
}

}  // namespace

BITLOOM_CUDA_TEST(softmax) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    for (int32_t x : kFloatDtypes) {
      for (int32_t output : kFloatDtypes) run(queue, {.x = x, .output = output});
      run(queue, {.shape = {2, 3, 2, 16},
                  .x = x,
                  .output = x,
                  .x_strides = {500, 100, 32, 1},
                  .output_strides = {16, 96, 32, 1}});
      run(queue, {.shape = {2, 3, 2, 5},
                  .x = x,
                  .output = x,
                  .x_strides = {500, 100, 32, 1},
                  .output_strides = {5, 30, 10, 1}});
      for (int64_t length : {1, 5, 8, 33, 520, 1001}) run(queue, {.shape = {2, length}, .x = x, .output = x});
    }
    run(queue, {.shape = {1, 5000}, .name = " long"});
    run(queue, {.shape = {0, 4}, .name = " empty"});
    run(queue, {.shape = {3, 16}, .in_place = true, .name = " in place"});
    run(queue, {.shape = {3, 17}, .in_place = true, .scale = -0.5f, .name = " in place"});
    run(queue, {.shape = {2, 3, 8},
                .x_strides = {64, 16, 1},
                .output_strides = {30, 9, 1},
                .scale = -2,
                .name = " strided"});
    run(queue, {.shape = {3, 6}, .x_strides = {1, 4}, .name = " transposed"});
    for (int64_t length : {9, 16}) {
      for (float special : {kInfinity, -kInfinity, std::nanf(""), 3e38f, -3e38f}) {
        run(queue, {.shape = {2, length}, .name = " special"},
            [&](int64_t i) { return i == 3 ? special : 0.5f; });
      }
      run(queue, {.shape = {2, length}, .name = " all -infinity"}, [&](int64_t) { return -kInfinity; });
    }
    queue.launches.clear();
    run(queue, {.shape = {2, 1024}, .x = BL_DTYPE_f16, .output = BL_DTYPE_f16});
    const auto& counters = queue.launches.back().report.counters;
    check(counters.total("ld.global").bytes == 3 * 4096 && counters.total("").sectors * 32 == 4 * 4096,
          "softmax: three passes, every byte moved is used");
  }
  for (const Settings& settings : all_schedules()) {
    TestQueue queue(settings);
    run(queue, {.shape = {3, 520}, .name = " scheduled"});
  }
}
