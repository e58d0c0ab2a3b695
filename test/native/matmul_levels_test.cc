// Every kernel of matmul that this machine can run (native/ops/matmul/kernels.inc, but for algorithm tile,
// which test/matmul/tile.test.ts compares) against level scalar, in all formats, through the C ABI: the same
// bits where products are of integers, the bound of the README in f32. Also run in an emulator for processors
// that are not at hand (test/native/arm64.sh). Argument: a seed.
#include "levels.h"

#include <algorithm>
#include <set>

namespace {

std::set<std::string> kernels_seen;

struct Case {
  int32_t format;
  int64_t m, n, k;
  std::vector<float> a, codebook;
  std::vector<uint8_t> weights;
  int32_t layout;

  std::string name() const {
    return std::string(bl_get_format_info(format)->name) + " M=" + std::to_string(m) +
           " N=" + std::to_string(n) + " K=" + std::to_string(k) +
           (layout == BL_LAYOUT_lanes16 ? " lanes16" : "");
  }
  bl_weights b() {
    bl_weights b{};
    b.data = weights.data();
    b.bytes = weights.size();
    b.format = format;
    b.layout = layout;
    b.rows = n;
    b.cols = k;
    if (!codebook.empty()) {
      b.codebook = codebook.data();
      b.codebook_size = static_cast<int32_t>(codebook.size());
    }
    return b;
  }
};

// Zeros, denormals, infinities or NaN in a row of activations; the largest numbers only where `large`.
void spoil(Random& random, bool large, int64_t k, float* row) {
  const float kValues[] = {0.0f, -0.0f, 1e-42f, INFINITY, -INFINITY, NAN, large ? 3e38f : 1e30f, 1e-37f};
  const int64_t what = random.below(6);
  if (what == 0) std::fill(row, row + k, 0.0f);
  if (what == 1) std::for_each(row, row + k, [](float& x) { x *= 1e-41f; });
  if (what >= 2) row[random.below(k)] = kValues[random.below(8)];
}

// Compute f32: only numbers whose products with codes, before the scale is applied, stay within its range, as
// the specification's do in double.
Case make_case(Random& random, int32_t format, bool f32) {
  static constexpr int64_t kDepths[] = {1, 31, 33, 63, 65, 96, 130}, kColumns[] = {1, 15, 17, 33, 48, 130};
  const bl_format_info& info = *bl_get_format_info(format);
  Case c{};
  c.format = format;
  c.m = 1 + random.below(9);
  c.n = random.one_of(kColumns);
  c.k = random.one_of(kDepths);
  if (info.kind == BL_KIND_block)
    c.k = info.block_elements * (1 + random.below(info.block_elements > 100 ? 2 : 5));
  if (info.group_size > 64 && random.below(3) == 0) c.k += 2 * info.group_size;
  if (info.kind == BL_KIND_codebook) c.codebook = random.gaussians(1 << info.bits);
  if (info.kind == BL_KIND_codebooks) c.codebook = random.gaussians((1 + random.below(6)) << info.bits);
  c.a = random.gaussians(c.m * c.k);
  for (int64_t m = 0; m < c.m; ++m) {
    if (random.below(4) == 0) spoil(random, !f32, c.k, c.a.data() + m * c.k);
  }
  // Encoded, or (one in four) any bytes: scales are then any numbers.
  c.weights.resize(bl_weights_bytes(format, c.n, c.k));
  std::vector<float> values = random.gaussians(c.n * c.k);
  bl_quantize_args quantize{};
  quantize.size = sizeof(quantize);
  quantize.run = run_at(BL_ISA_scalar);
  quantize.input = floats(values, {c.n, c.k});
  quantize.output = c.b();
  const bool any = random.below(4) == 0 && !f32;
  if (any || bl_quantize(&quantize, nullptr) != BL_STATUS_ok) {
    check(any, "quantize " + c.name());
    for (uint8_t& byte : c.weights) byte = static_cast<uint8_t>(random.next());
  }
  if (random.below(2) == 0) return c;
  Case packed = c;
  packed.layout = BL_LAYOUT_lanes16;
  packed.weights.resize(bl_layout_bytes(format, packed.layout, c.n, c.k));
  bl_pack_args pack{};
  pack.size = sizeof(pack);
  pack.run = run_at(BL_ISA_scalar);
  pack.input = c.b();
  pack.output = packed.b();
  check(bl_pack(&pack, nullptr) == BL_STATUS_ok, "pack " + c.name());
  return packed;
}

struct Mode {
  int32_t compute, algorithm, tables;
};
constexpr Mode kModes[] = {{BL_COMPUTE_i8, BL_ALGORITHM_dequant, BL_TABLES_lossless},
                           {BL_COMPUTE_i8, BL_ALGORITHM_lut, BL_TABLES_lossless},
                           {BL_COMPUTE_i8, BL_ALGORITHM_lut, BL_TABLES_fast},
                           {BL_COMPUTE_f32, BL_ALGORITHM_dequant, BL_TABLES_lossless},
                           {BL_COMPUTE_i1, BL_ALGORITHM_dequant, BL_TABLES_lossless}};

bl_matmul_args args_of(Case& c, const Mode& mode, bl_run run, std::vector<float>& out) {
  bl_matmul_args args{};
  out.assign(static_cast<size_t>(c.m * c.n), -7.0f);
  args.size = sizeof(args);
  args.run = run;
  args.a = floats(c.a, {c.m, c.k});
  args.b = c.b();
  args.c = floats(out, {c.m, c.n});
  args.compute = mode.compute;
  args.algorithm = mode.algorithm;
  args.tables = mode.tables;
  return args;
}

// Sum of |products| of each output.
std::vector<double> magnitudes(Case& c) {
  std::vector<float> weights(static_cast<size_t>(c.n * c.k));
  bl_dequantize_args args{};
  args.size = sizeof(args);
  args.run = run_at(BL_ISA_scalar);
  args.input = c.b();
  args.output = floats(weights, {c.n, c.k});
  check(bl_dequantize(&args, nullptr) == BL_STATUS_ok, "dequantize " + c.name());
  std::vector<double> sums;
  for (int64_t m = 0; m < c.m; ++m) {
    for (int64_t n = 0; n < c.n; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < c.k; ++k) {
        sum += std::fabs(static_cast<double>(c.a[static_cast<size_t>(m * c.k + k)]) *
                         static_cast<double>(weights[static_cast<size_t>(n * c.k + k)]));
      }
      sums.push_back(sum);
    }
  }
  return sums;
}

