// rms_norm and layer_norm on the interpreter, against the CPU's scalar kernels.
#include <cmath>
#include <limits>

#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  int32_t x = BL_DTYPE_f32, weight = BL_DTYPE_f32, output = BL_DTYPE_f32;
  std::vector<int64_t> shape = {2, 64};
  std::vector<int64_t> x_strides = {}, output_strides = {};
  bool has_weight = true, has_bias = true, in_place = false;
  int64_t offset = 0;
  float mean = 0, scale = 1;
  std::string name = "";
};

template <typename Args>
void set_bias(Args&, const bl_tensor&) {}
void set_bias(bl_layer_norm_args& args, const bl_tensor& bias) { args.bias = bias; }

template <typename Args, typename Device, typename Host>
void run(TestQueue& queue, const Case& c, const std::string& op, Device device, Host host,
         const std::function<float(int64_t)>& value = nullptr) {
  const int64_t length = c.shape.back();
  Tensor x(queue, c.x, c.shape, c.x_strides, c.offset), weight(queue, c.weight, {length}, {}, c.offset),
      bias(queue, c.weight, {length}, {}, c.offset), output(queue, c.output, c.shape, c.output_strides);
  Random random(length);
  x.fill(value ? value : [&](int64_t) { return c.mean + c.scale * random.uniform(); });
  weight.uniform(3, 2);
  bias.uniform(4, 2);
  Args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_scalar;
  args.epsilon = 1e-5f;
  const auto fill_in = [&](const bl_tensor& from, const bl_tensor& w, const bl_tensor& b,
                           const bl_tensor& to) {
    args.x = from;
    args.weight = c.has_weight ? w : bl_tensor{};
    set_bias(args, c.has_bias ? b : bl_tensor{});
    args.output = to;
  };
  Tensor& result = c.in_place ? x : output;
  bl_error error{};
  fill_in(x.device(), weight.device(), bias.device(), result.device());
  check_ok(device(queue, args, &error), error, op + c.name);
  fill_in(x.host(), weight.host(), bias.host(), result.host());
  check_ok(host(&args, &error), error, op + c.name + " on the CPU");
  std::vector<float> expected;
  for (int64_t i = 0; i < result.size(); ++i) expected.push_back(result.host_value(i));
  // Sums of rows this short are right to 20 units; then the output's rounding.
  check_close(result, expected, 24 * 0x1p-24 + epsilon_of(c.output), 24 * 0x1p-24 * 3, op + c.name);
  check(queue.scratch_in_use() == 0, op + c.name + ": scratch is left");
}

void both(TestQueue& queue, Case c, const std::function<float(int64_t)>& value = nullptr) {
  c.name += " " + std::to_string(c.shape.back()) + " of dtype " + std::to_string(c.x);
  run<bl_rms_norm_args>(queue, c, "rms_norm", rms_norm, bl_rms_norm, value);
  run<bl_layer_norm_args>(queue, c, "layer_norm", layer_norm, bl_layer_norm, value);
}

void dtypes_and_lengths(TestQueue& queue) {
  for (int32_t x : kFloatDtypes) {
    for (int32_t output : kFloatDtypes)
      both(queue, {.x = x, .weight = output, .output = output, .name = " types"});
    for (int32_t weight : kFloatDtypes) {
      both(queue, {.x = x, .weight = weight, .shape = {1, 21}, .name = " types"});
      both(queue, {.x = x,
                   .weight = weight,
                   .shape = {2, 3, 2, 24},
                   .x_strides = {500, 100, 48, 1},
                   .name = " types"});
    }
    for (int64_t length : {1, 7, 8, 31, 256, 264, 520, 1001}) both(queue, {.x = x, .shape = {3, length}});
  }
  both(queue, {.shape = {1, 8192}, .name = " long"});
  both(queue, {.shape = {0, 8}, .name = " no rows"});
  both(queue, {.shape = {2, 0}, .name = " empty rows"});
  both(queue, {.shape = {24}, .name = " rank 1"});
  both(queue, {.has_weight = false, .has_bias = false, .name = " bare"});
  both(queue, {.shape = {2, 40}, .in_place = true, .name = " in place"});
  both(queue, {.shape = {2, 41}, .in_place = true, .name = " in place"});
  both(queue, {.shape = {2, 40}, .offset = 1, .name = " at an odd address"});
}

void strides(TestQueue& queue) {
  both(queue,
       {.shape = {2, 3, 16}, .x_strides = {64, 16, 1}, .output_strides = {16, 32, 1}, .name = " gaps"});
  both(queue, {.shape = {2, 3, 2, 16},
               .x_strides = {16, 64, 32, 1},
               .output_strides = {200, 17, 70, 1},
               .name = " gaps"});
  both(queue, {.shape = {2, 12}, .x_strides = {1, 2}, .output_strides = {40, 3}, .name = " transposed"});
}

