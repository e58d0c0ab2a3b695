// attention on the interpreter, against the CPU's scalar kernel (f64).
#include <cmath>
#include <limits>

#include "attention_calls.h"

namespace {

using namespace bitloom::cuda;
using namespace bitloom::cuda::testing;
using Case = AttentionCase;

void decoding(TestQueue& queue) {
  for (int32_t kv : kFloatDtypes) {
    for (int32_t output : kFloatDtypes)
      attend(queue, {.q = output, .kv = kv, .output = output, .name = " types"});
    for (int64_t head_dim : {1, 7, 8, 24, 64, 80, 128, 256})
      attend(queue, {.keys = 70, .head_dim = head_dim, .kv = kv});
    for (int64_t value_dim : {3, 40, 128}) attend(queue, {.value_dim = value_dim, .kv = kv});
    attend(queue, {.keys = 300, .head_dim = 264, .value_dim = 512, .kv = kv, .name = " long heads"});
    attend(queue, {.keys = 150,
                   .heads = 1,
                   .kv_heads = 1,
                   .head_dim = 576,
                   .value_dim = 512,
                   .kv = kv,
                   .name = " long heads"});
    attend(queue, {.keys = 600, .head_dim = 8, .kv = kv, .name = " split"});
    attend(queue, {.queries = 3,
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
      attend(queue, {.heads = heads, .kv_heads = 1, .kv = kv});
      attend(queue, {.keys = 33,
                     .heads = 2 * heads,
                     .kv_heads = 2,
                     .kv = kv,
                     .causal = 1,
                     .window = 7,
                     .name = " window"});
    }
  }
  for (int64_t keys : {1, 31, 32, 33, 127, 129, 255, 513}) attend(queue, {.keys = keys, .kv = BL_DTYPE_bf16});
  attend(queue, {.queries = 4, .keys = 20, .causal = 1, .window = 3, .strided = true, .name = " cache"});
  attend(queue,
         {.queries = 4, .keys = 20, .kv = BL_DTYPE_f16, .causal = 1, .strided = true, .name = " cache"});
  attend(queue, {.keys = 50, .head_dim = 9, .kv = BL_DTYPE_f16, .strided = true, .name = " cache"});
}

// Each kernel with each type of q, k and v, and output, wide and not.
void every_type(TestQueue& queue) {
  for (int32_t kv : kFloatDtypes) {
    for (int32_t q : kFloatDtypes) {
      for (int64_t heads : {1, 4, 8}) {
        attend(queue,
               {.keys = 40, .heads = heads, .kv_heads = 1, .q = q, .kv = kv, .output = q, .name = " types"});
        attend(queue, {.keys = 9,
                       .heads = heads,
                       .kv_heads = 1,
                       .head_dim = 9,
                       .q = q,
                       .kv = kv,
                       .output = q,
                       .name = " types"});
      }
      attend(queue, {.keys = 300,
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
          attend(queue, {.keys = 37,
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
      for (int64_t widest : {264, 576}) {  // two and three vectors a lane
        for (int64_t head_dim : {widest, widest - 1}) {
          for (int64_t value_dim : {widest, widest - 1}) {
            attend(queue, {.keys = 37,
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
      }
      for (int64_t width : {40, 136, 264}) {
        for (int64_t odd : {0, 1}) {
          attend(queue, {.queries = 2,
                         .keys = 5,
                         .heads = 1,
                         .kv_heads = 1,
                         .head_dim = width - odd,
                         .q = q,
                         .kv = kv,
                         .output = q,
                         .causal = 1,
                         .name = " types"});
          attend(queue, {.queries = 17,
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
    attend(queue,
           {.queries = 1, .keys = 5, .heads = 1, .kv_heads = 1, .head_dim = 576, .kv = kv, .name = " types"});
    attend(
        queue,
        {.queries = 18, .keys = 5, .heads = 1, .kv_heads = 1, .head_dim = 576, .kv = kv, .name = " types"});
  }
}

// The number of keys stands in device memory: rows of k and v beyond it are NaN, and were they read, so would
// be the output.
void counted_keys(TestQueue& queue) {
  const auto attend_counted = [&](Case c) {
    c.name = " counted";
    attend(queue, c, [&](Tensor&, Tensor& k, Tensor& v) {
      for (Tensor* tensor : {&k, &v}) {
        const int64_t width = tensor->size() / c.keys;
        tensor->fill([&](int64_t i) {
          return i / width < c.key_count ? 0.125f * static_cast<float>((i * 7919) % 17 - 8) : std::nanf("");
        });
      }
    });
  };
  for (int32_t kv : kFloatDtypes) {
    for (int64_t count : {0, 1, 31, 128, 255, 256, 300, 511, 512, 640, 1000, 1100}) {
      attend_counted({.keys = 1100, .head_dim = 8, .kv = kv, .causal = 1, .key_count = count});
    }
    for (int64_t count : {0, 100, 590}) {  // a head of its own for each query head
      attend_counted({.keys = 600, .heads = 2, .kv = kv, .key_count = count});
    }
    attend_counted({.keys = 600, .heads = 9, .kv_heads = 1, .head_dim = 32, .kv = kv, .key_count = 590});
    attend_counted({.keys = 600, .heads = 4, .kv_heads = 1, .head_dim = 264, .kv = kv, .key_count = 580});
    attend_counted({.queries = 3,
                    .keys = 600,
                    .heads = 5,
                    .kv_heads = 1,
                    .kv = kv,
                    .causal = 1,
                    .window = 400,
                    .key_count = 570});
    attend_counted({.queries = 3, .keys = 50, .kv = kv, .causal = 1, .key_count = 2});  // a row sees none
    for (int64_t head_dim : {16, 200, 300}) {                                           // prompts
      for (int64_t count : {0, 70}) {
        attend_counted({.queries = 20,
                        .keys = 90,
                        .heads = 1,
                        .kv_heads = 1,
                        .head_dim = head_dim,
                        .kv = kv,
                        .causal = 1,
                        .key_count = count});
      }
    }
  }
  attend_counted({.queries = 20, .keys = 90, .heads = 1, .kv_heads = 1, .causal = 1, .key_count = 7});
}

// Splits are those of as many keys without more memory, to the bit; numbers that can not be are brought back
// into [0, keys].
void counts_of_all_kinds(TestQueue& queue) {
  constexpr int64_t kCapacity = 1500;
  Tensor q(queue, BL_DTYPE_f32, {1, 2, 16}), k(queue, BL_DTYPE_f16, {kCapacity, 1, 16}),
      v(queue, BL_DTYPE_f16, {kCapacity, 1, 16}), cu(queue, BL_DTYPE_i32, {2});
  q.uniform(1), k.uniform(2), v.uniform(3);
  const auto run = [&](bl_attention_args args, int64_t keys) {
    Tensor output(queue, BL_DTYPE_f32, {1, 2, 16});
    args.size = sizeof(args);
    args.q = q.device(), args.k = k.device(), args.v = v.device(), args.output = output.device();
    args.k.shape[0] = args.v.shape[0] = keys;
    bl_error error{};
    check_ok(attention(queue, args, &error), error, "attention of a number of keys");
    return output.device_bytes();
  };
  for (int32_t count : {1, 200, 256, 513, 700, 1030, 1500, 1501, 1 << 30, -1, -(1 << 30)}) {
    cu.integers({0, count});
    bl_attention_args counted{};
    counted.cu_queries = counted.cu_keys = cu.device();
    const std::vector<uint8_t> actual = run(counted, kCapacity);
    const std::string what = "attention of " + std::to_string(count) + " keys";
    if (count < 0) {
      check(actual == std::vector<uint8_t>(actual.size()), what + " is not 0");
    } else {
      check(actual == run({}, std::min<int64_t>(count, kCapacity)), what + ": other bits");
    }
  }
  // What is not needed ends at once: 2 blocks of 12 have work.
  cu.integers({0, 200});
  bl_attention_args counted{};
  counted.cu_queries = counted.cu_keys = cu.device();
  queue.launches.clear();
  run(counted, kCapacity);
  check(queue.launches.size() == 2 && queue.launches[0].shape.grid.x == 12, "attention: blocks of all keys");
  const auto loads = queue.launches[0].report.counters.total("ld.global.v4");
  check(loads.bytes == 2 * 200 * 32, "attention: keys beyond the number are read");
}

void prompts(TestQueue& queue) {
  for (int32_t kv : kFloatDtypes) {
    attend(queue,
           {.queries = 40, .keys = 70, .q = kv, .kv = kv, .output = kv, .causal = 1, .name = " prompt"});
    attend(queue, {.queries = 20, .keys = 65, .head_dim = 33, .value_dim = 70, .kv = kv, .name = " prompt"});
    attend(queue, {.queries = 20,
                   .keys = 20,
                   .heads = 1,
                   .kv_heads = 1,
                   .head_dim = 136,
                   .value_dim = 256,
                   .kv = kv,
                   .causal = 1,
                   .name = " prompt"});
    attend(queue, {.queries = 3,
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
    attend(
        queue,
        {.queries = queries, .keys = queries + 5, .heads = 1, .kv_heads = 1, .causal = 1, .name = " prompt"});
  }
  for (int64_t keys : {1, 63, 64, 65, 128})
    attend(queue, {.queries = 20, .keys = keys, .head_dim = 8, .name = " prompt"});
  attend(queue, {.queries = 100,
                 .keys = 150,
                 .heads = 2,
                 .kv_heads = 1,
                 .head_dim = 8,
                 .causal = 1,
                 .window = 20,
                 .name = " prompt"});
  attend(queue, {.queries = 30, .keys = 40, .causal = 1, .strided = true, .name = " prompt"});
  attend(queue,
         {.queries = 30, .keys = 40, .head_dim = 9, .kv = BL_DTYPE_f16, .strided = true, .name = " prompt"});
  attend(queue, {.queries = 0, .keys = 40, .name = " empty"});
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
    attend(queue, c, [&](Tensor&, Tensor& k, Tensor& v) {
      const auto poisoned = [&](int64_t i) {
        const int64_t key = i / 8;
        return key < 2 || key > c.keys - 2 ? nan : 0.25f * static_cast<float>(i % 7) - 0.7f;
      };
      k.fill(poisoned);
      v.fill(poisoned);
    });
    for (float special : {kInfinity, -kInfinity, nan}) {
      attend(queue, c, [&](Tensor& q, Tensor& k, Tensor&) {
        q.fill([](int64_t) { return 0.5f; });
        k.fill([&](int64_t i) { return i / 8 == 14 ? special : 0.25f * static_cast<float>(i % 7); });
      });
      attend(queue, c, [&](Tensor& q, Tensor& k, Tensor&) {
        q.fill([](int64_t) { return 0.5f; });
        k.fill([&](int64_t) { return special; });
      });
    }
  }
  attend(queue, {.queries = 1, .keys = 100, .scale = 30, .largest = 4, .name = " sharp"});
  attend(queue, {.queries = 20, .keys = 100, .scale = -0.5f, .name = " negative scale"});
}

void refused(TestQueue& queue) {
  Tensor q(queue, BL_DTYPE_f32, {20, 1, 640}), v(queue, BL_DTYPE_f32, {20, 1, 8}),
      output(queue, BL_DTYPE_f32, {20, 1, 8});
  bl_attention_args args{sizeof(args), {}, q.device(), q.device(), v.device(), output.device(), 0, 0, 0};
  bl_error error{};
  check(attention(queue, args, &error) == BL_STATUS_unsupported, "attention with heads of 640 channels");
  args.q = args.k = args.v = args.output = args.cu_keys = v.device();
  args.k.shape[0] = int64_t{1} << 31, args.k.strides[0] = 0;
  check(attention(queue, args, &error) == BL_STATUS_unsupported, "attention of 2^31 rows with cuKeys");
}

void counters(TestQueue& queue) {
  attend(queue, {.keys = 256, .heads = 8, .kv_heads = 1, .head_dim = 128, .kv = BL_DTYPE_f16});
  const auto loads = queue.launches.front().report.counters.total("ld.global.v4");
  check(loads.bytes == 2 * 256 * 256 && loads.sectors * 32 == loads.bytes,
        "attention: keys and values are read once and in whole sectors: " + std::to_string(loads.bytes));
  attend(queue, {.queries = 64, .keys = 128, .heads = 1, .kv_heads = 1, .head_dim = 128});
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
    counted_keys(queue);
    counts_of_all_kinds(queue);
    specials(queue);
    refused(queue);
    counters(queue);
  }
  for (const Settings& settings : all_schedules()) {
    if (settings.options.copy_delivery != bitloom::ptx::CopyDelivery::poisoned)
      continue;  // there are no such copies
    TestQueue queue(settings);
    attend(queue, {.queries = 2, .keys = 300, .causal = 1, .name = " scheduled"});
    attend(queue, {.queries = 2, .keys = 900, .causal = 1, .key_count = 700, .name = " scheduled"});
    attend(queue, {.queries = 20, .keys = 70, .causal = 1, .name = " scheduled"});
  }
}
