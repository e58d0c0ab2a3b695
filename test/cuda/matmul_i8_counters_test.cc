// matmul of int8: what launches did, against limits; every kernel with all its epilogue.
#include <cstdio>
#include <cstdlib>

#include "cuda/ops/matmul/config_i8.h"
#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

bl_matmul_args integer_arguments(int32_t group) {
  bl_matmul_args args = arguments();
  args.compute = BL_COMPUTE_i8;
  args.activation_group = group;
  return args;
}

// What the launch of a product did; MATMUL_COUNTS=1 prints it, for the README's table.
void count_integers(const char* format, int32_t group, int64_t m, int64_t n, int64_t k, double most_per_mma,
                    double most_excess) {
  Settings settings;
  settings.multiprocessors = 1;
  TestQueue queue(settings);
  const PackedWeights b(queue, format, n, k, 3);
  Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, BL_DTYPE_f16, {m, n});
  a.uniform(1);
  bl_matmul_args args = integer_arguments(group);
  args.a = a.device();
  args.b = b.device();
  args.c = c.device();
  bl_error error{};
  queue.launches.clear();
  check_ok(matmul(queue, args, &error), error, format);
  const bool stream = m <= gemm::kStreamRows;
  const Launched* launch = nullptr;
  for (const Launched& it : queue.launches) {
    if (it.kernel.find(stream ? "matmul_stream_" : "matmul_prompt_") == 0) launch = &it;
  }
  const std::string what = shape_name(format, m, n, k) + " counters of int8";
  check(launch != nullptr, what + ": launched");
  if (launch == nullptr) return;
  const ptx::Counters& counters = launch->report.counters;
  uint64_t wavefronts = 0, ideal = 0;
  for (const ptx::InstrCount& i : counters.counts) {
    wavefronts += i.wavefronts;
    ideal += i.ideal_wavefronts;
  }
  const ptx::InstrCount copies = counters.total("cp.async.cg");
  const int64_t row_tiles = stream ? (m + 7) / 8 : (m + 63) / 64 * 8;
  const int64_t column_tiles = stream ? (n + 15) / 16 : (n + 127) / 128 * 8;
  const uint64_t least = static_cast<uint64_t>(row_tiles * column_tiles * (k / 32));
  check(counters.mma() == least,
        what + ": mma " + std::to_string(counters.mma()) + ", least " + std::to_string(least));
  const double per_mma = static_cast<double>(counters.warp_instructions()) / static_cast<double>(least);
  const double excess = static_cast<double>(wavefronts - ideal) / static_cast<double>(ideal);
  check(per_mma <= most_per_mma, what + ": instructions per mma " + std::to_string(per_mma));
  check(excess <= most_excess, what + ": excess wavefronts " + std::to_string(excess));
  if (!stream) check(copies.bytes == 64 * copies.sectors, what + ": bytes of copies used");
  if (std::getenv("MATMUL_COUNTS") != nullptr) {
    std::printf("%-26s %-42s instructions/mma %.2f, wavefronts %llu of %llu\n", launch->kernel.c_str(),
                what.c_str(), per_mma, static_cast<unsigned long long>(wavefronts),
                static_cast<unsigned long long>(ideal));
  }
}

}  // namespace

// PTX instructions of a launch, with prologue and epilogue (many are moves that machine code has not: a
// register of PTX has one type); wavefronts of shared memory; mma.
BITLOOM_CUDA_TEST(matmul_i8_counters) {
  constexpr int32_t kOwn = BL_ACTIVATION_GROUP_32, kRow = BL_ACTIVATION_GROUP_row;
  count_integers("u4_g128", kRow, 64, 128, 2048, 10.0, 0);
  count_integers("u8_g128", kRow, 64, 128, 2048, 9.5, 0);
  count_integers("u4z_g128", kRow, 64, 128, 2048, 11.5, 0);
  count_integers("u4_row", kRow, 64, 128, 2048, 6.5, 0);
  count_integers("i8_row", kRow, 64, 128, 2048, 6.0, 0);
  count_integers("u4_g128", kOwn, 64, 128, 2048, 27.5, 0);
  count_integers("q4_0", kOwn, 64, 128, 2048, 27.5, 0);
  count_integers("q8_0", kOwn, 64, 128, 2048, 26.5, 0);
  count_integers("q4_k", kOwn, 64, 128, 2048, 33.5, 0.03);
  count_integers("u3_g64", kOwn, 64, 128, 2048, 35.0, 0.04);
  count_integers("u4_g128", kOwn, 1, 256, 4096, 80.0, 0.4);
  count_integers("q8_0", kOwn, 8, 256, 4096, 81.0, 0.4);
  count_integers("i8_row", kRow, 1, 256, 4096, 30.0, 0.4);
}

}  // namespace bitloom::cuda::testing
