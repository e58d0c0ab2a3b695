// Takes the synchronization instructions of a kernel away, one at a time: the checks must notice each loss,
// or the instruction is not needed.
#include <cstdio>

#include "compiled.h"

namespace bitloom::ptx::testing {
namespace {

bool synchronizes(const Statement& statement) {
  if (statement.opcode == "bar" || statement.opcode == "barrier" || statement.opcode == "fence" ||
      statement.opcode == "membar")
    return true;
  if (statement.opcode != "cp" || statement.modifiers.size() < 2) return false;
  return statement.modifiers[1] == "commit_group" || statement.modifiers[1].substr(0, 4) == "wait";
}

void mutate_gemm(const std::string& arch) {
  Machine machine;
  const LoadedModule& module = machine.load(Module::parse(kernel_text("gemm_f16", arch)));
  const Program& program = module.program("gemm_f16");
  int dropped = 0, caught = 0;
  for (size_t pc = 0; pc < program.code.size(); ++pc) {
    if (!synchronizes(*program.info[pc].statement)) continue;
    ++dropped;
    bool noticed = false;
    for (uint64_t seed = 0; seed < 6 && !noticed; ++seed) {
      Options options;
      options.seed = seed;
      options.drop_instruction = static_cast<int64_t>(pc);
      try {
        const GemmRun run = run_gemm(machine, module, 64, 64, 160, options);
        noticed = run.is_nan || run.error > 0.01;
      } catch (const Fault&) {
        noticed = true;
      }
    }
    caught += noticed;
    check(noticed, "gemm_f16 " + arch + ": nobody misses `" + std::string(program.info[pc].statement->text) +
                       "` at " + program.location(static_cast<uint32_t>(pc)));
  }
  check(dropped >= 4, "gemm_f16 " + arch + ": synchronization instructions are found");
  std::printf("mutations of gemm_f16 compute_%s: %d of %d noticed\n", arch.c_str(), caught, dropped);
}

}  // namespace

void test_mutations() {
  if (!has_kernels()) {
    std::printf("built without nvcc: no mutations\n");
    return;
  }
  for (const std::string& arch : kernel_archs()) mutate_gemm(arch);
}

}  // namespace bitloom::ptx::testing
