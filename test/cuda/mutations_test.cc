// Mutants of real kernels: each must come to a fault, leave other bytes in memory or ask for other memory
// transactions than the kernel's own, or stand in equivalent.inc. Without BITLOOM_CUDA_MUTATIONS=all a part
// is taken, another one by BITLOOM_CUDA_MUTATIONS_SEED; BITLOOM_CUDA_MUTATED=<kernels> takes these only; with
// BITLOOM_CUDA_MUTATIONS_CACHE=<file>, what a run found is not tried again by the next one.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <memory>
#include <sstream>

#include "coverage.h"
#include "mutants.h"
#include "recording.h"
#include "verdicts.h"

namespace bitloom::cuda::testing {
namespace {

// A mutant that changes nothing that could be noticed; `other`: another place, not empty, of which it is
// enough that one of the two is left.
struct Equivalent {
  const char *kernels, *file, *source, *was, *reason, *other;
};
constexpr Equivalent kEquivalent[] = {
#define BL_EQUIVALENT(kernels, file, source, was, reason) {kernels, file, source, was, reason, ""},
#define BL_EITHER(kernels, file, source, other, was, reason) \
  {kernels, file, source, was, reason, other}, {kernels, file, other, was, reason, source},
#include "equivalent.inc"
#undef BL_EQUIVALENT
#undef BL_EITHER
    {"", "no file", "", "", "", ""},
};

// Whether a text contains the pieces of `pattern` between its stars, in order.
bool contains(const std::string& text, const std::string& pattern) {
  size_t at = 0;
  std::stringstream pieces(pattern);
  for (std::string piece; std::getline(pieces, piece, '*');) {
    at = text.find(piece, at);
    if (at == std::string::npos) return false;
    at += piece.size();
  }
  return true;
}

struct Tally {
  int tried = 0, noticed = 0, equivalent = 0;
};

// Whose survivors are each proven equivalent in equivalent.inc: of all mutants, and of the part that CI
// takes.
constexpr int32_t kJudgedArch = 80, kJudgedArchOfPart = 120;

// A kernel of the list for one architecture: its text, its mutants, and what its runs launched.
class Subject {
 public:
  Subject(const MutatedKernel& of, int32_t arch)
      : of_(of),
        arch_(arch),
        name_(of.kernel + std::string(" compute_") + std::to_string(arch)),
        text_(text_of_kernel(text_of_image(of.module + std::string(".compute_") + std::to_string(arch)),
                             of.kernel)),
        mutants_(mutants_of(text_, of.kernel)) {
    const auto module = ptx::Module::parse(text_);
    for (const Run& run : of.runs) {
      recordings_.push_back(std::make_unique<Recording>(run, Settings{arch, {}, 0}, of.kernel, module));
      for (const RecordedLaunch& launch : recordings_.back()->launches())
        cases_.push_back({recordings_.back().get(), &launch});
    }
    // Mostly the shortest one notices.
    std::sort(cases_.begin(), cases_.end(),
              [](const Case& a, const Case& b) { return a.launch->instructions < b.launch->instructions; });
    check(!cases_.empty(), name_ + " is launched");
    // Other tests compare schedules; this one makes sure that a difference is the mutant's.
    for (const ptx::Options& options : schedules(true)) {
      if (!cases_.empty())
        check(!cases_[0].recording->differs(*cases_[0].launch, module, options, false),
              name_ + " leaves the same bytes in every schedule");
    }
  }

  // `part` of the mutants of executed instructions, and all that lack synchronization.
  void mutate(double part, uint64_t seed, Verdicts& verdicts, std::map<MutantKind, Tally>& tallies) {
    Random random(seed ^ hash_of(name_));
    for (const Mutant& mutant : mutants_) {
      const bool is_taken = static_cast<double>(random.below(1000)) < 1000 * part;
      if ((!is_taken && mutant.kind != MutantKind::synchronization) || !is_executed(mutant.line)) continue;
      Tally& tally = tallies[mutant.kind];
      ++tally.tried;
      bool noticed = false;
      try {
        noticed = verdicts.get(text_, mutant, [&] { return is_noticed(mutant, mutated(text_, mutant)); });
      } catch (const std::exception& error) {
        check(false, name_ + ": no mutant of `" + mutant.was + "`: " + error.what());
      }
      const bool equivalent = !noticed && is_equivalent(mutant);
      tally.noticed += noticed;
      tally.equivalent += equivalent;
      if (noticed || equivalent) continue;
      print_survivor(mutant);
      // Of the other architectures' code, address arithmetic and bounds have not all been judged yet.
      const bool is_judged = arch_ == kJudgedArch || (arch_ == kJudgedArchOfPart && part < 1);
      check(!is_judged && mutant.kind != MutantKind::synchronization,
            name_ + ": nobody misses `" + mutant.was + "` at " + mutant.file + ":" +
                std::to_string(mutant.source_line));
    }
  }

