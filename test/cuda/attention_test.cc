// attention on the interpreter, against the CPU's scalar kernel (f64).
#include <cmath>
#include <limits>

#include "cuda/backend.h"
#include "tensors.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;

struct Case {
  int64_t queries = 1, keys = 40, heads = 4, kv_heads = 2, head_dim = 16, value_dim = 0;  // 0: as head_dim
  int32_t q = BL_DTYPE_f32, kv = BL_DTYPE_f32, output = BL_DTYPE_f32;
  int32_t causal = 0, window = 0;
  bool strided = false;  // keys of a cache [kv_heads, capacity, head_dim], gaps elsewhere
  float scale = 0, largest = 1;
  std::string name = "";
};

// Channels of a head strided by 2 would make every view plain; a gap keeps a wide view wide.
std::vector<int64_t> strides_of(bool strided, int64_t tokens, int64_t heads, int64_t width) {
  if (!strided) return {};
  return {width, (tokens + 3) * width, 1 + 0 * heads};
}

void run(TestQueue& queue, const Case& c,
         const std::function<void(Tensor&, Tensor&, Tensor&)>& change = nullptr) {
  const int64_t value_dim = c.value_dim == 0 ? c.head_dim : c.value_dim;
  Tensor q(queue, c.q, {c.queries, c.heads, c.head_dim},
           strides_of(c.strided, c.queries, c.heads, c.head_dim));
  Tensor k(queue, c.kv, {c.keys, c.kv_heads, c.head_dim},
           strides_of(c.strided, c.keys, c.kv_heads, c.head_dim));
  Tensor v(queue, c.kv, {c.keys, c.kv_heads, value_dim},
           strides_of(c.strided, c.keys, c.kv_heads, value_dim));
  Tensor output(queue, c.output, {c.queries, c.heads, value_dim},
                strides_of(c.strided, c.queries, c.heads, value_dim));
  q.uniform(1, c.largest);
  k.uniform(2, c.largest);
  v.uniform(3, c.largest);
  if (change) change(q, k, v);
  bl_attention_args args{sizeof(args), {BL_ISA_scalar, 0, nullptr, nullptr},
                         q.device(),   k.device(),
                         v.device(),   output.device(),
                         c.scale,      c.causal,
                         c.window};
  bl_error error{};
  const std::string what = "attention" + c.name + " " + std::to_string(c.queries) + "x" +
                           std::to_string(c.keys) + " heads " + std::to_string(c.heads) + "/" +
                           std::to_string(c.kv_heads) + " dims " + std::to_string(c.head_dim) + "/" +
                           std::to_string(value_dim) + " dtype " + std::to_string(c.kv);
  queue.launches.clear();
  check_ok(attention(queue, args, &error), error, what);
  args.q = q.host(), args.k = k.host(), args.v = v.host(), args.output = output.host();
  check_ok(bl_attention(&args, &error), error, what + " on the CPU");
  std::vector<float> expected;
  for (int64_t i = 0; i < output.size(); ++i) expected.push_back(output.host_value(i));
  // Scores are sums of head_dim products; exp makes their error relative. Weights and sums add some tens of
  // units.
  const double score = c.largest * c.largest * std::sqrt(static_cast<double>(c.head_dim));
  const double bound = (40 + 8 * score) * 0x1p-24 * c.largest;
  check_close(output, expected, epsilon_of(c.output), bound, what);
  check(queue.scratch_in_use() == 0, what + ": scratch is left");
}

void decoding(TestQueue& queue) {
  for (int32_t kv : kFloatDtypes) {
    for (int32_t output : kFloatDtypes)
      run(queue, {.q = output, .kv = kv, .output = output, .name = " types"});
    for (int64_t head_dim : {1, 7, 8, 24, 64, 80, 128, 256})
      run(queue, {.keys = 70, .head_dim = head_dim, .kv = kv});
    for (int64_t value_dim : {3, 40, 128}) run(queue, {.value_dim = value_dim, .kv = kv});
    run(queue, {.keys = 300, .head_dim = 264, .value_dim = 512, .kv = kv, .name = " long heads"});
    run(queue, {.keys = 150,
                .heads = 1,
                .kv_heads = 1,
                .head_dim = 576,
                .value_dim = 512,
                .kv = kv,
                .name = " long heads"});
    run(queue, {.keys = 600, .head_dim = 8, .kv = kv, .name = " split"});
    run(queue, {.queries = 3,
                .keys = 530,
                .heads = 5,
                .kv_heads = 1,
                .head_dim = 32,
                .kv = kv,
                .causal = 1,
                .name = " split"});
  }
  for (int64_t heads : {1, 3, 4, 5, 8, 11, 16}) {
    for (int32_t kv : {BL_DTYPE_f32, BL_DTYPE_f16}) {
      run(queue, {.heads = heads, .kv_heads = 1, .kv = kv});
      run(queue, {.keys = 33,
                  .heads = 2 * heads,
                  .kv_heads = 2,
                  .kv = kv,
                  .causal = 1,
                  .window = 7,
                  .name = " window"});
    }
  }
  for (int64_t keys : {1, 31, 32, 33, 127, 129, 255, 513}) run(queue, {.keys = keys, .kv = BL_DTYPE_bf16});
  run(queue, {.queries = 4, .keys = 20, .causal = 1, .window = 3, .strided = true, .name = " cache"});
  run(queue, {.queries = 4, .keys = 20, .kv = BL_DTYPE_f16, .causal = 1, .strided = true, .name = " cache"});
  run(queue, {.keys = 50, .head_dim = 9, .kv = BL_DTYPE_f16, .strided = true, .name = " cache"});
}

