// The operators around matmul, and what matmul does around its products, at every level of this machine
// against level scalar, within the bounds that their contracts state (kernel.h of each family,
// row_kernels.h). For processors that are not at hand: test/native/arm64.sh. Argument: a seed.
#include "levels.h"
#include "bitloom_attention.h"
#include "linear_attention_levels.h"

#include <algorithm>
#include <functional>

namespace {

// |got - want| at most relative(i) * 2^-24 * |want|, for results in the normal range.
bool within(const std::vector<float>& got, const std::vector<float>& want,
            const std::function<double(size_t)>& relative) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    if (std::isnan(got[i]) != std::isnan(want[i])) return false;
    if (!std::isnan(got[i]) && g != w &&
        !(std::fabs(g - w) <= relative(i) * 0x1p-24 * std::fabs(w) + 1e-37)) {
      return false;
    }
  }
  return true;
}

using Call = std::function<bl_status(const bl_run& run, std::vector<float>& out)>;

// Runs a call at all levels and compares.
void compare(const std::string& name, size_t count, const Call& call,
             const std::function<double(size_t)>& relative) {
  std::vector<float> want(count);
  check(call(run_at(BL_ISA_scalar), want) == BL_STATUS_ok, name);
  for (const int32_t isa : levels_here()) {
    for (const int32_t threads : {1, 3}) {
      std::vector<float> got(count, -7.0f);
      check(call(run_at(isa, threads), got) == BL_STATUS_ok && within(got, want, relative),
            name + " at " + bl_isa_name(isa) + ", " + std::to_string(count) + " values");
    }
  }
}

void unary_and_binary(Random& random, int64_t count) {
  std::vector<float> x = random.gaussians(count), y = random.gaussians(count);
  for (float& value : x) value *= 3;
  if (count > 3) x[1] = NAN;
  const auto units = [](double value) { return [value](size_t) { return value; }; };
  const auto binary = [&](bl_status (*run_op)(const bl_binary_args*, bl_error*)) {
    return [&, run_op](const bl_run& run, std::vector<float>& out) {
      bl_binary_args args{sizeof(args), run, floats(x, {count}), floats(y, {count}), floats(out, {count})};
      return run_op(&args, nullptr);
    };
  };
  const size_t size = static_cast<size_t>(count);
  compare("add", size, binary(bl_add), units(0));
  compare("mul", size, binary(bl_mul), units(0));
  compare("swiglu", size, binary(bl_swiglu), units(10));
  compare(
      "silu", size,
      [&](const bl_run& run, std::vector<float>& out) {
        bl_silu_args args{sizeof(args), run, floats(x, {count}), floats(out, {count})};
        return bl_silu(&args, nullptr);
      },
      units(8));
  for (const int32_t approximation : {BL_GELU_erf, BL_GELU_tanh}) {
    const auto bound = [&, approximation](size_t i) {
      const double u =
          1.5957691 * (static_cast<double>(x[i]) + 0.044715 * std::pow(static_cast<double>(x[i]), 3));
      return approximation == BL_GELU_erf ? 14 : 12 + 8 * std::fabs(u);
    };
    compare(
        "gelu", size,
        [&, approximation](const bl_run& run, std::vector<float>& out) {
          bl_gelu_args args{sizeof(args), run, floats(x, {count}), floats(out, {count}), approximation};
          return bl_gelu(&args, nullptr);
        },
        bound);
  }
}

