// sample on the interpreter: the CPU's tokens.
#include <cmath>
#include <limits>

#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  int64_t vocab = 50;
  float temperature = 1, top_p = 0, min_p = 0, penalty = 0, scale = 5;
  int32_t top_k = 0;
  std::vector<int32_t> previous = {};
  int64_t previous_stride = 1;
  uint64_t draws = 3;
  std::string name = "";
};

void run(TestQueue& queue, const Case& c, const std::function<float(int64_t)>& value = nullptr) {
  Tensor logits(queue, BL_DTYPE_f32, {c.vocab});
  logits.uniform(static_cast<uint64_t>(c.vocab), c.scale);
  if (value) logits.fill(value);
  Tensor previous(queue, BL_DTYPE_i32, {static_cast<int64_t>(c.previous.size())}, {c.previous_stride});
  previous.integers(c.previous);
  for (uint64_t position = 0; position < c.draws; ++position) {
    int32_t token = -1, expected = -1;
    float probability = -1, expected_probability = -1;
    bl_sample_args args{};
    args.size = sizeof(args);
    args.run.isa = BL_ISA_default;
    args.temperature = c.temperature;
    args.top_k = c.top_k;
    args.top_p = c.top_p;
    args.min_p = c.min_p;
    args.repetition_penalty = c.penalty;
    args.seed = 42;
    args.position = position;
    const auto views = [&](const bl_tensor& from, const bl_tensor& ids, int32_t* to, float* chance) {
      args.logits = from;
      args.previous = c.previous.empty() ? bl_tensor{} : ids;
      args.token = to;
      args.probability = chance;
    };
    bl_error error{}, cpu_error{};
    views(logits.device(), previous.device(), &token, &probability);
    const bl_status status = sample(queue, args, &error);
    views(logits.host(), previous.host(), &expected, &expected_probability);
    const bl_status cpu_status = bl_sample(&args, &cpu_error);
    const std::string what =
        "sample" + c.name + " of " + std::to_string(c.vocab) + " draw " + std::to_string(position);
    check(status == cpu_status, what + ": status " + std::to_string(status) + ": " + error.message);
    if (cpu_status != BL_STATUS_ok) {
      const std::string ours = error.message, cpus = cpu_error.message;
      check(ours.substr(0, 18) == cpus.substr(0, 18), what + ": '" + ours + "' instead of '" + cpus + "'");
    } else {
      check(token == expected,
            what + ": token " + std::to_string(token) + ", expected " + std::to_string(expected));
      check(std::fabs(probability - expected_probability) <= 0x1p-22 * expected_probability,
            what + ": probability " + std::to_string(probability) + ", expected " +
                std::to_string(expected_probability));
    }
    check(queue.scratch_in_use() == 0, what + ": scratch is left");
  }
}

void options(TestQueue& queue) {
  run(queue, {.temperature = 0, .name = " greedy"});
  run(queue, {.temperature = 0, .name = " greedy, equal"},
      [](int64_t i) { return i % 7 == 3 ? 2.0f : 1.0f; });
  run(queue, {.temperature = 0, .name = " greedy, zeros"}, [](int64_t i) { return i == 0 ? -0.0f : 0.0f; });
  run(queue, {.name = " plain"});
  run(queue, {.temperature = 0.1f, .name = " cold"});
  run(queue, {.top_k = 5, .name = " top_k"});
  run(queue, {.top_k = 50, .name = " top_k"});
  run(queue, {.top_p = 0.7f, .name = " top_p"});
  run(queue, {.min_p = 0.2f, .name = " min_p"});
  run(queue, {.min_p = 0.01f, .scale = 0.1f, .name = " min_p of all"});
  run(queue, {.temperature = 0.8f, .top_p = 0.9f, .min_p = 0.01f, .top_k = 20, .name = " all"});
  for (float penalty : {1.0f, 1.3f, 0.5f}) {
    run(queue, {.temperature = 0.5f, .penalty = penalty, .previous = {3, 7, 3, 49, 0}, .name = " penalty"});
    run(queue, {.temperature = 0,
                .penalty = penalty,
                .previous = {9, 9, 11},
                .previous_stride = 3,
                .name = " penalty"});
  }
  run(queue, {.vocab = 1, .name = " one token"});
}

// More candidates than one batch holds, equal ones among them.
void large(TestQueue& queue) {
  run(queue, {.vocab = 3000, .scale = 0.1f, .name = " flat"});
  run(queue, {.vocab = 2500, .top_p = 0.95f, .scale = 0.1f, .draws = 2, .name = " flat top_p"});
  run(queue, {.vocab = 2500, .scale = 0.1f, .top_k = 1500, .draws = 2, .name = " flat top_k"});
  run(queue, {.vocab = 5000, .name = " steep"});
  run(queue, {.vocab = 2600, .draws = 2, .name = " equal"}, [](int64_t) { return 1.0f; });
  run(queue, {.vocab = 2600, .draws = 2, .name = " two levels"},
      [](int64_t i) { return i % 2 == 0 ? 1.0f : -2.0f; });
  // Weights that are subnormal in f64, and 0.
  run(queue, {.vocab = 70, .draws = 2, .name = " subnormal"},
      [](int64_t i) { return -11.0f * static_cast<float>(i); });
  run(queue, {.vocab = 1300, .temperature = 1e-3f, .draws = 2, .name = " vanishing"},
      [](int64_t i) { return -static_cast<float>(i); });
}

void specials(TestQueue& queue) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  run(queue, {.name = " infinity"}, [&](int64_t i) { return i % 10 == 4 ? kInfinity : 1.0f; });
  run(queue, {.name = " -infinity"}, [&](int64_t i) { return i % 10 == 4 ? 1.5f : -kInfinity; });
  run(queue, {.name = " all -infinity"}, [&](int64_t) { return -kInfinity; });
  run(queue, {.previous = {4}, .name = " NaN"},
      [](int64_t i) { return i == 4 || i == 30 ? std::nanf("") : 0.5f; });
  run(queue, {.penalty = 2, .previous = {0, 1, 2}, .name = " penalized extremes"}, [&](int64_t i) {
    return i == 0 ? kInfinity : i == 1 ? -3e38f : i == 2 ? -kInfinity : 0.5f;
  });
  run(queue, {.previous = {4, 50, -1}, .name = " bad previous"});
}

}  // namespace

BITLOOM_CUDA_TEST(sampling) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    options(queue);
    large(queue);
    specials(queue);
  }
  for (Settings settings : all_archs()) {
    settings.multiprocessors = 1;
    TestQueue few(settings);
    run(few, {.vocab = 5000, .name = " on a small device"});
  }
  for (const Settings& settings : all_schedules()) {
    if (settings.options.copy_delivery != bitloom::ptx::CopyDelivery::poisoned)
      continue;  // there are no such copies
    TestQueue queue(settings);
    run(queue, {.vocab = 1500, .top_p = 0.9f, .draws = 1, .name = " scheduled"});
  }
}