// Each kernel with each type of q, k and v, and output, wide and not.
void every_type(TestQueue& queue) {
  for (int32_t kv : kFloatDtypes) {
    for (int32_t q : kFloatDtypes) {
      for (int64_t heads : {1, 4, 8}) {
        run(queue,
            {.keys = 40, .heads = heads, .kv_heads = 1, .q = q, .kv = kv, .output = q, .name = " types"});
        run(queue, {.keys = 9,
                    .heads = heads,
                    .kv_heads = 1,
                    .head_dim = 9,
                    .q = q,
                    .kv = kv,
                    .output = q,
                    .name = " types"});
      }
      run(queue, {.keys = 300,
                  .heads = 3,
                  .kv_heads = 1,
                  .q = q,
                  .kv = kv,
                  .output = q,
                  .causal = 1,
                  .window = 280,
                  .name = " types"});
      for (int64_t heads : {1, 4, 8}) {
        for (int64_t head_dim : {8, 64, 128, 256}) {
          run(queue, {.keys = 37,
                      .heads = heads,
                      .kv_heads = 1,
                      .head_dim = head_dim,
                      .value_dim = 16,
                      .q = q,
                      .kv = kv,
                      .output = q,
                      .name = " lanes"});
        }
      }
      for (int64_t head_dim : {264, 263}) {
        for (int64_t value_dim : {264, 263}) {
          run(queue, {.keys = 37,
                      .heads = 3,
                      .kv_heads = 1,
                      .head_dim = head_dim,
                      .value_dim = value_dim,
                      .q = q,
                      .kv = kv,
                      .output = q,
                      .name = " long"});
        }
      }
      for (int64_t width : {40, 136, 264}) {
        for (int64_t odd : {0, 1}) {
          run(queue, {.queries = 2,
                      .keys = 5,
                      .heads = 1,
                      .kv_heads = 1,
                      .head_dim = width - odd,
                      .q = q,
                      .kv = kv,
                      .output = q,
                      .causal = 1,
                      .name = " types"});
          run(queue, {.queries = 17,
                      .keys = 18,
                      .heads = 1,
                      .kv_heads = 1,
                      .head_dim = width - odd,
                      .q = q,
                      .kv = kv,
                      .output = q,
                      .causal = 1,
                      .window = 9,
                      .name = " types"});
        }
      }
    }
    run(queue,
        {.queries = 1, .keys = 5, .heads = 1, .kv_heads = 1, .head_dim = 576, .kv = kv, .name = " types"});
    run(queue,
        {.queries = 18, .keys = 5, .heads = 1, .kv_heads = 1, .head_dim = 576, .kv = kv, .name = " types"});
  }
}

void prompts(TestQueue& queue) {
  for (int32_t kv : kFloatDtypes) {
    run(queue, {.queries = 40, .keys = 70, .q = kv, .kv = kv, .output = kv, .causal = 1, .name = " prompt"});
    run(queue, {.queries = 20, .keys = 65, .head_dim = 33, .value_dim = 70, .kv = kv, .name = " prompt"});
    run(queue, {.queries = 20,
                .keys = 20,
                .heads = 1,
                .kv_heads = 1,
                .head_dim = 136,
                .value_dim = 256,
                .kv = kv,
                .causal = 1,
                .name = " prompt"});
    run(queue, {.queries = 3,
                .keys = 70,
                .heads = 7,
                .kv_heads = 1,
                .head_dim = 576,
                .value_dim = 512,
                .kv = kv,
                .causal = 1,
                .name = " prompt"});
  }
  for (int64_t queries : {17, 31, 63, 64, 65, 129}) {
    run(queue,
        {.queries = queries, .keys = queries + 5, .heads = 1, .kv_heads = 1, .causal = 1, .name = " prompt"});
  }
  for (int64_t keys : {1, 63, 64, 65, 128})
    run(queue, {.queries = 20, .keys = keys, .head_dim = 8, .name = " prompt"});
  run(queue, {.queries = 100,
              .keys = 150,
              .heads = 2,
              .kv_heads = 1,
              .head_dim = 8,
              .causal = 1,
              .window = 20,
              .name = " prompt"});
  run(queue, {.queries = 30, .keys = 40, .causal = 1, .strided = true, .name = " prompt"});
  run(queue,
      {.queries = 30, .keys = 40, .head_dim = 9, .kv = BL_DTYPE_f16, .strided = true, .name = " prompt"});
  run(queue, {.queries = 0, .keys = 40, .name = " empty"});
}

