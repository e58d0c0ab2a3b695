#include "mutation_calls.h"

#include "attention_calls.h"
#include "cuda/ops/matmul/weights.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

// What goes with a product.
enum class Around { bias, gates, everything };
struct Product {
  int64_t m, n, k;
  int32_t a = BL_DTYPE_f16;
  Around around = Around::bias;
  int32_t multiprocessors = 0;                  // 1: no splits of K
  int32_t compute = BL_COMPUTE_f32, group = 0;  // a bl_activation_group
  int32_t activation = BL_ACTIVATION_silu;      // of everything
  int32_t tables = 3;                           // of cbs formats
};

// A choice of one table is made by the kernels of one table, which are the mutated ones.
Product with_one_table(Product it) {
  it.tables = 1;
  return it;
}

// Where records number tables: none that there is, so that it shows who does not keep it within them.
void number_beyond_tables(TestQueue& queue, const bl_weights& b) {
  const gemm::FragmentWeights w = gemm::plan_weights(b).weights;
  if (w.second != gemm::Second::table_number) return;
  const std::vector<uint8_t> numbers(16, 200);
  char* records = static_cast<char*>(const_cast<void*>(w.records));
  for (int64_t at = 0; at < w.row_tiles * w.tile_records; at += w.record_bytes)
    queue.write(records + at + w.second_offset, numbers.data(), numbers.size());
}

Run product(const char* format, Product it) {
  return [=](TestQueue& queue) {
    if (it.multiprocessors > 0) queue.set_multiprocessors(it.multiprocessors);
    const bool gates = it.around == Around::gates, everything = it.around == Around::everything;
    const PackedWeights b(queue, format, it.n, it.k, 3, 1, it.tables);
    if (it.tables == 1) number_beyond_tables(queue, b.device());
    Tensor a(queue, it.a, {it.m, it.k}), c(queue, BL_DTYPE_f32, {it.m, gates ? it.n / 2 : it.n});
    Tensor bias(queue, BL_DTYPE_f32, {it.n}), row_scale(queue, BL_DTYPE_f32, {it.n});
    Tensor residual(queue, BL_DTYPE_bf16, {it.m, gates ? it.n / 2 : it.n}),
        addend(queue, BL_DTYPE_f16, {it.m, it.n}, {it.n + 3, 1});
    a.uniform(1);
    bias.uniform(2);
    residual.uniform(3);
    row_scale.uniform(4);
    addend.uniform(5);
    bl_matmul_args args = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device(), args.bias = bias.device();
    args.compute = it.compute;
    args.activation_group = it.group;
    if (gates || everything) args.residual = residual.device();
    if (everything) args.row_scale = row_scale.device(), args.addend = addend.device();
    if (gates) args.activation = BL_ACTIVATION_swiglu;
    if (everything) args.activation = it.activation;
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, format);
    return c.device_bytes();
  };
}

// One of the smallest, not split, with an activation of its own: its choice is a search among their numbers.
Product activated(int64_t m, int32_t activation, int32_t group = 0) {
  return {.m = m,
          .n = 20,
          .k = 72,
          .around = Around::everything,
          .multiprocessors = 1,
          .group = group,
          .activation = activation};
}

// With int8 activations.
Run int8_product(const char* format, Product it) {
  it.compute = BL_COMPUTE_i8;
  return product(format, it);
}

