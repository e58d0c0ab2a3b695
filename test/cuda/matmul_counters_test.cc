// matmul: what launches did, against limits.
#include <cstdio>
#include <cstdlib>

#include "cuda/ops/matmul/config.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

// What the launch of a product did; MATMUL_COUNTS=1 prints it, for the README's table.
void count(const char* format, int64_t m, int64_t n, int64_t k, double most_per_mma, double most_excess,
           int32_t a_type = BL_DTYPE_f16) {
  Settings settings;
  settings.multiprocessors = 1;
  TestQueue queue(settings);
  const PackedWeights b(queue, format, n, k, 3);
  Tensor a(queue, a_type, {m, k}), c(queue, BL_DTYPE_f16, {m, n});
  a.uniform(1);
  bl_matmul_args args = arguments();
  args.a = a.device();
  args.b = b.device();
  args.c = c.device();
  bl_error error{};
  queue.launches.clear();
  check_ok(matmul(queue, args, &error), error, format);
  const std::string what = shape_name(format, m, n, k) + " counters";
  const ptx::Counters& counters = queue.launches[0].report.counters;
  uint64_t wavefronts = 0, ideal = 0;
  for (size_t pc = 0; pc < counters.counts.size(); ++pc) {
    const ptx::InstrCount& i = counters.counts[pc];
    wavefronts += i.wavefronts;
    ideal += i.ideal_wavefronts;
  }
  const ptx::InstrCount copies = counters.total("cp.async.cg"), loads = counters.total("ld.global");
  // Bytes of copies are counted on both sides.
  const double used = static_cast<double>(copies.bytes / 2 + loads.bytes) /
                      (32.0 * static_cast<double>(copies.sectors + loads.sectors));
  const int64_t row_tiles = m <= gemm::kStreamRows ? (m + 7) / 8 : (m + 63) / 64 * 8;
  const int64_t column_tiles = m <= gemm::kStreamRows ? (n + 15) / 16 : (n + 127) / 128 * 8;
  const uint64_t least = static_cast<uint64_t>(row_tiles * column_tiles * ((k + 63) / 64 * 4));
  check(counters.mma() == least,
        what + ": mma " + std::to_string(counters.mma()) + ", least " + std::to_string(least));
  const double per_mma = static_cast<double>(counters.warp_instructions()) / static_cast<double>(least);
  const double excess = static_cast<double>(wavefronts - ideal) / static_cast<double>(ideal);
  check(per_mma <= most_per_mma, what + ": instructions per mma " + std::to_string(per_mma));
  check(excess <= most_excess, what + ": excess wavefronts " + std::to_string(excess));
  if (m > gemm::kStreamRows) check(copies.bytes == 64 * copies.sectors, what + ": bytes of copies used");
  if (std::getenv("MATMUL_COUNTS") != nullptr) {
    std::printf("%-40s instructions/mma %.2f, wavefronts %llu of %llu, global bytes used %.3f\n",
                what.c_str(), per_mma, static_cast<unsigned long long>(wavefronts),
                static_cast<unsigned long long>(ideal), used);
  }
}

}  // namespace

// PTX instructions of a launch, with prologue and epilogue; wavefronts of shared memory; mma.
BITLOOM_CUDA_TEST(matmul_counters) {
  count("u4_g128", 64, 128, 2048, 6.0, 0);
  count("q4_0", 64, 128, 2048, 6.5, 0);
  count("q8_0", 64, 128, 2048, 6.5, 0);
  count("u3_g64", 64, 128, 2048, 9.0, 0.04);
  count("q4_k", 64, 128, 2048, 9.5, 0.02);
  count("mxfp4", 64, 128, 2048, 9.5, 0.02);
  count("nf4_g64", 64, 128, 2048, 9.0, 0.35);
  count("cb3_g64", 64, 128, 2048, 9.5, 0.08);
  count("u4_g128", 1, 256, 4096, 32.0, 0.4);
  count("q4_0", 1, 256, 4096, 38.0, 0.4);
  count("q4_k", 1, 256, 4096, 73.0, 0.4);
  count("q8_0", 8, 256, 4096, 38.0, 0.4);
  count("u4_g128", 64, 128, 2048, 8.1, 0, BL_DTYPE_bf16);  // each output asks for a factor of its row
  count("q4_0", 64, 128, 2048, 10.5, 0, BL_DTYPE_bf16);
  count("q8_0", 64, 128, 2048, 11.0, 0, BL_DTYPE_bf16);
  count("mxfp4", 64, 128, 2048, 8.0, 0, BL_DTYPE_bf16);
  count("nvfp4_g16", 64, 128, 2048, 8.5, 0.07, BL_DTYPE_bf16);
  count("e3m2_g32", 64, 128, 2048, 10.0, 0, BL_DTYPE_bf16);
  count("e4m3_g32", 64, 128, 2048, 9.0, 0, BL_DTYPE_bf16);
  count("bf16", 64, 128, 2048, 6.5, 0, BL_DTYPE_bf16);
  count("u4_g128", 1, 256, 4096, 34.0, 0.4, BL_DTYPE_bf16);
  count("mxfp4", 8, 256, 4096, 54.0, 0.4, BL_DTYPE_bf16);
}

}  // namespace bitloom::cuda::testing