// What is wrong with a result in f32, or nothing. Below 2^-20 of the sum of |products| (README), and some of
// the smallest subnormal for every product and its scale; not finite where a product is not.
std::string fault(const std::vector<float>& got, const std::vector<float>& want,
                  const std::vector<double>& sums) {
  for (size_t i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got[i]), w = static_cast<double>(want[i]);
    const bool right = std::isfinite(sums[i]) ? std::fabs(g - w) <= sums[i] * 0x1p-20 + 1e-40
                                              : std::isfinite(got[i]) == std::isfinite(want[i]);
    if (right) continue;
    char text[160];
    std::snprintf(text, sizeof(text), ": c[%zu] is %.9g, expected %.9g, sum of magnitudes %.9g", i, g, w,
                  sums[i]);
    return text;
  }
  return "";
}

void compare(Case& c, const Mode& mode) {
  std::vector<float> want, got, again;
  bl_error error{};
  bl_matmul_args args = args_of(c, mode, run_at(BL_ISA_scalar), want);
  if (bl_matmul_kernel(&args) == nullptr) return;  // the format does not go with the mode
  const bool f32 = std::strstr(bl_matmul_kernel(&args), "_f32_") != nullptr;
  if (f32 && mode.compute == BL_COMPUTE_i8) return;  // no integers: compared in f32
  check(bl_matmul(&args, &error) == BL_STATUS_ok, c.name() + ": " + error.message);
  const std::vector<double> sums = f32 ? magnitudes(c) : std::vector<double>();
  for (const int32_t isa : levels_here()) {
    args = args_of(c, mode, run_at(isa), got);
    const std::string kernel = bl_matmul_kernel(&args);
    if (!kernels_seen.insert(kernel).second && !kernel.ends_with(std::string("_") + bl_isa_name(isa)))
      continue;
    const std::string what = kernel + ", " + c.name();
    check(bl_matmul(&args, &error) == BL_STATUS_ok, what + ": " + error.message);
    const std::string wrong = f32 ? fault(got, want, sums) : same_bits(got, want) ? "" : ": other bits";
    check(wrong.empty(), what + wrong);
    for (const int32_t threads : {2, 3}) {
      args = args_of(c, mode, run_at(isa, threads), again);
      check(bl_matmul(&args, &error) == BL_STATUS_ok && same_bits(again, got),
            what + " threads=" + std::to_string(threads));
    }
  }
}