// nan_rows: the even (0) or odd (1) rows of q are NaN, so that it shows who reads on into the next one.
// excess: how far the number of keys in device memory is off. slope: scores rise (1) or fall (-1) from key to
// key, so that the last or the first that is seen is the largest.
Run attended(AttentionCase c, int64_t nan_rows = -1, int32_t excess = 0, int32_t slope = 0) {
  return [=](TestQueue& queue) {
    const int64_t width = c.value_dim == 0 ? c.head_dim : c.value_dim;
    // With a number of keys in device memory there is no memory beyond them: to read it is a fault.
    const int64_t keys = c.key_count < 0 ? c.keys : c.key_count;
    Tensor q(queue, c.q, {c.queries, c.heads, c.head_dim}), k(queue, c.kv, {keys, c.kv_heads, c.head_dim});
    Tensor v(queue, c.kv, {keys, c.kv_heads, width}), output(queue, c.output, {c.queries, c.heads, width});
    q.uniform(1, 3);
    k.uniform(2, 3);
    v.uniform(3);
    if (nan_rows >= 0) {
      q.fill([&](int64_t i) {
        return i / c.head_dim % 2 == nan_rows ? std::nanf("") : 0.25f * static_cast<float>(i % 13 - 6);
      });
    }
    if (slope != 0) {
      q.fill([](int64_t) { return 0.5f; });
      k.fill([&](int64_t i) { return 0.01f * static_cast<float>(slope * (i / (c.kv_heads * c.head_dim))); });
    }
    bl_attention_args args{};
    args.size = sizeof(args);
    args.q = q.device(), args.k = k.device(), args.v = v.device(), args.output = output.device();
    args.scale = c.scale, args.causal = c.causal, args.window = c.window;
    Tensor offsets(queue, BL_DTYPE_i32, {2});
    offsets.integers({0, static_cast<int32_t>(keys) + excess});
    args.k.shape[0] = args.v.shape[0] = c.keys;
    if (c.key_count >= 0) args.cu_queries = args.cu_keys = offsets.device();
    bl_error error{};
    check_ok(attention(queue, args, &error), error, "attention");
    return output.device_bytes();
  };
}

Run sampled(int64_t vocab, float temperature, int32_t top_k, float top_p, float min_p,
            const std::function<float(int64_t, Random&)>& logit) {
  return [=](TestQueue& queue) {
    Tensor logits(queue, BL_DTYPE_f32, {vocab}), previous(queue, BL_DTYPE_i32, {3});
    Random random(5);
    logits.fill([&](int64_t i) { return logit(i, random); });
    previous.integers({1, 7, static_cast<int32_t>(vocab) - 1});
    std::vector<uint8_t> bytes;
    for (uint64_t position = 0; position < 1; ++position) {
      int32_t token = -1;
      float probability = -1;
      bl_sample_args args{};
      args.size = sizeof(args);
      args.logits = logits.device();
      args.previous = previous.device();
      args.temperature = temperature;
      args.top_k = top_k;
      args.top_p = top_p;
      args.min_p = min_p;
      args.repetition_penalty = 1.5f;
      args.seed = 42;
      args.position = position;
      args.token = &token;
      args.probability = &probability;
      bl_error error{};
      check_ok(sample(queue, args, &error), error, "sample");
      const auto append = [&](const void* value) {
        bytes.insert(bytes.end(), static_cast<const uint8_t*>(value), static_cast<const uint8_t*>(value) + 4);
      };
      append(&token);
      append(&probability);
    }
    return bytes;
  };
}

// Logits in [least, least + 2 * scale].
Run drawn(int64_t vocab, float temperature, int32_t top_k, float top_p, float min_p, float scale,
          float least) {
  return sampled(vocab, temperature, top_k, top_p, min_p,
                 [=](int64_t, Random& random) { return least + scale * (1 + random.uniform()); });
}

// One candidate more than a batch holds, of which some are `above` the others. These begin with the digits 1
// to 6 behind the exponent, so that the search for a batch comes to an end in another digit of each pass.
Run searched(int64_t above) {
  constexpr int64_t kPenalized = 3, kVocab = 1024 + 1 + kPenalized;
  return sampled(kVocab, 1, 0, 0.9f, 0, [=](int64_t i, Random&) {
    const uint32_t low = static_cast<uint32_t>(i) * 5 % 32;
    const uint32_t bits = i >= 10 && i < 10 + above ? 0x3ff00000u + low : 0x3f800000u | 0123456u << 5 | low;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  });
}

Run normalized(int64_t length) {
  return [=](TestQueue& queue) {
    Tensor x(queue, BL_DTYPE_f32, {3, length}), c(queue, BL_DTYPE_f32, {3, length});
    Tensor weight(queue, BL_DTYPE_f32, {length});
    weight.uniform(2);
    // The second row leaves the range of f32's squares, and takes another way.
    x.fill([=](int64_t i) { return (i / length == 1 ? 1e30f : 1.0f) * static_cast<float>(i % 17 - 8); });
    bl_rms_norm_args args{};
    args.size = sizeof(args);
    args.x = x.device();
    args.weight = weight.device();
    args.output = c.device();
    args.epsilon = 1e-5f;
    bl_error error{};
    check_ok(rms_norm(queue, args, &error), error, "rms_norm");
    return c.device_bytes();
  };
}

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