void rows_of(Random& random, int64_t length) {
  const int64_t rows = 3, count = rows * length;
  std::vector<float> x = random.gaussians(count), weight = random.gaussians(length),
                     bias = random.gaussians(length);
  const size_t size = static_cast<size_t>(count);
  compare(
      "softmax", size,
      [&](const bl_run& run, std::vector<float>& out) {
        bl_softmax_args args{sizeof(args), run, floats(x, {rows, length}), floats(out, {rows, length}), 0.7f};
        return bl_softmax(&args, nullptr);
      },
      [](size_t) { return 2 * 10.0 + 48; });
  // Relative to the element here; elements of a row of some length are not far below the others.
  compare(
      "rms_norm", size,
      [&](const bl_run& run, std::vector<float>& out) {
        bl_rms_norm_args args{sizeof(args),
                              run,
                              floats(x, {rows, length}),
                              floats(weight, {length}),
                              floats(out, {rows, length}),
                              1e-5f};
        return bl_rms_norm(&args, nullptr);
      },
      [](size_t) { return 64; });
  std::vector<float> want(size);
  for (const int32_t isa : levels_here()) {
    std::vector<float> got(size), expected(size);
    for (std::vector<float>* out : {&expected, &got}) {
      bl_layer_norm_args args{sizeof(args),
                              run_at(out == &got ? isa : BL_ISA_scalar),
                              floats(x, {rows, length}),
                              floats(weight, {length}),
                              floats(bias, {length}),
                              floats(*out, {rows, length}),
                              1e-5f};
      check(bl_layer_norm(&args, nullptr) == BL_STATUS_ok, "layer_norm");
    }
    bool all = true;
    for (size_t i = 0; i < size; ++i) {
      const size_t at = i % static_cast<size_t>(length);
      const double w = std::fabs(static_cast<double>(weight[at])),
                   b = std::fabs(static_cast<double>(bias[at]));
      const double n = (std::fabs(static_cast<double>(expected[i])) + b) / std::max(w, 1e-30);
      all = all && std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i])) <=
                       0x1p-18 * (1 + n) * w + 0x1p-22 * b;
    }
    check(all, std::string("layer_norm at ") + bl_isa_name(isa) + ", length " + std::to_string(length));
  }
}

void rope(Random& random, int64_t head_dim) {
  const int64_t tokens = 3, heads = 2;
  std::vector<float> x = random.gaussians(tokens * heads * head_dim);
  std::vector<int32_t> positions = {0, 7, 100};
  for (const int32_t mode : {BL_ROPE_interleaved, BL_ROPE_half}) {
    compare(
        "rope", x.size(),
        [&, mode](const bl_run& run, std::vector<float>& out) {
          bl_rope_args args{};
          args.size = sizeof(args);
          args.run = run;
          args.x = floats(x, {tokens, heads, head_dim});
          args.output = floats(out, {tokens, heads, head_dim});
          args.positions = view_of(positions.data(), BL_DTYPE_i32, 4, {tokens});
          args.mode = mode;
          args.theta = 10000;
          args.factor = 1;
          return bl_rope(&args, nullptr);
        },
        [](size_t) { return 0; });
  }
}

// Bound as in test/attention: 16 + head_dim / 2 roundings of the largest |v|, which is below 4; with rope 8
// more. rope: bl_rope_mode, or -1: none.
void attention(Random& random, int64_t keys, int64_t head_dim, int32_t dtype, int32_t rope) {
  const int64_t queries = 3, heads = 4, kv_heads = 2;
  std::vector<float> q = random.gaussians(queries * heads * head_dim);
  std::vector<float> k = random.gaussians(keys * kv_heads * head_dim),
                     v = random.gaussians(keys * kv_heads * head_dim);
  const auto halves = [&](const std::vector<float>& from) {
    std::vector<uint16_t> to;
    for (const float value : from) {
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      // f16 of the same size, cut; bf16, cut.
      const uint32_t exponent = bits >> 23 & 255;
      const uint32_t f16 = exponent < 113 ? 0 : (exponent - 112) << 10 | (bits >> 13 & 1023);
      to.push_back(static_cast<uint16_t>(dtype == BL_DTYPE_bf16 ? bits >> 16 : (bits >> 16 & 0x8000) | f16));
    }
    return to;
  };
  std::vector<uint16_t> half_k = halves(k), half_v = halves(v);
  const auto view = [&](std::vector<float>& whole, std::vector<uint16_t>& half) {
    const std::vector<int64_t> shape = {keys, kv_heads, head_dim};
    return dtype == BL_DTYPE_f32 ? floats(whole, shape) : view_of(half.data(), dtype, 2, shape);
  };
  std::vector<float> want(q.size());
  const size_t columns = static_cast<size_t>(heads * keys);
  std::vector<float> want_sums(columns), want_entropy(static_cast<size_t>(heads));
  std::vector<int32_t> levels = levels_here();
  levels.insert(levels.begin(), BL_ISA_scalar);
  for (const int32_t isa : levels) {
    std::vector<float> got(q.size(), -7.0f), sums(columns, -7.0f), entropy(want_entropy.size(), -7.0f);
    bl_attention_args args{};
    args.size = sizeof(args);
    args.run = run_at(isa);
    args.q = floats(q, {queries, heads, head_dim});
    args.k = view(k, half_k);
    args.v = view(v, half_v);
    args.output = floats(got, {queries, heads, head_dim});
    args.causal = 1;
    args.score_sums = floats(sums, {1, heads, keys});
    args.score_entropy = floats(entropy, {1, heads});
    if (rope >= 0) {
      args.rope.size = sizeof(args.rope);
      args.rope.mode = rope;
      args.rope.rotary_dim = static_cast<int32_t>(head_dim / 4 * 2);
      args.rope.theta = 10000;
    }
    bl_error error{};
    check(bl_attention(&args, &error) == BL_STATUS_ok, error.message);
    if (isa == BL_ISA_scalar) {
      want = got;
      want_sums = sums;
      want_entropy = entropy;
    }
    const auto largest = [](const std::vector<float>& a, const std::vector<float>& b) {
      double most = 0;
      for (size_t i = 0; i < a.size(); ++i) {
        most = std::max(most, std::fabs(static_cast<double>(a[i]) - static_cast<double>(b[i])));
      }
      return most;
    };
    // Sums are of three weights; -p ln p is off by a weight's error times 1 + |ln p|, which is below 20 here.
    const double worst =
        std::max({largest(got, want), largest(sums, want_sums), largest(entropy, want_entropy) / 5});
    const double steps = 16 + static_cast<double>(head_dim) / 2 + (rope >= 0 ? 8 : 0);
    check(worst <= steps * 0x1p-23 * 4, std::string("attention at ") + bl_isa_name(isa) + ", rope " +
                                            std::to_string(rope) + ", head_dim " + std::to_string(head_dim) +
                                            ", keys " + std::to_string(keys) + ": " + std::to_string(worst));
  }
}