// Codes, scales, sums and tables of activations are the same bytes at every level.
void compare_prepared(Random& random) {
  for (const int64_t k : {1, 31, 33, 63, 65, 512, 700}) {
    const int64_t m = 1 + random.below(4);
    std::vector<float> x = random.gaussians(m * k);
    for (int64_t i = 0; i < m; i += 2) spoil(random, true, k, x.data() + i * k);
    bl_prepare_activations_args args{};
    args.size = sizeof(args);
    args.x = floats(x, {m, k});
    args.tables = 3;
    args.output_bytes = bl_prepare_activations_bytes(m, k, 3);
    std::vector<std::vector<uint64_t>> outputs;
    std::vector<int32_t> levels = levels_here();
    levels.insert(levels.begin(), BL_ISA_scalar);
    for (const int32_t isa : levels) {
      outputs.emplace_back(args.output_bytes / 8 + 1, 0);
      args.run = run_at(isa);
      args.output = outputs.back().data();
      check(bl_prepare_activations(&args, nullptr) == BL_STATUS_ok && outputs.back() == outputs.front(),
            std::string("prepare_activations at ") + bl_isa_name(isa) + ", K=" + std::to_string(k));
    }
  }
}

void check_all_seen() {
#define BL_MATMUL_KERNEL(isa, algorithm, compute, formats, panels, rows, scratch) \
  if (bl_isa_supported(BL_ISA_##isa) != 0 && BL_ISA_##isa != BL_ISA_scalar &&     \
      std::strcmp(#algorithm, "tile") != 0) {                                     \
    const char* name = "matmul_" #algorithm "_" #compute "_" #isa;                \
    check(kernels_seen.count(name) == 1, std::string(name) + " is run");          \
    std::printf("%s\n", name);                                                    \
  }
#include "../../native/ops/matmul/kernels.inc"
#undef BL_MATMUL_KERNEL
}

// A level of another family of processors is refused, by a message that names those there are.
void check_foreign() {
  Random random{1};
  Case c = make_case(random, BL_FORMAT_q4_0, false);
  std::vector<float> out;
  for (int32_t isa = 0; bl_isa_name(isa) != nullptr; ++isa) {
    if (bl_isa_supported(isa) != 0) continue;
    bl_error error{};
    bl_matmul_args args = args_of(c, kModes[0], run_at(isa), out);
    check(bl_matmul(&args, &error) == BL_STATUS_unsupported &&
              std::strstr(error.message, "expected one of scalar") != nullptr,
          std::string("run.isa ") + bl_isa_name(isa) + ": " + error.message);
    check(bl_set_isa(isa, &error) == BL_STATUS_unsupported, std::string("set_isa ") + bl_isa_name(isa));
  }
}

}  // namespace

int main(int argc, char** argv) {
  Random random = random_from(argc, argv);
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    for (const Mode& mode : kModes) {
      for (int i = 0; i < 4; ++i) {
        Case c = make_case(random, format, mode.compute == BL_COMPUTE_f32);
        compare(c, mode);
      }
    }
  }
  compare_prepared(random);
  check_foreign();
  check_all_seen();
  return finish();
}
