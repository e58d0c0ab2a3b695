// matmul: every kernel with every kind of scales that a format has, and with everything its epilogue can do,
// so that every instruction runs. Small shapes: other tests are about values.
#include <set>
#include <tuple>

#include "cuda/ops/matmul/weights.h"
#include "matmul_calls.h"
#include "weights.h"

namespace bitloom::cuda::testing {
namespace {

struct Representative {
  const char* format;
  std::string kernel;
  int64_t step;   // K is a multiple of it
  int64_t depth;  // units that a lane of the stream kernel has under way
  bool bf16;      // with activations of bf16 as they lie
};

// The first format of each way through a kernel: how codes and scales are stored, and what goes with them.
std::vector<Representative> representatives() {
  using Way = std::tuple<std::string, int32_t, int32_t, bool, int32_t, bool, int32_t>;
  std::set<Way> seen;
  std::vector<Representative> all;
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    const bl_format_info& info = *bl_get_format_info(format);
    const std::vector<float> levels = codebook_for(format);
    bl_weights w{};
    w.format = format;
    w.layout = BL_LAYOUT_fragments;
    w.rows = 16, w.cols = 1024;
    w.codebook = levels.empty() ? nullptr : levels.data();
    w.codebook_size = static_cast<int32_t>(levels.size());
    const gemm::PlannedWeights plan = gemm::plan_weights(w);
    const gemm::FragmentWeights& b = plan.weights;
    const std::string kernel =
        plan.product != nullptr ? plan.product : "unpack " + std::to_string(static_cast<int>(plan.unpack));
    const int64_t step = std::max<int64_t>(info.block_elements, 32);
    const int32_t group = b.group_shift >= 31 ? 31 : std::min(b.group_shift, 6);
    const auto is_new = [&](const std::string& name) {
      return seen
          .emplace(name, b.scale_type, static_cast<int32_t>(b.second), b.super_bytes != 0, group,
                   b.tables > 1, b.exponent_shift)
          .second;
    };
    const int64_t depth =
        plan.product == nullptr ? 1 : gemm::stream_depth(b.unit_bytes / 128, *plan.product == 'c');
    if (is_new(kernel)) all.push_back({info.name, kernel, step, depth, false});
    if (plan.bf16 == nullptr || !is_new(plan.bf16)) continue;
    all.push_back({info.name, plan.bf16, step, gemm::stream_depth(b.unit_bytes / 128, true), true});
  }
  return all;
}

// The i-th of a row of calls that differ in everything that follows the product.
void call_once(const Settings& settings, const Representative& of, int64_t m, int64_t n, int64_t k, int32_t i,
               float scale) {
  Call call(settings, of.format, n, k);
  const int32_t a_type = of.bf16 ? BL_DTYPE_bf16 : i % 2 == 0 ? BL_DTYPE_f16 : BL_DTYPE_f32;
  Tensor a(call.queue, a_type, {m, k});
  a.uniform(1, scale);
  call.set(&bl_matmul_args::a, a);
  Surroundings around(call, m, n, i);
  // Activations of sums around zero and far from it: rounded factors weigh by what is summed, not by the sum.
  const double bound = (0.02 + 0.1 * scale) * (static_cast<double>(k) / 256) + around.epsilon(i);
  call.compare(around.c, bound, shape_name(of.format, m, n, k) + " call " + std::to_string(i));
}

// Rows that end within the second half of a unit, which lies in each place of a ring; a format of each kernel
// whose rows may.
void short_units(Settings settings) {
  settings.multiprocessors = 1;
  for (const char* format :
       {"u4_g32", "u8_g32", "u1_g32", "u2_g32", "u3_g32", "u4z_g32", "u5_g32", "u6_g32", "u7_g32", "u8z_g32",
        "e2m1_g32", "e2m3_g32", "e4m3_g32", "cb2_g32", "cb3_g32", "nf4_g32", "cbs4_g32", "f16", "bf16"}) {
    for (bool bf16 : {false, true}) {
      for (int64_t m : {3, 12}) {
        for (int64_t units : {1, 2, 3, 29, 37, 45, 53}) {
          call_once(settings, {format, "", 8, 0, bf16}, m, 20, 64 * units - 24, 0, 0.1f);
        }
      }
    }
  }
}

// As many tables as fit, which few threads fill in.
void many_tables(const Settings& settings) {
  for (const auto& [format, tables] : {std::pair{"cbs2_g32", 16}, {"cbs3_g32", 4}, {"cbs4_g32", 4}}) {
    for (int64_t m : {2, 12, 18}) {
      Call call(settings, format, 20, 64, tables);
      Tensor a(call.queue, BL_DTYPE_f16, {m, 64}), c(call.queue, BL_DTYPE_f32, {m, 20});
      a.uniform(1);
      call.set(&bl_matmul_args::a, a);
      call.compare(c, 0.1, std::string(format) + " with many tables");
    }
  }
}

}  // namespace

BITLOOM_CUDA_TEST(matmul_coverage) {
  for (const Settings& settings : all_archs()) {
    many_tables(settings);
    short_units(settings);
  }
  std::set<std::string> kernels;
  for (const Representative& of : representatives()) {
    const bool is_first = kernels.insert(of.kernel).second;
    const int64_t k = (256 + 32 + of.step - 1) / of.step * of.step;
    for (Settings settings : all_archs()) {
      settings.multiprocessors = 1;  // no splits of K: the products' kernels do what follows
      for (int64_t m : {3, 9, 17}) call_once(settings, of, m, 30, k, 1, 0.2f);
      const auto columns = [&](int64_t units) { return (64 * units - 32 + of.step - 1) / of.step * of.step; };
      for (int64_t m : {2, 12}) {
        // 7 warps, whose sums are added in turns of 4, 2 and 1; rings that come round with a part left.
        call_once(settings, of, m, 40, columns(7 * of.depth), 1, 0.1f);
        for (int64_t part = 1; part <= of.depth; ++part) {
          call_once(settings, of, m, 20, columns(8 * (2 * of.depth + part) - 3), 0, 0.1f);
        }
      }
      if (!is_first) continue;
      for (int32_t i = 0; i < 15; ++i) {
        for (int64_t m : {5, 9, 17}) call_once(settings, of, m, 18, of.step, i, i % 3 == 0 ? 10.0f : 1.0f);
      }
      settings.multiprocessors = 4;
      for (int64_t m : {3, 12, 19}) call_once(settings, of, m, 20, 1280, 1, 0.1f);
    }
  }
}

}  // namespace bitloom::cuda::testing