// matmul with everything around its products. 4-bit activations and scales per row are integers: the products
// have the same bits, and what is added is within 2^-17 of the size of its terms, some 100 here.
void around_products(Random& random, int64_t k, int32_t activation_bits, int32_t dtype) {
  const int64_t m = 3, n = 33, rank = 5;
  std::vector<float> a = random.gaussians(m * k), weights = random.gaussians(n * k),
                     column_scale = random.gaussians(k);
  std::vector<float> down = random.gaussians(rank * k), up = random.gaussians(n * rank), outliers;
  std::vector<int32_t> offsets = {0}, columns;
  for (int64_t row = 0; row < n; ++row) {
    for (int64_t i = random.below(12); i > 0; --i) {
      columns.push_back(static_cast<int32_t>(random.below(k)));
      outliers.push_back(random.gaussian());
    }
    offsets.push_back(static_cast<int32_t>(columns.size()));
  }
  const int64_t nonzero = static_cast<int64_t>(columns.size());
  std::vector<float> want;
  std::vector<int8_t> want_codes;
  std::vector<int32_t> levels = levels_here();
  levels.insert(levels.begin(), BL_ISA_scalar);
  for (const int32_t isa : levels) {
    std::vector<float> got(static_cast<size_t>(m * n), -7.0f), scales(static_cast<size_t>(m * 2));
    std::vector<int8_t> codes(static_cast<size_t>(m * n), 77);
    bl_matmul_args args{};
    args.size = sizeof(args);
    args.run = run_at(isa);
    args.a = floats(a, {m, k});
    args.b.data = weights.data();
    args.b.bytes = weights.size() * sizeof(float);
    args.b.format = BL_FORMAT_f32;
    args.b.rows = n;
    args.b.cols = k;
    args.compute = BL_COMPUTE_f32;
    args.algorithm = BL_ALGORITHM_dequant;
    args.column_scale = floats(column_scale, {k});
    std::vector<uint8_t> quantized(bl_weights_bytes(BL_FORMAT_u4_g32, n, k));
    if (activation_bits != 0) {
      bl_quantize_args quantize{};
      quantize.size = sizeof(quantize);
      quantize.run = run_at(BL_ISA_scalar);
      quantize.input = floats(weights, {n, k});
      quantize.output = args.b;
      quantize.output.data = quantized.data();
      quantize.output.bytes = quantized.size();
      quantize.output.format = BL_FORMAT_u4_g32;
      check(bl_quantize(&quantize, nullptr) == BL_STATUS_ok, "quantize");
      args.b = quantize.output;
      args.compute = BL_COMPUTE_i8;
      args.activation_bits = activation_bits;
      args.activation_group = BL_ACTIVATION_GROUP_row;
    }
    args.low_rank_down = floats(down, {rank, k});
    args.low_rank_up = floats(up, {n, rank});
    args.low_rank_scale = 0.5f;
    args.outlier_row_offsets = view_of(offsets.data(), BL_DTYPE_i32, 4, {n + 1});
    args.outlier_columns = view_of(columns.data(), BL_DTYPE_i32, 4, {nonzero});
    args.outlier_values = floats(outliers, {nonzero});
    args.activation = BL_ACTIVATION_gelu;
    args.c = dtype == BL_DTYPE_f32 ? floats(got, {m, n}) : view_of(codes.data(), BL_DTYPE_i8, 1, {m, n});
    if (dtype == BL_DTYPE_i8) args.c_scales = floats(scales, {m, 2});
    bl_error error{};
    check(bl_matmul(&args, &error) == BL_STATUS_ok, error.message);
    if (isa == BL_ISA_scalar) {
      want = got;
      want_codes = codes;
    }
    double worst = 0;
    for (size_t i = 0; i < got.size(); ++i) {
      worst = std::max(worst, std::fabs(static_cast<double>(got[i]) - static_cast<double>(want[i])));
      if (std::abs(codes[i] - want_codes[i]) > 1) worst = INFINITY;  // a tie may fall to the other side
    }
    check(worst <= 0x1p-17 * 100 * (1 + std::sqrt(static_cast<double>(k))),
          std::string("matmul with additions at ") + bl_isa_name(isa) + ", K " + std::to_string(k) + ": " +
              std::to_string(worst));
  }
}

}  // namespace

