#include "mutation_calls.h"

#include "attention_calls.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

Run product(const char* format, int64_t m, int64_t n, int64_t k, bool finishes = false) {
  return [=](TestQueue& queue) {
    const PackedWeights b(queue, format, n, k, 3);
    Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, BL_DTYPE_f32, {m, finishes ? n / 2 : n});
    Tensor bias(queue, BL_DTYPE_f32, {n}), residual(queue, BL_DTYPE_bf16, {m, n / 2});
    a.uniform(1);
    bias.uniform(2);
    residual.uniform(3);
    bl_matmul_args args = arguments();
    args.a = a.device();
    args.b = b.device();
    args.c = c.device();
    args.bias = bias.device();
    if (finishes) args.activation = BL_ACTIVATION_swiglu, args.residual = residual.device();
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, format);
    return c.device_bytes();
  };
}

// With int8 activations; group: a bl_activation_group.
Run int8_product(const char* format, int64_t m, int32_t group) {
  return [=](TestQueue& queue) {
    constexpr int64_t n = 200, k = 576;
    const PackedWeights b(queue, format, n, k, 3);
    Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, BL_DTYPE_f32, {m, n});
    a.uniform(1);
    bl_matmul_args args = arguments();
    args.a = a.device();
    args.b = b.device();
    args.c = c.device();
    args.compute = BL_COMPUTE_i8;
    args.activation_group = group;
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, format);
    return c.device_bytes();
  };
}

Run attended(AttentionCase c) {
  return [=](TestQueue& queue) {
    const int64_t width = c.value_dim == 0 ? c.head_dim : c.value_dim;
    Tensor q(queue, c.q, {c.queries, c.heads, c.head_dim}), k(queue, c.kv, {c.keys, c.kv_heads, c.head_dim});
    Tensor v(queue, c.kv, {c.keys, c.kv_heads, width}), output(queue, c.output, {c.queries, c.heads, width});
    q.uniform(1, 3);
    k.uniform(2, 3);
    v.uniform(3);
    bl_attention_args args{};
    args.size = sizeof(args);
    args.q = q.device(), args.k = k.device(), args.v = v.device(), args.output = output.device();
    args.scale = c.scale, args.causal = c.causal, args.window = c.window;
    bl_error error{};
    check_ok(attention(queue, args, &error), error, "attention");
    return output.device_bytes();
  };
}

// Logits in [least, least + 2 * scale].
Run drawn(int64_t vocab, float temperature, int32_t top_k, float top_p, float min_p, float scale,
          float least) {
  return [=](TestQueue& queue) {
    Tensor logits(queue, BL_DTYPE_f32, {vocab}), previous(queue, BL_DTYPE_i32, {3});
    Random random(5);
    logits.fill([&](int64_t) { return least + scale * (1 + random.uniform()); });
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

}  // namespace

std::vector<MutatedKernel> mutated_kernels() {
  const auto prompt = [](const char* format) {
    return std::vector<Run>{product(format, 70, 200, 576), product(format, 17, 40, 192)};
  };
  const auto stream = [](const char* format) {
    return std::vector<Run>{product(format, 11, 41, 1216), product(format, 3, 20, 64)};
  };
  return {
      {"matmul", "matmul_prompt_c4", prompt("u4_g64")},
      {"matmul", "matmul_prompt_z4", prompt("u4z_g32")},
      {"matmul", "matmul_prompt_e4", prompt("nvfp4_g16")},
      {"matmul", "matmul_prompt_t4", prompt("nf4_g64")},
      {"matmul", "matmul_stream_c4", stream("u4_g64")},
      {"matmul", "matmul_stream_z4", stream("u4z_g32")},
      {"matmul", "matmul_stream_e4", stream("nvfp4_g16")},
      {"matmul", "matmul_stream_t4", stream("nf4_g64")},
      {"matmul_i8", "matmul_prompt_fine_c4", {int8_product("u4_g64", 70, 0)}},
      {"matmul_i8", "matmul_prompt_fine_z4", {int8_product("u4z_g64", 70, 0)}},
      {"matmul_i8", "matmul_prompt_coarse_c4", {int8_product("u4_g128", 70, BL_ACTIVATION_GROUP_row)}},
      {"matmul_i8", "matmul_prompt_whole_c8", {int8_product("i8_row", 70, BL_ACTIVATION_GROUP_row)}},
      {"matmul_i8", "matmul_stream_fine_c4", {int8_product("u4_g64", 3, 0)}},
      {"matmul", "matmul_finish", {product("u4_g64", 9, 70, 1216, true)}},
      {"attention",
       "attention_decode_wide_4",
       {attended({.queries = 3,
                  .keys = 300,
                  .heads = 3,
                  .kv_heads = 1,
                  .head_dim = 64,
                  .kv = BL_DTYPE_f16,
                  .causal = 1}),
        attended({.keys = 41, .heads = 6, .head_dim = 24, .value_dim = 16, .kv = BL_DTYPE_bf16})}},
      {"attention",
       "attention_decode_plain_4",
       {attended(
           {.queries = 2, .keys = 45, .heads = 3, .kv_heads = 1, .head_dim = 9, .causal = 1, .window = 20})}},
      {"attention", "attention_merge", {attended({.keys = 600, .head_dim = 40, .kv = BL_DTYPE_f16})}},
      {"attention",
       "attention_prompt_128",
       {attended({.queries = 70,
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
                  .window = 30})}},
      {"sampling", "sample_keys", {drawn(300, 1, 0, 0, 0, 5, -5)}},
      {"sampling", "sample_penalize", {drawn(300, 1, 0, 0, 0, 5, -5)}},
      {"sampling", "sample_largest", {drawn(700, 0.1f, 0, 0, 0, 5, -5)}},
      {"sampling", "sample_mass", {drawn(2300, 1, 0, 0, 0, 1, -1)}},
      {"sampling",
       "sample_pick",
       {drawn(1500, 1, 0, 0.9f, 0, 0.3f, -0.3f), drawn(1300, 1, 1100, 0, 0.01f, 3, -3),
        drawn(40, 1, 7, 0.9f, 0.2f, 5, -5),
        // All of one sign and binade: the first passes of the search do not tell them apart.
        drawn(1100, 1, 0, 0.9f, 0, 0.4f, 1)}},
      {"norm", "rms_norm_wide", {normalized(1000), normalized(8 * 512 + 264)}},
      {"norm", "rms_norm_plain", {normalized(701)}},
  };
}

}  // namespace bitloom::cuda::testing
