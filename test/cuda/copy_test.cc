// copy on the interpreter, against conversions on the host.
#include <cmath>
#include <limits>

#include "cuda/ops/copy/copy.h"
#include "native/base/tensor.h"
#include "random_calls.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  std::vector<int64_t> shape = {2, 3, 32};
  int32_t input = BL_DTYPE_f32, output = BL_DTYPE_f32;
  std::vector<int64_t> input_strides = {}, output_strides = {};
  int64_t offset = 0;
  std::string name = "";
};

bool is_integer(int32_t dtype) { return dtype == BL_DTYPE_i8 || dtype == BL_DTYPE_i32; }

// What an element becomes.
float converted(float value, int32_t output) {
  if (!is_integer(output)) return value;
  if (std::isnan(value)) return 0;
  const double low = output == BL_DTYPE_i8 ? -128 : -2147483648.0,
               high = output == BL_DTYPE_i8 ? 127 : 2147483648.0;
  return static_cast<float>(std::fmin(std::fmax(std::nearbyint(value), low), high));
}

void run(TestQueue& queue, const Case& c, const std::function<float(int64_t)>& value = nullptr) {
  Tensor input(queue, c.input, c.shape, c.input_strides, c.offset),
      output(queue, c.output, c.shape, c.output_strides);
  input.uniform(5, 100);
  if (value) input.fill(value);
  bl_error error{};
  const std::string what =
      "copy" + c.name + " from dtype " + std::to_string(c.input) + " to " + std::to_string(c.output);
  check_ok(copy(queue, {input.device(), output.device()}, &error), error, what);
  if (c.input == c.output) {
    check(output.device_bytes() == input.host_bytes(), what + ": other bytes");
  } else {
    std::vector<float> expected;
    for (int64_t i = 0; i < input.size(); ++i) {
      float value = converted(input.host_value(i), c.output);
      if (!is_integer(c.output)) {  // conversions of tensors.cc round as the CPU does
        from_f32(c.output, value, &value);
        value = to_f32(c.output, &value);
      }
      expected.push_back(value);
    }
    check_close(output, expected, 0, 0, what);
  }
  check(output.padding_untouched(), what + ": wrote between the elements");
}

void dtypes(TestQueue& queue) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float values[] = {0.5f,  1.5f,  -2.5f,  127.5f,    -128.6f,    300,           -300,
                          1e-3f, 70000, -1e30f, kInfinity, -kInfinity, std::nanf(""), 3};
  constexpr int32_t kAll[] = {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16, BL_DTYPE_i8, BL_DTYPE_i32};
  for (int32_t input : kAll) {
    for (int32_t output : kAll) {
      run(queue, {.input = input, .output = output});
      run(queue, {.shape = {3, 7}, .input = input, .output = output});
      if (is_integer(input) || input == output) continue;
      run(queue, {.shape = {14}, .input = input, .output = output, .name = " extremes"},
          [&](int64_t i) { return values[i]; });
    }
  }
  run(queue, {.input = BL_DTYPE_u8, .output = BL_DTYPE_u8},
      [](int64_t i) { return static_cast<float>(i % 200); });
  bl_error error{};
  Tensor from(queue, BL_DTYPE_u8, {4}), to(queue, BL_DTYPE_f32, {4}), other(queue, BL_DTYPE_u8, {5});
  check(copy(queue, {from.device(), to.device()}, &error) == BL_STATUS_unsupported, "copy from u8 to f32");
  check(copy(queue, {from.device(), other.device()}, &error) == BL_STATUS_invalid_shape,
        "copy to another shape");
}

void strides(TestQueue& queue) {
  for (int32_t dtype : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_i8}) {
    run(queue, {.shape = {3, 2, 32},
                .input = dtype,
                .output = dtype,
                .input_strides = {32, 96, 1},
                .name = " heads first"});
    run(queue, {.shape = {3, 2, 32},
                .input = dtype,
                .output = dtype,
                .output_strides = {64, 256, 1},
                .name = " cache"});
    run(queue,
        {.shape = {5, 6}, .input = dtype, .output = dtype, .input_strides = {1, 5}, .name = " transposed"});
    run(queue, {.shape = {2, 3, 2, 3},
                .input = dtype,
                .output = dtype,
                .input_strides = {30, 9, 4, 1},
                .output_strides = {3, 6, 50, 1},
                .name = " rank 4"});
    run(queue, {.shape = {2, 3, 2, 16},
                .input = dtype,
                .output = dtype,
                .input_strides = {320, 96, 32, 1},
                .output_strides = {32, 128, 64, 1},
                .name = " rank 4"});
    run(queue,
        {.shape = {4, 16}, .input = dtype, .output = dtype, .offset = 1, .name = " at an odd address"});
  }
  run(queue, {.shape = {2, 3, 2, 4},
              .output = BL_DTYPE_bf16,
              .input_strides = {8, 16, 4, 1},
              .output_strides = {100, 9, 30, 2},
              .name = " rank 4"});
  run(queue, {.shape = {0, 4}, .name = " empty"});
  run(queue, {.shape = {}, .output = BL_DTYPE_f16, .name = " scalar"});
}

// Types, ranks and strides at random, long rows among them.
void copy_random(const Settings& given, uint64_t seed) {
  constexpr int32_t kAll[] = {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16, BL_DTYPE_i8, BL_DTYPE_i32};
  Random random(seed);
  Settings settings = given;
  settings.multiprocessors = static_cast<int32_t>(random.below(2));  // 1: fewer blocks than pieces
  TestQueue queue(settings);
  Case c{.shape = {}, .input = kAll[random.below(5)], .output = kAll[random.below(5)], .name = " random"};
  if (random.below(2) == 0) c.output = c.input;
  const int64_t rank = random.below(5);
  for (int64_t axis = 0; axis < rank; ++axis) c.shape.push_back(1 + random.below(4));
  if (rank > 0) c.shape.back() = random.below(2) == 0 ? 16 * (1 + random.below(4)) : 1 + random.below(60);
  if (rank > 0 && random.below(20) == 0) c.shape.back() = 16 * 256 * 5;
  int64_t step = random.below(3) == 0 ? 2 : 1;
  const bool gaps = random.below(2) == 0;
  c.input_strides.resize(static_cast<size_t>(rank));
  for (int64_t axis = rank - 1; axis >= 0; --axis) {
    c.input_strides[static_cast<size_t>(axis)] = step;
    step *= c.shape[static_cast<size_t>(axis)];
    if (gaps) step += 16 - step % 16;
  }
  run(queue, c);
}

}  // namespace

BITLOOM_CUDA_TEST(copy) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    dtypes(queue);
    strides(queue);
    queue.launches.clear();
    run(queue, {.shape = {64, 64}, .input = BL_DTYPE_f16, .output = BL_DTYPE_f16});
    const auto& counters = queue.launches.back().report.counters;
    check(counters.total("").bytes == 2 * 8192 && counters.total("").sectors * 32 == 2 * 8192,
          "copy: every byte moved is used");
  }
  for (Settings settings : all_archs()) {
    settings.multiprocessors = 1;
    TestQueue few(settings);
    run(few, {.shape = {16 * 256 * 4 + 4}, .name = " long"});
    run(few, {.shape = {16 * 256 + 3}, .name = " long"});
    run(few, {.shape = {16 * 256 + 3}, .output = BL_DTYPE_f16, .name = " long"});
  }
}

BITLOOM_CUDA_TEST(random_copy) { run_random("copy", copy_random); }