std::vector<MutatedKernel> mutated_kernels() {
  constexpr int32_t kRow = BL_ACTIVATION_GROUP_row;
  using Formats = std::vector<const char*>;
  // Around the edges of tiles (64 by 128, 16 by 16), units (64), stages and groups; whole and split along K;
  // rows of a as they lie and rounded, with everything that may follow. The first of the formats, then each
  // way that scales are stored.
  const auto prompt = [](const Formats& formats) {
    std::vector<Run> runs;
    for (const Product& it : {Product{70, 200, 576}, Product{17, 40, 192},
                              Product{65, 129, 328, BL_DTYPE_f16, Around::everything, 1}, Product{20, 20, 72},
                              Product{20, 20, 72, BL_DTYPE_bf16, Around::everything, 1},
                              Product{64, 128, 1088, BL_DTYPE_f16, Around::gates},
                              activated(17, BL_ACTIVATION_gelu)})
      runs.push_back(product(formats[0], it));
    for (const char* format : formats)
      runs.push_back(product(format, with_one_table({66, 130, 768, BL_DTYPE_f32, Around::everything, 1})));
    return runs;
  };
  // A warp has up to 12 units under way, a block up to 16 warps.
  const auto stream = [](const Formats& formats) {
    std::vector<Run> runs;
    for (const Product& it : {Product{11, 41, 1216}, Product{3, 20, 64},
                              Product{9, 16, 2120, BL_DTYPE_f16, Around::everything, 1},
                              Product{8, 33, 712, BL_DTYPE_f32, Around::everything, 1},
                              Product{1, 15, 8, BL_DTYPE_f16, Around::gates},
                              activated(2, BL_ACTIVATION_gelu)})
      runs.push_back(product(formats[0], it));
    for (int64_t units = 1; units < 13; ++units) runs.push_back(product(formats[0], {3, 16, 64 * units + 8}));
    for (int64_t units : {16, 20, 24, 32, 40, 48, 64, 80})
      runs.push_back(product(formats[0], {.m = 1, .n = 16, .k = 64 * units, .multiprocessors = 1}));
    for (const char* format : formats) {
      runs.push_back(product(format, with_one_table({8, 17, 768, BL_DTYPE_f16, Around::everything, 1})));
      // Several turns of a ring of 8 warps, in the only tile: what is read from too far on is not there.
      runs.push_back(product(format, with_one_table({.m = 3, .n = 16, .k = 2048, .multiprocessors = 1})));
    }
    return runs;
  };
  const auto integers = [](const char* format, int32_t group, const Formats& others = {}) {
    std::vector<Run> runs = {
        int8_product(format, {.m = 70, .n = 200, .k = 576, .group = group}),
        int8_product(format, {65, 129, 328, BL_DTYPE_f32, Around::everything, 1, 0, group}),
        int8_product(format, {64, 128, 1216, BL_DTYPE_f16, Around::gates, 0, 0, group}),
        int8_product(format, {17, 15, 40, BL_DTYPE_bf16, Around::everything, 1, 0, group}),
        int8_product(format, {66, 130, 1024, BL_DTYPE_f32, Around::everything, 1, 0, group}),
        int8_product(format, {.m = 17, .n = 20, .k = 256, .multiprocessors = 1, .group = group}),
        int8_product(format, activated(17, BL_ACTIVATION_gelu, group))};
    for (const char* other : others)
      runs.push_back(int8_product(other, {20, 130, 768, BL_DTYPE_f32, Around::bias, 1, 0, group}));
    return runs;
  };
  const auto integer_stream = [](const char* format, int32_t group, const Formats& others) {
    std::vector<Run> runs = {
        int8_product(format, {.m = 3, .n = 200, .k = 576, .group = group}),
        int8_product(format, {9, 41, 1216, BL_DTYPE_f32, Around::everything, 0, 0, group}),
        int8_product(format, {16, 17, 2120, BL_DTYPE_f32, Around::everything, 1, 0, group}),
        int8_product(format, {8, 15, 40, BL_DTYPE_bf16, Around::everything, 1, 0, group}),
        int8_product(format, activated(2, BL_ACTIVATION_gelu, group))};
    for (int64_t units : {2, 3, 4, 5, 6, 7, 8, 12, 16, 24, 32})
      runs.push_back(
          int8_product(format, {.m = 9, .n = 16, .k = 64 * units, .multiprocessors = 1, .group = group}));
    for (const char* other : others)
      runs.push_back(int8_product(other, {10, 30, 768, BL_DTYPE_f32, Around::bias, 1, 0, group}));
    return runs;
  };
  return {
      {"matmul", "matmul_prompt_c4", prompt({"u4_g64", "u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul", "matmul_prompt_z4", prompt({"u4z_g32", "u4z_g32_bf16", "u4z_g128_bf16", "q4_1", "q4_k", "bfp4_g8", "bfp4_g64"})},
      {"matmul", "matmul_prompt_e4",
       prompt({"nvfp4_g16", "mxfp4", "e2m1_g32", "e2m1_g8", "fp4_g64", "fp4_g32_bf16", "fp4_row_bf16"})},
      {"matmul", "matmul_prompt_t4",
       prompt({"nf4_g64", "nf4_g64_bf16", "nf4_g32", "nf4_row", "iq4_nl", "cbs4_g32", "cbs4_g32_bf16", "cbs4_g64_bf16"})},
      {"matmul", "matmul_stream_c4", stream({"u4_g64", "u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul", "matmul_stream_z4", stream({"u4z_g32", "u4z_g32_bf16", "u4z_g128_bf16", "q4_1", "q4_k", "bfp4_g8", "bfp4_g64"})},
      {"matmul", "matmul_stream_e4",
       stream({"nvfp4_g16", "mxfp4", "e2m1_g32", "e2m1_g8", "fp4_g64", "fp4_g32_bf16", "fp4_row_bf16"})},
      {"matmul", "matmul_stream_t4",
       stream({"nf4_g64", "nf4_g64_bf16", "nf4_g32", "nf4_row", "iq4_nl", "cbs4_g32", "cbs4_g32_bf16", "cbs4_g64_bf16"})},
      {"matmul_i8", "matmul_prompt_fine_c4", integers("u4_g64", 0, {"u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul_i8", "matmul_prompt_fine_z4",
       integers("u4z_g64", 0, {"u4z_g32", "u4z_row", "q4_1", "q4_k", "u4z_g64_bf16", "bfp4_g32", "i4z_g64"})},
      {"matmul_i8", "matmul_prompt_coarse_c4", integers("u4_g128", kRow, {"u4_g256", "u4_g128_bf16"})},
      {"matmul_i8", "matmul_prompt_whole_c8", integers("i8_row", kRow)},
      {"matmul_i8", "matmul_stream_fine_c4", integer_stream("u4_g64", 0, {"u4_g32", "u4_row", "u4_g128_bf16"})},
      {"matmul",
       "matmul_finish",
       {product("u4_g64", {9, 70, 1216, BL_DTYPE_f16, Around::gates}),
        product("u4_g32", {5, 33, 1216, BL_DTYPE_f32, Around::everything}),
        product("u4_g32", {17, 32, 4160, BL_DTYPE_f32, Around::everything})}},
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
            ends_of_heads(17, 1, false))},
      {"sampling", "sample_keys", {drawn(300, 1, 0, 0, 0, 5, -5)}},
      {"sampling", "sample_penalize", {drawn(300, 1, 0, 0, 0, 5, -5)}},
      // The largest is where every step of a reduction hands it on.
      {"sampling",
       "sample_largest",
       {drawn(700, 0.1f, 0, 0, 0, 5, -5),
        sampled(700, 0.1f, 0, 0, 0,
                [](int64_t i, Random& random) { return i == 255 ? 9 : random.uniform(); })}},
      {"sampling", "sample_mass", {drawn(2300, 1, 0, 0, 0, 1, -1)}},
      {"sampling",
       "sample_pick",
       {drawn(1500, 1, 0, 0.9f, 0, 0.3f, -0.3f), drawn(1300, 1, 1100, 0, 0.01f, 3, -3),
        drawn(40, 1, 7, 0.9f, 0.2f, 5, -5),
        // All of one sign and binade: the first passes of the search do not tell them apart.
        drawn(1100, 1, 0, 0.9f, 0, 0.4f, 1), searched(400), searched(512),
        drawn(4100, 1, 0, 0, 0.9f, 3, -3)}},  // masses of several blocks
      {"norm", "rms_norm_wide", {normalized(1000), normalized(8 * 512 + 264), normalized(8)}},
      {"norm", "rms_norm_plain", {normalized(701), normalized(1)}},
  };
}

}  // namespace bitloom::cuda::testing
