// Takes the synchronization instructions of real kernels away, one at a time: a fault, or another result,
// must come of it in some schedule, or the instruction is not needed.
#include <cstdio>
#include <functional>

#include "matmul_calls.h"

namespace bitloom::cuda::testing {
namespace {

bool synchronizes(const ptx::Statement& statement) {
  if (statement.opcode == "bar" || statement.opcode == "barrier" || statement.opcode == "fence" ||
      statement.opcode == "membar")
    return true;
  if (statement.opcode != "cp" || statement.modifiers.size() < 2) return false;
  return statement.modifiers[1] == "commit_group" || statement.modifiers[1].substr(0, 4) == "wait";
}

std::vector<uint8_t> bytes_of(TestQueue& queue, const Tensor& tensor) {
  std::vector<uint8_t> bytes(static_cast<size_t>(tensor.size()) * 4);
  queue.read(bytes.data(), tensor.device().data, bytes.size());
  return bytes;
}

// Runs an operator with c of f32 on a queue, and gives c's bytes.
using Run = std::function<std::vector<uint8_t>(TestQueue& queue)>;

// `spare`: where a barrier is not needed in these calls, a part of its source location.
void mutate(const std::string& kernel, int32_t arch, const Run& run, const std::string& spare = "nowhere") {
  TestQueue plain(Settings{arch, {}, 0});
  const std::vector<uint8_t> expected = run(plain);
  const ptx::Program* program = nullptr;
  for (const Launched& launched : plain.launches) {
    if (launched.kernel == kernel) program = launched.report.counters.program;
  }
  check(program != nullptr, kernel + " is launched");
  if (program == nullptr) return;
  int dropped = 0, caught = 0;
  for (uint32_t pc = 0; pc < program->code.size(); ++pc) {
    if (!synchronizes(*program->info[pc].statement)) continue;
    ++dropped;
    bool noticed = false;
    for (const Settings& schedule : all_schedules()) {
      if (schedule.arch != arch || noticed) continue;
      TestQueue queue(schedule);
      queue.mutated_kernel = kernel;
      queue.mutated_pc = pc;
      try {
        noticed = run(queue) != expected;
      } catch (const std::exception&) {
        noticed = true;
      }
    }
    caught += noticed;
    if (program->location(pc).find(spare) != std::string::npos) continue;
    check(noticed, kernel + " compute_" + std::to_string(arch) + ": nobody misses `" +
                       std::string(program->info[pc].statement->text) + "` at " + program->location(pc));
  }
  std::printf("mutations of %s compute_%d: %d of %d noticed\n", kernel.c_str(), arch, caught, dropped);
}

Run product(const char* format, int64_t m, int32_t compute = BL_COMPUTE_f32, int32_t group = 0) {
  return [=](TestQueue& queue) {
    constexpr int64_t n = 200, k = 576;
    const PackedWeights b(queue, format, n, k, 3);
    Tensor a(queue, BL_DTYPE_f16, {m, k}), c(queue, BL_DTYPE_f32, {m, n});
    a.uniform(1);
    bl_matmul_args args = arguments();
    args.a = a.device();
    args.b = b.device();
    args.c = c.device();
    args.compute = compute;
    args.activation_group = group;
    bl_error error{};
    check_ok(matmul(queue, args, &error), error, format);
    return bytes_of(queue, c);
  };
}

std::vector<uint8_t> normalized(TestQueue& queue) {
  Tensor x(queue, BL_DTYPE_f32, {3, 1000}), c(queue, BL_DTYPE_f32, {3, 1000});
  // The second row leaves the range of f32's squares, and takes another way.
  x.fill([](int64_t i) { return (i / 1000 == 1 ? 1e30f : 1.0f) * static_cast<float>(i % 17 - 8); });
  bl_rms_norm_args args{};
  args.size = sizeof(args);
  args.x = x.device();
  args.output = c.device();
  args.epsilon = 1e-5f;
  bl_error error{};
  check_ok(rms_norm(queue, args, &error), error, "rms_norm");
  return bytes_of(queue, c);
}

}  // namespace

BITLOOM_CUDA_TEST(mutations) {
  for (const int32_t arch : {80, 120}) {
    mutate("matmul_prompt_c4", arch, product("u4_g64", 70));
    mutate("matmul_prompt_t4", arch, product("nf4_g64", 70));
    mutate("matmul_stream_c4", arch, product("u4_g64", 3));
    mutate("matmul_prompt_fine_c4", arch, product("u4_g64", 70, BL_COMPUTE_i8));
    mutate("matmul_prompt_fine_z4", arch, product("u4z_g64", 70, BL_COMPUTE_i8));
    mutate("matmul_prompt_coarse_c4", arch, product("u4_g128", 70, BL_COMPUTE_i8, 1));
    mutate("matmul_prompt_whole_c8", arch, product("i8_row", 70, BL_COMPUTE_i8, 1));
    mutate("matmul_stream_fine_c4", arch, product("u4_g64", 3, BL_COMPUTE_i8));
    // block_reduce begins with a barrier for blocks that reduce again. These do so from the 2^20th row on.
    mutate("rms_norm_wide", arch, normalized, "reduce.cuh:33");
  }
}

}  // namespace bitloom::cuda::testing
