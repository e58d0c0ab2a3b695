// Formats with one table, looked up as pairs in shared memory and as entries in lanes (table_lookups.cu): the
// bits of the shipped kernels, and which of the two counts better.
#include <cstdio>
#include <cstdlib>

#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

struct Run {
  std::vector<uint8_t> c;
  double instructions;  // of warps, for each mma
  double passes;        // over the banks of shared memory, for each mma: a shuffle is one
};

// `lookup`: the module that has `kernel`, or "": as it is shipped.
Run product(const Settings& settings, const char* format, int64_t m, int64_t n, int64_t k, const char* kernel,
            const std::string& lookup) {
  TestQueue queue(settings);
  if (!lookup.empty()) {
    queue.mutated_kernel = kernel;
    queue.mutated_module =
        ptx::Module::parse(text_of_image(lookup + ".compute_" + std::to_string(settings.arch)));
  }
  const std::string what = shape_name(format, m, n, k) + " " + lookup;
  const PackedWeights b(queue, format, n, k, 3);
  Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, BL_DTYPE_f32, {m, n});
  a.uniform(1);
  bl_matmul_args args = arguments();
  args.a = a.device();
  args.b = b.device();
  args.c = c.device();
  bl_error error{};
  check_ok(matmul(queue, args, &error), error, what);
  check(queue.launches[0].kernel == kernel, what + ": runs " + queue.launches[0].kernel);
  const ptx::Counters& counters = queue.launches[0].report.counters;
  const double mma = static_cast<double>(counters.mma());
  const uint64_t shuffles = counters.total("shfl").warps;
  // The stream kernels have one more in each warp.
  check((shuffles > counters.mma() / 4) == (lookup == "LaneTable"),
        what + ": shuffles " + std::to_string(shuffles));
  return {c.device_bytes(), static_cast<double>(counters.warp_instructions()) / mma,
          static_cast<double>(counters.total("").wavefronts + shuffles) / mma};
}

// Lanes take at least `least` times the instructions of pairs, and at most `most`; TABLE_LOOKUPS=1 prints
// what README.md has.
void compare(const char* format, int64_t m, int64_t n, int64_t k, const char* kernel, double least,
             double most) {
  for (Settings settings : all_archs()) {
    settings.multiprocessors = 1;
    const std::string what = shape_name(format, m, n, k) + " compute_" + std::to_string(settings.arch);
    try {
      const Run shipped = product(settings, format, m, n, k, kernel, "");
      const Run pairs = product(settings, format, m, n, k, kernel, "PairTable");
      const Run lanes = product(settings, format, m, n, k, kernel, "LaneTable");
      check(pairs.c == shipped.c, what + ": the same bits from pairs");
      check(lanes.c == shipped.c, what + ": the same bits from lanes");
      const double ratio = lanes.instructions / pairs.instructions;
      check(least <= ratio && ratio <= most,
            what + ": instructions, lanes over pairs " + std::to_string(ratio));
      if (std::getenv("TABLE_LOOKUPS") == nullptr) continue;
      std::printf(
          "%-35s instructions/mma: shipped %.2f, pairs %.2f, lanes %.2f; passes/mma: %.2f, %.2f, %.2f\n",
          what.c_str(), shipped.instructions, pairs.instructions, lanes.instructions, shipped.passes,
          pairs.passes, lanes.passes);
    } catch (const std::exception& fault) {
      check(false, what + ": " + fault.what());
    }
  }
}

}  // namespace

BITLOOM_CUDA_TEST(table_lookups) {
  compare("nf4_g64", 64, 128, 2048, "matmul_prompt_t4", 1.02, 1.06);
  compare("nf4_g64", 1, 256, 4096, "matmul_stream_t4", 1.02, 1.06);
  compare("nf4_g64", 16, 256, 4096, "matmul_stream16_t4", 1.02, 1.08);
  compare("cb3_g64", 64, 128, 2048, "matmul_prompt_t3", 1.1, 1.2);
  compare("cb3_g64", 16, 256, 4096, "matmul_stream16_t3", 1.1, 1.25);
  compare("cb2_g64", 64, 128, 2048, "matmul_prompt_t2", 0.8, 0.9);
  compare("cb2_g64", 16, 256, 4096, "matmul_stream16_t2", 0.8, 0.9);
  // Edges, and entries that a power of two was taken out of.
  compare("iq4_nl", 65, 130, 96, "matmul_prompt_t4", 0, 2);
  compare("cb4_row", 7, 17, 136, "matmul_stream_t4", 0, 2);
  compare("cb3_g32", 9, 33, 72, "matmul_stream16_t3", 0, 2);
}

}  // namespace bitloom::cuda::testing