 private:
  struct Case {
    Recording* recording;
    const RecordedLaunch* launch;
  };

  void print_survivor(const Mutant& mutant) const {
    const std::string place = mutant.file + ":" + std::to_string(mutant.source_line);
    std::printf("survives: %s: `%s`, now `%s`, %s: %s\n", name_.c_str(), mutant.was.c_str(),
                mutant.now.c_str(), place.c_str(),
                source_line(of_.module, mutant.file, mutant.source_line).c_str());
  }
  // Synchronization is missed in some schedules only.
  std::vector<ptx::Options> schedules(bool all) const {
    std::vector<ptx::Options> options;
    for (const Settings& settings : all_schedules()) {
      if (settings.arch != arch_ || (!all && !options.empty())) continue;
      options.push_back(settings.options);
      options.back().max_warp_instructions = 200'000;
    }
    return options;
  }
  bool is_executed(int32_t line) const {
    return std::any_of(cases_.begin(), cases_.end(),
                       [&](const Case& c) { return c.launch->lines.count(line) != 0; });
  }
  bool is_noticed(const Mutant& mutant, const std::string& text) {
    const bool synchronizes = mutant.kind == MutantKind::synchronization;
    const auto module = ptx::Module::parse(text);
    for (const ptx::Options& options : schedules(synchronizes)) {
      for (const Case& c : cases_) {
        if (c.launch->lines.count(mutant.line) != 0 &&
            c.recording->differs(*c.launch, module, options, !synchronizes))
          return true;
      }
    }
    return false;
  }
  bool comes_from(const Mutant& mutant, const char* file, const char* source, const char* was) const {
    const std::string& line = source_line(of_.module, mutant.file, mutant.source_line);
    if ((std::string(file) != "*" && mutant.file != file) || !contains(mutant.was, was)) return false;
    if (std::string(source) == "*") return true;
    return *source == '\0' ? line.empty() : line.find(source) != std::string::npos;
  }
  bool is_equivalent(const Mutant& mutant) {
    for (const Equivalent& row : kEquivalent) {
      if (!is_one_of(of_.kernel, row.kernels) || !comes_from(mutant, row.file, row.source, row.was)) continue;
      if (*row.other == '\0') return true;
      // Without both of them it must be noticed.
      std::string text = mutated(text_, mutant);
      for (const Mutant& other : mutants_) {
        if (other.kind == mutant.kind && comes_from(other, row.file, row.other, row.was))
          text = mutated(text, other);
      }
      if (is_noticed(mutant, text)) return true;
    }
    return false;
  }

  MutatedKernel of_;
  int32_t arch_;
  std::string name_, text_;
  std::vector<Mutant> mutants_;
  std::vector<std::unique_ptr<Recording>> recordings_;
  std::vector<Case> cases_;
};

}  // namespace

BITLOOM_CUDA_TEST(mutations) {
  const char* setting = std::getenv("BITLOOM_CUDA_MUTATIONS");
  const char* only = std::getenv("BITLOOM_CUDA_MUTATED");
  const char* seed = std::getenv("BITLOOM_CUDA_MUTATIONS_SEED");
  const bool all = setting != nullptr && std::string(setting) == "all";
  Verdicts verdicts(std::getenv("BITLOOM_CUDA_MUTATIONS_CACHE"));
  for (const Settings& settings : all_archs()) {
    for (const MutatedKernel& of : mutated_kernels()) {
      if (only != nullptr && !is_one_of(of.kernel, only)) continue;
      const std::clock_t begin = std::clock();
      std::map<MutantKind, Tally> tallies;
      Subject(of, settings.arch)
          .mutate(all ? 1 : 0.01, seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10), verdicts, tallies);
      for (const auto& [kind, tally] : tallies) {
        std::printf("mutants of %s compute_%d, %s: %d, %d noticed, %d equivalent\n", of.kernel, settings.arch,
                    kMutantKinds[static_cast<int>(kind)], tally.tried, tally.noticed, tally.equivalent);
      }
      std::printf("mutants of %s compute_%d: %.1f s\n", of.kernel, settings.arch,
                  static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
      std::fflush(stdout);
    }
  }
}

}  // namespace bitloom::cuda::testing
