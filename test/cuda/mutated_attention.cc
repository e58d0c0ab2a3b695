// Attention kernels that are mutated.
#include "mutation_runs.h"

namespace bitloom::cuda::testing {
namespace {

std::vector<Run> with(std::vector<Run> runs, const std::vector<Run>& more) {
  runs.insert(runs.end(), more.begin(), more.end());
  return runs;
}

// Heads that end at each of 8 channels.
std::vector<Run> ends_of_heads(int64_t queries, int64_t heads, bool nan) {
  std::vector<Run> runs;
  for (int64_t head_dim = 9; head_dim <= 16; ++head_dim) {
    for (int64_t nan_rows : nan ? std::vector<int64_t>{0, 1} : std::vector<int64_t>{-1})
      runs.push_back(attended(
          {.queries = queries, .keys = 18, .heads = heads, .kv_heads = 1, .head_dim = head_dim, .causal = 1},
          nan_rows));
  }
  return runs;
}

}  // namespace

std::vector<MutatedKernel> mutated_attention() {
  return {
      {"attention",
       "attention_decode_wide_4",
       {// Four rows of causal queries: in one part, in parts, with a window within a part and over parts.
        attended({.queries = 4,
                  .keys = 300,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .kv = BL_DTYPE_f16,
                  .causal = 1}),
        attended({.queries = 4,
                  .keys = 61,
                  .heads = 2,
                  .head_dim = 24,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .window = 20}),
        attended({.queries = 4,
                  .keys = 701,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 16,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .window = 150}),
        // As many rounds as parts at most; more, of which a part has several.
        attended(
            {.keys = 512, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 512}),
        attended({.keys = 1152,
                  .heads = 216,
                  .kv_heads = 54,
                  .head_dim = 8,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .key_count = 1152}),
        attended({.queries = 3,
                  .keys = 300,
                  .heads = 3,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .kv = BL_DTYPE_f16,
                  .causal = 1}),
        attended(
            {.keys = 900, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 530}),
        attended(
            {.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 37}),
        attended(
            {.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 45}),
        attended(
            {.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 60}),
        attended({.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 64},
                 -1, 7),
        attended({.keys = 64, .heads = 4, .kv_heads = 1, .head_dim = 24, .kv = BL_DTYPE_f16, .key_count = 64},
                 -1, -70),
        attended({.keys = 41, .heads = 6, .head_dim = 24, .value_dim = 16, .kv = BL_DTYPE_bf16}),
        attended({.queries = 4,
                  .keys = 61,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .kv = BL_DTYPE_bf16,
                  .causal = 1}),
        attended(
            {.keys = 33, .heads = 4, .kv_heads = 1, .head_dim = 256, .value_dim = 248, .kv = BL_DTYPE_f16}),
        attended({.queries = 5,
                  .keys = 70,
                  .heads = 4,
                  .kv_heads = 2,
                  .head_dim = 8,
                  .value_dim = 8,
                  .kv = BL_DTYPE_f16,
                  .causal = 1,
                  .window = 9})}},
      {"attention", "attention_decode_plain_4",
       with(
           {attended({.queries = 2,
                      .keys = 45,
                      .heads = 3,
                      .kv_heads = 1,
                      .head_dim = 9,
                      .causal = 1,
                      .window = 20}),
            attended({.queries = 1, .keys = 300, .heads = 3, .kv_heads = 1, .head_dim = 255, .value_dim = 1}),
            attended({.keys = 600, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 513}),
            attended({.queries = 4, .keys = 61, .heads = 2, .head_dim = 12, .causal = 1, .window = 20}),
            attended({.queries = 4,
                      .keys = 701,
                      .heads = 1,
                      .kv_heads = 1,
                      .head_dim = 8,
                      .causal = 1,
                      .window = 150}),
            attended({.keys = 512, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 512}),
            attended(
                {.keys = 1152, .heads = 54, .kv_heads = 54, .head_dim = 8, .causal = 1, .key_count = 1152}),
            attended({.keys = 700, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 100}),
            attended({.keys = 64, .heads = 3, .kv_heads = 1, .head_dim = 12, .key_count = 64}, -1, -70),
            attended({.queries = 5,
                      .keys = 40,
                      .heads = 4,
                      .kv_heads = 2,
                      .head_dim = 63,
                      .value_dim = 33,
                      .causal = 1})},
           ends_of_heads(1, 4, true))},
      {"attention",
       "attention_merge",
       {attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16}),
        attended({.keys = 1500, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 600}),
        attended({.keys = 1500, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 100}),
        attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 600}, -1, -700),
        attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16, .key_count = 600}, -1, 700),
        attended({.keys = 600, .head_dim = 32, .kv = BL_DTYPE_f16})}},
      {"attention", "attention_prompt_128",
       with({attended({.queries = 70,
                       .keys = 75,
                       .heads = 2,
                       .kv_heads = 1,
                       .head_dim = 40,
                       .value_dim = 72,
                       .causal = 1}),
             attended({.queries = 20,
                       .keys = 90,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 9,
                       .causal = 1,
                       .window = 30}),
             attended(
                 {.queries = 64, .keys = 64, .heads = 1, .kv_heads = 1, .head_dim = 128, .value_dim = 128}),
             // Longer than what is before the first query.
             attended({.queries = 80,
                       .keys = 80,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .causal = 1,
                       .window = 60}),
             // Windows that begin and end at each place of a tile of keys, where the largest score is.
             attended({.queries = 90,
                       .keys = 210,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .causal = 1,
                       .window = 100},
                      -1, 0, 1),
             attended({.queries = 90,
                       .keys = 210,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 8,
                       .causal = 1,
                       .window = 100},
                      -1, 0, -1),
             attended({.queries = 33, .keys = 64, .heads = 1, .kv_heads = 1, .head_dim = 8, .value_dim = 1}),
             attended({.queries = 17,
                       .keys = 130,
                       .heads = 1,
                       .kv_heads = 1,
                       .head_dim = 127,
                       .value_dim = 65,
                       .causal = 1})},
            ends_of_heads(17, 1, false))}};
}

}  // namespace bitloom::cuda::testing