void extremes(TestQueue& queue) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  both(queue, {.mean = 1000, .scale = 0.01f, .name = " mean beside deviations"});
  for (int32_t x : kFloatDtypes) {
    for (int64_t length : {11, 64, 600, 299}) {
      both(queue, {.x = x,
                   .weight = x,
                   .output = x,
                   .shape = {2, length},
                   .has_weight = length % 8 == 0,
                   .scale = x == BL_DTYPE_f16 ? 1e-7f : 1e-25f,
                   .name = " small"});
      both(queue, {.x = x,
                   .weight = BL_DTYPE_f32,
                   .output = x,
                   .shape = {2, length},
                   .scale = x == BL_DTYPE_f16 ? 5e4f : 1e25f,
                   .name = " large"});
      const Case zeros{.x = x, .weight = x, .output = x, .shape = {2, length}, .scale = 0, .name = " zero"};
      both(queue, zeros);
    }
  }
  both(queue, {.has_weight = false, .has_bias = false, .scale = 1e-25f, .name = " small"});
  both(queue, {.shape = {1, 11}, .has_weight = false, .has_bias = false, .scale = 1e25f, .name = " large"});
  both(queue, {.scale = 1e25f, .name = " large"});
  both(queue, {.scale = 0, .name = " zero"});
  both(queue, {.shape = {1, 11}, .scale = 1e30f, .name = " large plain"});
  for (float special : {kInfinity, -kInfinity, std::nanf("")}) {
    for (int64_t length : {11, 64}) {
      both(queue, {.shape = {2, length}, .name = " special"},
           [&](int64_t i) { return i == 3 ? special : static_cast<float>(i % 5) - 1.5f; });
    }
  }
}

// Types, views and magnitudes at random.
void random_cases(TestQueue& queue) {
  Random random(9);
  for (int i = 0; i < 120; ++i) {
    Case c{.x = kFloatDtypes[random.below(3)],
           .weight = kFloatDtypes[random.below(3)],
           .output = kFloatDtypes[random.below(3)]};
    const int64_t length = random.below(2) == 0 ? 8 * (1 + random.below(12)) : 1 + random.below(90);
    c.shape = {2, length};
    c.has_weight = random.below(4) != 0;
    c.has_bias = random.below(4) != 0;
    // Squares beyond f32's range or at its lower end are summed in f64; so are infinities.
    const float large = c.x == BL_DTYPE_f16 ? 5e4f : 1e25f, small = c.x == BL_DTYPE_f16 ? 1e-7f : 1e-25f;
    c.scale = i % 3 == 0 ? 1.0f : i % 3 == 1 ? large : small;
    if (random.below(3) == 0) c.x_strides = {length + 8, 1};
    if (random.below(4) == 0) c.output_strides = {2 * length, 2};
    c.name = " random";
    both(queue, c);
  }
}

void unaligned_is_refused(TestQueue& queue) {
  Tensor x(queue, BL_DTYPE_f32, {2, 8}), output(queue, BL_DTYPE_f32, {2, 8});
  bl_rms_norm_args args{};
  args.x = x.device();
  args.x.data = static_cast<uint8_t*>(args.x.data) + 2;
  args.output = output.device();
  bl_error error{};
  check(rms_norm(queue, args, &error) == BL_STATUS_unsupported, "rms_norm of a view at half an element");
}

// What the wide path moves: each byte of x once per pass, the output once.
void counters(TestQueue& queue) {
  queue.launches.clear();
  both(queue, {.shape = {2, 1024}});
  for (const Launched& launch : queue.launches) {
    const auto& counters = launch.report.counters;
    const auto loads = counters.total("ld.global"), stores = counters.total("st.global");
    const uint64_t passes = launch.kernel == "rms_norm_wide" ? 3 : 5;  // x 2 or 3 times, weight, bias
    check(loads.bytes == passes * 2 * 4096 && stores.bytes == 2 * 4096, launch.kernel + ": bytes");
    // A thread's 32 bytes of f32 are two requests of 16, each of which uses half of every sector.
    check(loads.sectors * 32 <= 2 * loads.bytes, launch.kernel + ": sectors");
  }
}

}  // namespace

BITLOOM_CUDA_TEST(norm) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    dtypes_and_lengths(queue);
    strides(queue);
    extremes(queue);
    random_cases(queue);
    unaligned_is_refused(queue);
    counters(queue);
  }
  for (const Settings& settings : all_schedules()) {
    TestQueue queue(settings);
    both(queue, {.shape = {3, 520}, .name = " scheduled"});
    both(queue, {.shape = {3, 70}, .scale = 1e25f, .name = " scheduled"});
  }
}
