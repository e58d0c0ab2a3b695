// Mutants of real kernels: each should come to a fault, to another result, or to other counts of memory
// transactions than the kernel's own, or stand in equivalent.inc. Without BITLOOM_CUDA_MUTATIONS=all a part
// is taken, another one by BITLOOM_SEED.
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <set>

#include "coverage.h"
#include "matmul_calls.h"
#include "mutants.h"
#include "mutation_calls.h"

namespace bitloom::cuda::testing {
namespace {

struct Equivalent {
  const char *kernels, *file, *source, *was, *reason;
};
constexpr Equivalent kEquivalent[] = {
#define BL_EQUIVALENT(kernels, file, source, was, reason) {kernels, file, source, was, reason},
#include "equivalent.inc"
#undef BL_EQUIVALENT
    {"", "no file", "", "", ""},
};

bool is_equivalent(const std::string& module, const std::string& kernel, const Mutant& mutant) {
  const std::string& source = source_line(module, mutant.file, mutant.source_line);
  for (const Equivalent& row : kEquivalent) {
    if (mutant.file == row.file && is_one_of(kernel, row.kernels) &&
        mutant.was.find(row.was) != std::string::npos &&
        (*row.source == '\0' ? source.empty() : source.find(row.source) != std::string::npos))
      return true;
  }
  return false;
}

// What a run gives, and what memory it asked for.
struct Outcome {
  std::vector<uint8_t> bytes;
  uint64_t sectors = 0, wavefronts = 0;
  bool operator==(const Outcome&) const = default;
};
Outcome outcome_of(TestQueue& queue, const Run& run) {
  Outcome outcome{run(queue), 0, 0};
  for (const Launched& launched : queue.launches) {
    for (const ptx::InstrCount& count : launched.report.counters.counts)
      outcome.sectors += count.sectors, outcome.wavefronts += count.wavefronts;
  }
  return outcome;
}

// Synchronization is missed in some schedules only.
bool is_noticed(const MutatedKernel& of, const Mutant& mutant, std::shared_ptr<const ptx::Module> module,
                int32_t arch, const std::vector<Outcome>& expected) {
  int schedules = 0;
  for (Settings schedule : all_schedules()) {
    if (schedule.arch != arch || (mutant.kind != MutantKind::synchronization && ++schedules > 1)) continue;
    schedule.options.max_warp_instructions = 200'000;
    for (size_t i = 0; i < of.runs.size(); ++i) {
      TestQueue queue(schedule);
      queue.mutated_kernel = of.kernel;
      queue.mutated_module = module;
      try {
        const Outcome outcome = outcome_of(queue, of.runs[i]);
        if (outcome.bytes != expected[i].bytes) return true;
        if (mutant.kind != MutantKind::synchronization && !(outcome == expected[i])) return true;
      } catch (const std::exception&) {
        return true;
      }
    }
  }
  return false;
}

struct Tally {
  int tried = 0, noticed = 0, equivalent = 0;
};

// Lines of the kernel's text whose instructions the runs execute; what each run gives goes to `expected`.
std::set<int32_t> executed_lines(const MutatedKernel& of, int32_t arch, const std::string& text,
                                 std::vector<Outcome>& expected) {
  std::set<int32_t> lines;
  const auto module = ptx::Module::parse(text);
  for (const Run& run : of.runs) {
    TestQueue queue(Settings{arch, {}, 0});
    queue.mutated_kernel = of.kernel;
    queue.mutated_module = module;
    expected.push_back(outcome_of(queue, run));
    for (const Launched& launched : queue.launches) {
      if (launched.kernel != of.kernel) continue;
      const ptx::Counters& counters = launched.report.counters;
      for (size_t pc = 0; pc < counters.counts.size(); ++pc) {
        if (counters.counts[pc].lanes > 0) lines.insert(counters.program->info[pc].statement->ptx_line);
      }
    }
  }
  return lines;
}

// `part` of the mutants of executed instructions, and all that lack synchronization. Those must be noticed;
// of the others the ones that survive are printed.
void mutate(const MutatedKernel& of, int32_t arch, double part, Random& random,
            std::map<MutantKind, Tally>& tallies) {
  const std::string what = of.kernel + std::string(" compute_") + std::to_string(arch);
  const std::string text =
      text_of_kernel(text_of_image(of.module + std::string(".compute_") + std::to_string(arch)), of.kernel);
  std::vector<Outcome> expected;
  const std::set<int32_t> executed = executed_lines(of, arch, text, expected);
  check(!executed.empty(), what + " is launched");
  for (const Mutant& mutant : mutants_of(text, of.kernel)) {
    const bool is_taken = static_cast<double>(random.below(1000)) < 1000 * part;
    const bool synchronizes = mutant.kind == MutantKind::synchronization;
    if ((!is_taken && !synchronizes) || !executed.count(mutant.line)) continue;
    Tally& tally = tallies[mutant.kind];
    ++tally.tried;
    bool noticed = false;
    try {
      noticed = is_noticed(of, mutant, ptx::Module::parse(mutated(text, mutant)), arch, expected);
    } catch (const std::exception& error) {
      check(false, what + ": no mutant of `" + mutant.was + "`: " + error.what());
    }
    const bool equivalent = !noticed && is_equivalent(of.module, of.kernel, mutant);
    tally.noticed += noticed;
    tally.equivalent += equivalent;
    const std::string message = what + ": nobody misses `" + mutant.was + "` at " + mutant.file + ":" +
                                std::to_string(mutant.source_line) + ", now `" + mutant.now + "`";
    if (synchronizes) {
      check(noticed || equivalent, message);
    } else if (!noticed && !equivalent) {
      std::printf("survives: %s\n", message.c_str());
    }
  }
}

}  // namespace

BITLOOM_CUDA_TEST(mutations) {
  const char* setting = std::getenv("BITLOOM_CUDA_MUTATIONS");
  const char* only = std::getenv("BITLOOM_CUDA_MUTATED");  // a kernel
  const char* seed = std::getenv("BITLOOM_SEED");
  const bool all = setting != nullptr && std::string(setting) == "all";
  Random random(seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10));
  for (const Settings& settings : all_archs()) {
    for (const MutatedKernel& of : mutated_kernels()) {
      if (only != nullptr && !is_one_of(of.kernel, only)) continue;
      std::map<MutantKind, Tally> tallies;
      mutate(of, settings.arch, all ? 1 : 0.01, random, tallies);
      for (const auto& [kind, tally] : tallies) {
        std::printf("mutants of %s compute_%d, %s: %d, %d noticed, %d equivalent\n", of.kernel, settings.arch,
                    kMutantKinds[static_cast<int>(kind)], tally.tried, tally.noticed, tally.equivalent);
      }
    }
  }
}

}  // namespace bitloom::cuda::testing
