#include "mutation_runs.h"

#include "attention_calls.h"
#include "cuda/ops/matmul/weights.h"
#include "cuda/ops/sampling/config.h"
#include "matmul_calls.h"

namespace bitloom::cuda {
extern const ModuleImages matmul_module;
extern const ModuleImages sampling_module;
}  // namespace bitloom::cuda

namespace bitloom::cuda::testing {
namespace {

// Where records number tables: none that there is, so that it shows who does not keep it within them.
void number_beyond_tables(TestQueue& queue, const bl_weights& b) {
  const gemm::FragmentWeights w = gemm::plan_weights(b).weights;
  if (w.second != gemm::Second::table_number) return;
  const std::vector<uint8_t> numbers(16, 200);
  char* records = static_cast<char*>(const_cast<void*>(w.records));
  for (int64_t at = 0; at < w.row_tiles * w.tile_records; at += w.record_bytes)
    queue.write(records + at + w.second_offset, numbers.data(), numbers.size());
}

}  // namespace

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
    Tensor a_scales(queue, BL_DTYPE_f32, {it.m});
    a.uniform(1, it.a == BL_DTYPE_i8 ? 100 : 1);
    a_scales.uniform(6);
    bias.uniform(2);
    residual.uniform(3);
    row_scale.uniform(4);
    addend.uniform(5);
    bl_matmul_args args = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device(), args.bias = bias.device();
    args.compute = it.compute;
    if (it.a == BL_DTYPE_i8) args.a_scales = a_scales.device();
    args.activation_group = it.group;
    if (gates || everything) args.residual = residual.device();
    if (everything) args.row_scale = row_scale.device(), args.addend = addend.device();
    if (gates) args.activation = BL_ACTIVATION_swiglu;
    if (everything) args.activation = it.activation;
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, format);
  };
}

Product activated(int64_t m, int32_t activation, int32_t group) {
  return {.m = m,
          .n = 20,
          .k = 72,
          .around = Around::everything,
          .multiprocessors = 1,
          .group = group,
          .activation = activation};
}

Run int8_product(const char* format, Product it) {
  it.compute = BL_COMPUTE_i8;
  return product(format, it);
}

Run finished(Finished it) {
  return [=](TestQueue& queue) {
    constexpr int64_t kAdapters = 3;
    const int64_t columns = it.gates ? it.n / 2 : it.n;
    const PackedWeights b(queue, "u4_g32", it.n, it.k, 3);
    Tensor a(queue, BL_DTYPE_f32, {it.m, it.k}), c(queue, it.c, {it.m, columns});
    Tensor c_scales(queue, BL_DTYPE_f32, {it.m, (columns + 31) / 32});
    Tensor down(queue, BL_DTYPE_f16, {kAdapters, it.rank, it.k}),
        up(queue, BL_DTYPE_f32, {kAdapters, it.n, it.rank});
    Tensor ids(queue, BL_DTYPE_i32, {it.m}), ends(queue, BL_DTYPE_i32, {it.n + 1});
    std::vector<int32_t> chosen, offsets = {-1}, places;
    for (int32_t i = 0; i < it.m; ++i) chosen.push_back(i * 7 % (kAdapters + 3) - 2);
    for (int32_t i = 0; i < it.n; ++i) {
      const int32_t width = static_cast<int32_t>(it.k);
      for (int32_t j = 0; i >= it.outliers_from && j < (it.outliers + i) % 9; ++j)
        places.push_back((i + j) % 3 == 0 ? -1 - j : (i + j) % 3 == 1 ? width + j : (i * 7 + j * 13) % width);
      offsets.push_back(static_cast<int32_t>(places.size()));
    }
    if (it.gates) offsets[static_cast<size_t>(columns)] = -2;
    ++offsets.back();
    Tensor at(queue, BL_DTYPE_i32, {static_cast<int64_t>(places.size())});
    Tensor values(queue, BL_DTYPE_f16, {static_cast<int64_t>(places.size())});
    a.uniform(1), down.uniform(2), up.uniform(3), values.uniform(4);
    ids.integers(chosen), ends.integers(offsets), at.integers(places);
    bl_matmul_args args = arguments();
    args.a = a.device(), args.b = b.device(), args.c = c.device();
    args.low_rank_down = down.device(), args.low_rank_up = up.device(), args.low_rank_ids = ids.device();
    args.low_rank_scale = 0.5f;
    args.outlier_row_offsets = ends.device(), args.outlier_columns = at.device();
    args.outlier_values = values.device();
    args.activation = it.activation;
    if (it.c_scales) args.c_scales = c_scales.device();
    if (it.c == BL_DTYPE_i8 && !it.c_scales) args.c_scale = 0.1f;
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, "matmul_finish");
  };
}