#if defined(__x86_64__)
// The shape of the matrix unit belongs to the thread, and other libraries set it once and rely on it.
void keeps_tile_shape(Random& random) {
  if (bl_isa_available() < BL_ISA_amx) return;
  const int64_t m = 17, n = 32, k = 96;
  std::vector<float> a = random.gaussians(m * k), b = random.gaussians(n * k), c(static_cast<size_t>(m * n));
  bl_matmul_args args{};
  args.size = sizeof(args);
  args.run = run_at(BL_ISA_amx);
  args.a = floats(a, {m, k});
  args.b.data = b.data();
  args.b.bytes = b.size() * sizeof(float);
  args.b.format = BL_FORMAT_f32;
  args.b.rows = n;
  args.b.cols = k;
  args.c = floats(c, {m, n});
  args.compute = BL_COMPUTE_bf16;
  args.algorithm = BL_ALGORITHM_tile;
  check(bl_matmul(&args, nullptr) == BL_STATUS_ok, "matmul by tiles");
  struct alignas(64) Shape {
    uint8_t bytes[64];
  };
  Shape before{}, after{};
  before.bytes[0] = 1;    // palette
  before.bytes[16] = 32;  // bytes of a row of tile 0, and its rows
  before.bytes[48] = 8;
  __asm__ volatile("ldtilecfg %0" : : "m"(before));
  const bl_status status = bl_matmul(&args, nullptr);
  __asm__ volatile("sttilecfg %0" : "=m"(after));
  __asm__ volatile("tilerelease");
  check(status == BL_STATUS_ok && std::memcmp(&before, &after, sizeof(Shape)) == 0, "shape of tiles kept");
  check(bl_matmul(&args, nullptr) == BL_STATUS_ok, "matmul by tiles again");
  __asm__ volatile("sttilecfg %0" : "=m"(after));
  check(std::memcmp(&after, Shape{}.bytes, sizeof(Shape)) == 0, "no shape left behind");
}
#endif

int main(int argc, char** argv) {
  Random random = random_from(argc, argv);
  for (const int64_t count : {1, 7, 8, 9, 31, 100, 1030}) {
    unary_and_binary(random, count);
    rows_of(random, count);
  }
  for (const int64_t head_dim : {2, 6, 8, 10, 64}) rope(random, head_dim);
  for (const int32_t dtype : {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16}) {
    for (const int64_t head_dim : {1, 7, 8, 20, 64}) {
      for (const int32_t rope : {-1, 0, 1}) {
        if (rope < 0 || head_dim >= 4) attention(random, 3 + random.below(40), head_dim, dtype, rope);
      }
    }
  }
  linear_attention_all(random);
  for (const int64_t k : {1, 15, 33, 200}) {
    for (const int32_t bits : {0, 4, 8}) around_products(random, k, bits, BL_DTYPE_f32);
    around_products(random, k, 0, BL_DTYPE_i8);
  }
#if defined(__x86_64__)
  keeps_tile_shape(random);
#endif
  return finish();
}
