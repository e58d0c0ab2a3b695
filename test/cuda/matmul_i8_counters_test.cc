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

// Every kernel with everything its epilogue can do, so that every instruction runs.
BITLOOM_CUDA_TEST(matmul_i8_coverage) {
  constexpr int64_t n = 30, k = 256;
  const struct {
    const char* format;
    int32_t group;
  } cases[] = {{"u4_g32", 0},        {"u4_g64_bf16", 0},  {"q8_0", 0},          {"u8_g64_bf16", 0},
               {"u1_g32", 0},        {"u1z_g64_bf16", 0}, {"t2_g64", 0},        {"i2z_g32_bf16", 0},
               {"bfp2_g32", 0},      {"u3_g64", 0},       {"i3z_g32_bf16", 0},  {"bfp3_g32", 0},
               {"q4_k", 0},          {"q4_1", 0},         {"u4z_g32_bf16", 0},  {"bfp4_g32", 0},
               {"q5_k", 0},          {"q5_1", 0},         {"u5z_g32_bf16", 0},  {"bfp5_g32", 0},
               {"u6_g64", 0},        {"u6z_g32_bf16", 0}, {"bfp6_g32", 0},      {"u7_g32", 0},
               {"u7z_g64_bf16", 0},  {"bfp7_g32", 0},     {"u8z_g64", 0},       {"u8z_g32_bf16", 0},
               {"mxint8_g32", 0},    {"u4_g128", 1},      {"u4_g128_bf16", 1},  {"u8_g128", 1},
               {"u8_g128_bf16", 1},  {"u4z_g128", 1},     {"u4z_g128_bf16", 1}, {"u8z_g128", 1},
               {"u8z_g128_bf16", 1}, {"u4_row", 1},       {"u4_row_bf16", 1},   {"i8_row", 1},
               {"i8_row_bf16", 1},   {"u4z_row", 1},      {"u4z_row_bf16", 1},  {"u8z_row", 1},
               {"u8z_row_bf16", 1}};
  for (const auto& it : cases) {
    for (int64_t m : {9, 17}) {
      for (int32_t i = 0; i < 6; ++i) {
        for (Settings settings : all_archs()) {
          settings.multiprocessors = 1;
          Call call(settings, it.format, n, k);
          TestQueue& queue = call.queue;
          const int32_t type = kFloatDtypes[i % 3];
          Tensor a(queue, i < 3 ? BL_DTYPE_f16 : BL_DTYPE_bf16, {m, k}), c(queue, type, {m, n});
          Tensor bias(queue, BL_DTYPE_f32, {n}), row_scale(queue, BL_DTYPE_f32, {n});
          Tensor addend(queue, kFloatDtypes[(i + 1) % 3], {m, n}),
              residual(queue, kFloatDtypes[(i + 2) % 3], {m, n});
          a.uniform(1, 0.2f);
          bias.uniform(2);
          row_scale.uniform(3);
          addend.uniform(4);
          residual.uniform(5);
          for (bl_matmul_args* args : {&call.device, &call.host}) {
            args->compute = BL_COMPUTE_i8;
            args->activation_group = it.group;
            args->activation = i % 5;
          }
          call.host.algorithm = BL_ALGORITHM_dequant;
          call.set(&bl_matmul_args::a, a);
          if (i > 0) {
            call.set(&bl_matmul_args::bias, bias);
            call.set(&bl_matmul_args::row_scale, row_scale);
            call.set(&bl_matmul_args::addend, addend);
            call.set(&bl_matmul_args::residual, residual);
          }
          call.compare(c, 1e-5 + 2 * epsilon_of(type),
                       shape_name(it.format, m, n, k) + " int8, epilogue " + std::to_string(i));
        }
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