Run finished_in_turns(bool gates, int32_t c_type) {
  return [=](TestQueue& queue) {
    constexpr int32_t kRows = 13, kColumns = 35, kSplits = 5, kRank = 2;
    const int32_t n = gates ? 2 * kColumns : kColumns;
    Tensor partial(queue, BL_DTYPE_f32, {kSplits, kRows, n}), c(queue, c_type, {kRows, kColumns});
    Tensor low(queue, BL_DTYPE_f32, {kRows, kRank}), up(queue, BL_DTYPE_f32, {n, kRank});
    Tensor addend(queue, BL_DTYPE_f32, {kRows, n}), residual(queue, BL_DTYPE_f32, {kRows, kColumns});
    partial.uniform(1), low.uniform(2), up.uniform(3), addend.uniform(4), residual.uniform(5);
    gemm::FinishParams p{};
    p.partial = static_cast<const float*>(partial.device().data);
    p.splits = kSplits, p.m = kRows, p.n = n, p.columns = kColumns;
    gemm::Epilogue& e = p.epilogue;
    e.c = c.device().data, e.c_row = kColumns, e.c_column = 1, e.c_dtype = c_type, e.code_scale = 20;
    e.low = static_cast<const float*>(low.device().data), e.rank = kRank, e.adapters = 1, e.low_scale = 0.5f;
    e.up = up.device().data, e.up_row = kRank, e.up_column = 1, e.up_dtype = BL_DTYPE_f32;
    e.addend = addend.device().data, e.addend_row = n, e.addend_column = 1, e.addend_dtype = BL_DTYPE_f32;
    e.residual = residual.device().data, e.residual_row = kColumns, e.residual_column = 1;
    e.residual_dtype = BL_DTYPE_f32;
    e.scale = 1, e.gated_columns = gates ? kColumns : 0;
    e.activation = gates ? BL_ACTIVATION_swiglu : BL_ACTIVATION_none;
    LaunchShape shape;
    shape.grid = {2, 1, 1};
    shape.block = {32, 4, 1};
    bl_error error{};
    check_ok(queue.launch(matmul_module, "matmul_finish", shape, p, &error), error, "matmul_finish");
  };
}

Run attended(AttentionCase c, int64_t nan_rows, int32_t excess, int32_t slope) {
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
  };
}

Run sampled(Sampled it, const std::function<float(int64_t, Random&)>& logit) {
  return [=](TestQueue& queue) {
    Tensor logits(queue, BL_DTYPE_f32, {it.vocab}), previous(queue, BL_DTYPE_i32, {it.previous});
    Random random(5);
    logits.fill([&](int64_t i) { return logit(i, random); });
    std::vector<int32_t> ids;
    for (int64_t i = 1; i < it.previous; ++i) ids.push_back(static_cast<int32_t>(i * 6 - 5));
    ids.push_back(static_cast<int32_t>(it.vocab) - 1);
    previous.integers(ids);
    int32_t token = -1;
    float probability = -1;
    bl_sample_args args{};
    args.size = sizeof(args);
    args.logits = logits.device();
    args.previous = previous.device();
    args.temperature = it.temperature;
    args.top_k = it.top_k;
    args.top_p = it.top_p;
    args.min_p = it.min_p;
    args.repetition_penalty = 1.5f;
    args.seed = 42;
    args.token = &token;
    args.probability = &probability;
    bl_error error{};
    check_ok(sample(queue, args, &error), error, "sample");
  };
}

Run drawn(Sampled it, float scale, float least) {
  return sampled(it, [=](int64_t, Random& random) { return least + scale * (1 + random.uniform()); });
}

Run searched(int64_t above) {
  constexpr int64_t kPenalized = 3, kVocab = 1024 + 1 + kPenalized;
  return sampled({.vocab = kVocab, .top_p = 0.9f}, [=](int64_t i, Random&) {
    const uint32_t low = static_cast<uint32_t>(i) * 5 % 32;
    const uint32_t bits = i >= 10 && i < 10 + above ? 0x3ff00000u + low : 0x3f800000u | 0123456u << 5 | low;
    float value;
    std::memcpy(&value, &bits, 4);
    return value;
  });
}

Run levelled(Sampled it, int64_t equal, int64_t above) {
  return sampled(it, [=](int64_t i, Random&) { return i < equal ? 0.0f : i < equal + above ? 1.0f : -1.0f; });
}

Run picked(int64_t candidates) {
  return [=](TestQueue& queue) {
    constexpr int64_t kMasses = kPickThreads + 6;
    std::vector<uint64_t> keys;
    for (int64_t id = 0; id < candidates; ++id)
      keys.push_back(uint64_t{0x80000000u} << 32 | (0xffffffffu - static_cast<uint32_t>(id)));
    std::vector<double> masses(kMasses, 0);
    masses.front() = static_cast<double>(candidates) * (1 + 0x1p-50);
    const SampleResult result = {keys.front(), candidates, 0, 0, -1, -1};
    SampleParams p{};
    p.vocab = candidates, p.temperature = 1, p.mass_blocks = kMasses, p.draw = 1 - 0x1p-53;
    p.keys = static_cast<uint64_t*>(queue.allocate(keys.size() * 8));
    p.masses = static_cast<double*>(queue.allocate(masses.size() * 8));
    p.result = static_cast<SampleResult*>(queue.allocate(sizeof(result)));
    queue.write(p.keys, keys.data(), keys.size() * 8);
    queue.write(p.masses, masses.data(), masses.size() * 8);
    queue.write(p.result, &result, sizeof(result));
    LaunchShape shape;
    shape.block.x = kPickThreads;
    bl_error error{};
    check_ok(queue.launch(sampling_module, "sample_pick", shape, p, &error), error, "sample_pick");
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
  };
}

}  // namespace bitloom::cuda::testing