// NaN, infinities, and values that are not seen.
void specials(TestQueue& queue) {
  constexpr float kInfinity = std::numeric_limits<float>::infinity();
  const float nan = std::nanf("");
  for (int64_t queries : {1, 3, 40}) {
    const Case c{.queries = queries,
                 .keys = queries + 30,
                 .heads = 2,
                 .kv_heads = 1,
                 .head_dim = 8,
                 .causal = 1,
                 .window = 20,
                 .name = " special"};
    // The last keys are NaN: only the last query sees all of them; the first keys are beyond every window.
    run(queue, c, [&](Tensor&, Tensor& k, Tensor& v) {
      const auto poisoned = [&](int64_t i) {
        const int64_t key = i / 8;
        return key < 2 || key > c.keys - 2 ? nan : 0.25f * static_cast<float>(i % 7) - 0.7f;
      };
      k.fill(poisoned);
      v.fill(poisoned);
    });
    for (float special : {kInfinity, -kInfinity, nan}) {
      run(queue, c, [&](Tensor& q, Tensor& k, Tensor&) {
        q.fill([](int64_t) { return 0.5f; });
        k.fill([&](int64_t i) { return i / 8 == 14 ? special : 0.25f * static_cast<float>(i % 7); });
      });
      run(queue, c, [&](Tensor& q, Tensor& k, Tensor&) {
        q.fill([](int64_t) { return 0.5f; });
        k.fill([&](int64_t) { return special; });
      });
    }
  }
  run(queue, {.queries = 1, .keys = 100, .scale = 30, .largest = 4, .name = " sharp"});
  run(queue, {.queries = 20, .keys = 100, .scale = -0.5f, .name = " negative scale"});
}

void refused(TestQueue& queue) {
  Tensor q(queue, BL_DTYPE_f32, {20, 1, 640}), v(queue, BL_DTYPE_f32, {20, 1, 8}),
      output(queue, BL_DTYPE_f32, {20, 1, 8});
  bl_attention_args args{sizeof(args), {}, q.device(), q.device(), v.device(), output.device(), 0, 0, 0};
  bl_error error{};
  check(attention(queue, args, &error) == BL_STATUS_unsupported, "attention with heads of 640 channels");
}

void counters(TestQueue& queue) {
  run(queue, {.keys = 256, .heads = 8, .kv_heads = 1, .head_dim = 128, .kv = BL_DTYPE_f16});
  const auto loads = queue.launches.front().report.counters.total("ld.global.v4");
  check(loads.bytes == 2 * 256 * 256 && loads.sectors * 32 == loads.bytes,
        "attention: keys and values are read once and in whole sectors: " + std::to_string(loads.bytes));
  run(queue, {.queries = 64, .keys = 128, .heads = 1, .kv_heads = 1, .head_dim = 128});
  const auto shared = queue.launches.front().report.counters.total("ld.shared");
  check(shared.wavefronts == shared.ideal_wavefronts,
        "attention: excess passes of shared loads: " + std::to_string(shared.wavefronts) + " of " +
            std::to_string(shared.ideal_wavefronts));
}

}  // namespace

BITLOOM_CUDA_TEST(attention) {
  for (const Settings& settings : all_archs()) {
    TestQueue queue(settings);
    decoding(queue);
    prompts(queue);
    every_type(queue);
    specials(queue);
    refused(queue);
    counters(queue);
  }
  for (const Settings& settings : all_schedules()) {
    if (settings.options.copy_delivery != bitloom::ptx::CopyDelivery::poisoned)
      continue;  // there are no such copies
    TestQueue queue(settings);
    run(queue, {.queries = 2, .keys = 300, .causal = 1, .name = " scheduled"});
    run(queue, {.queries = 20, .keys = 70, .causal = 1, .name = " scheduled"});
  }
}
