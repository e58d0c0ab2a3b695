// attention of random shapes, types and views, which between them run every instruction of its kernels.
#include "attention_calls.h"
#include "random_calls.h"

namespace bitloom::cuda::testing {
namespace {

void attend_random(const Settings& given, uint64_t seed) {
  Random random(seed);
  const auto one_of = [&](std::initializer_list<int64_t> list) {
    return list.begin()[random.below(static_cast<int64_t>(list.size()))];
  };
  Settings settings = given;
  settings.multiprocessors = static_cast<int32_t>(one_of({0, 0, 1, 3}));
  TestQueue queue(settings);
  const bool is_long = one_of({0, 1}) == 0;  // heads of more than 256 channels
  AttentionCase c;
  c.queries = one_of({1, 1, 1, 2, 3, 5, 17, 70});
  c.keys = one_of({1, 5, 33, 40, 140, 600});
  c.kv_heads = one_of({1, 1, 2});
  c.heads = c.kv_heads * one_of({1, 2, 3, 4, 5, 8, 9});
  c.head_dim =
      is_long ? one_of({8, 257, 264, 299, 512, 576}) : one_of({1, 8, 9, 16, 40, 63, 64, 128, 136, 256});
  c.value_dim =
      is_long ? one_of({8, 257, 264, 300, 512, 576}) : one_of({1, 8, 9, 16, 40, 63, 64, 128, 136, 256});
  if (c.queries > 5 && is_long) c.heads = c.kv_heads = 1;
  c.q = kFloatDtypes[random.below(3)];
  c.kv = kFloatDtypes[random.below(3)];
  c.output = kFloatDtypes[random.below(3)];
  c.causal = c.keys >= c.queries ? static_cast<int32_t>(random.below(2)) : 0;
  c.window = c.causal != 0 ? static_cast<int32_t>(one_of({0, 0, 1, 7, 280})) : 0;
  c.strided = random.below(3) == 0;
  c.name = " random " + std::to_string(seed);
  attend(queue, c);
}

}  // namespace

BITLOOM_CUDA_TEST(random_attention) { run_random("attention", attend_random); }

}  // namespace bitloom::cuda::testing
