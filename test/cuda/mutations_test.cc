// Mutants of real kernels: each must come to a fault, leave other bytes in memory or ask for other memory
// transactions than the kernel's own, or stand in equivalent.inc. Every synchronization of every kernel is
// taken away; of the listed kernels' bounds and addresses a part is altered, another one by
// BITLOOM_CUDA_MUTATIONS_SEED, all with BITLOOM_CUDA_MUTATIONS=all. BITLOOM_CUDA_MUTATED=<kernels> takes
// these only (<kernel>@<arch> for one architecture's code); with BITLOOM_CUDA_MUTATIONS_CACHE=<file>, what a
// run found is not tried again by the next one.
#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "coverage.h"
#include "mutants.h"
#include "mutation_calls.h"
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
  int tried = 0, noticed = 0, equivalent = 0, unreached = 0;

  Tally& operator+=(const Tally& other) {
    tried += other.tried, noticed += other.noticed, equivalent += other.equivalent;
    unreached += other.unreached;
    return *this;
  }
};

void print(const std::string& kernel, int32_t arch, MutantKind kind, const Tally& tally) {
  std::printf("mutants of %s compute_%d, %s: %d, %d noticed, %d equivalent; %d not executed\n",
              kernel.c_str(), arch, kMutantKinds[static_cast<int>(kind)], tally.tried, tally.noticed,
              tally.equivalent, tally.unreached);
}

// Of the kernels of a module, each alone.
const std::map<std::string, std::string>& texts_of(const std::string& module, int32_t arch) {
  static std::map<std::string, std::map<std::string, std::string>> all;
  const std::string image = module + ".compute_" + std::to_string(arch);
  auto at = all.find(image);
  if (at == all.end()) at = all.emplace(image, texts_of_kernels(text_of_image(image))).first;
  return at->second;
}

void record(const std::vector<Run>& runs, int32_t arch, Recorder& recorder) {
  for (const Run& run : runs) {
    TestQueue queue(Settings{arch, {}, 0});
    queue.covers = false;  // results are not compared with anything
    recorder.watch(queue);
    run(queue);
  }
}

// A kernel's code for one architecture: its text, its mutants, and launches of it.
class Subject {
 public:
  Subject(const MutatedKernel& of, int32_t arch, const Recorder& common, bool thorough)
      : of_(of),
        arch_(arch),
        thorough_(thorough),
        name_(of.kernel + std::string(" compute_") + std::to_string(arch)),
        text_(texts_of(of.module, arch).at(of.kernel)),
        module_(ptx::Module::parse(text_)),
        mutants_(mutants_of(text_, of.kernel)),
        own_({of.kernel}),
        player_(arch) {
    record(of.runs, arch, own_);
    for (const Recorder* recorder : {&common, &std::as_const(own_)}) {
      for (const RecordedLaunch& launch : recorder->launches(arch, of.kernel))
        cases_.push_back({&launch, {}, false});
    }
    find_lines();
    // Mostly the shortest one notices.
    std::sort(cases_.begin(), cases_.end(),
              [](const Case& a, const Case& b) { return a.launch->instructions < b.launch->instructions; });
    check(!cases_.empty(), name_ + " is launched");
    if (!cases_.empty()) replay(cases_.front(), schedules(true));
  }

  // `part` of the mutants of executed instructions, and all that lack synchronization.
  void mutate(double part, uint64_t seed, Verdicts& verdicts, std::map<MutantKind, Tally>& tallies) {
    Random random(seed ^ hash_of(name_));
    for (const Mutant& mutant : mutants_) {
      const bool synchronizes = mutant.kind == MutantKind::synchronization;
      const bool is_taken = static_cast<double>(random.below(1000)) < 1000 * part;
      if (!is_taken && !synchronizes) continue;
      Tally& tally = tallies[mutant.kind];
      if (lines_.count(mutant.line) == 0) continue;  // of a function that this kernel does not call
      if (!is_executed(mutant.line)) {
        ++tally.unreached;
        check(!synchronizes, name_ + ": no launch executes `" + mutant.was + "` at " + place_of(mutant));
        continue;
      }
      ++tally.tried;
      bool noticed = false;
      try {
        // In all schedules that takes long: a full run shows what else is noticed of these.
        const bool few = synchronizes && !thorough_ && !rows_of(mutant).empty();
        noticed =
            verdicts.get(text_, mutant, [&] { return is_noticed(mutant, mutated(text_, mutant), few); });
      } catch (const std::exception& error) {
        check(false, name_ + ": no mutant of `" + mutant.was + "`: " + error.what());
      }
      const bool equivalent = !noticed && is_equivalent(mutant);
      tally.noticed += noticed;
      tally.equivalent += equivalent;
      if (noticed || equivalent) continue;
      print_survivor(mutant);
      check(false, name_ + ": nobody misses `" + mutant.was + "` at " + place_of(mutant));
    }
  }

 private:
  struct Case {
    const RecordedLaunch* launch;
    std::set<int32_t> lines;  // of the text, whose instructions it executed
    bool replayed = false;    // without a mutant
  };

  // Other tests compare schedules; this makes sure that a difference is the mutant's.
  void replay(Case& c, const std::vector<ptx::Options>& schedules) {
    c.replayed = true;
    for (const ptx::Options& options : schedules)
      check(!player_.differs(*c.launch, of_.kernel, module_, options, false),
            name_ + " leaves the same bytes again");
  }
  static std::string place_of(const Mutant& mutant) {
    return mutant.file + ":" + std::to_string(mutant.source_line);
  }
  void print_survivor(const Mutant& mutant) const {
    std::printf("survives: %s: `%s`, now `%s`, %s: %s\n", name_.c_str(), mutant.was.c_str(),
                mutant.now.c_str(), place_of(mutant).c_str(),
                source_line(of_.module, mutant.file, mutant.source_line).c_str());
  }
  // Launches count instructions of the kernel in its whole module, where they have other lines.
  void find_lines() {
    ptx::Machine machine;
    const ptx::Program& program = machine.load(ptx::Module::parse(text_)).program(of_.kernel);
    for (const ptx::InstrInfo& info : program.info) lines_.insert(info.statement->ptx_line);
    for (Case& c : cases_) {
      if (c.launch->executed.size() != program.info.size())
        throw std::runtime_error(name_ + " is not the kernel of its module");
      for (size_t pc = 0; pc < program.info.size(); ++pc) {
        if (c.launch->executed[pc]) c.lines.insert(program.info[pc].statement->ptx_line);
      }
    }
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
    return std::any_of(cases_.begin(), cases_.end(), [&](const Case& c) { return c.lines.count(line) != 0; });
  }
  // few: by one of the shortest launches.
  bool is_noticed(const Mutant& mutant, const std::string& text, bool few = false) {
    const bool synchronizes = mutant.kind == MutantKind::synchronization;
    const auto module = ptx::Module::parse(text);
    const int most = few ? 3 : static_cast<int>(cases_.size());
    for (const ptx::Options& options : schedules(synchronizes)) {
      int tried = 0;
      for (Case& c : cases_) {
        if (c.lines.count(mutant.line) == 0 || ++tried > most) continue;
        if (!c.replayed) replay(c, schedules(false));
        if (player_.differs(*c.launch, of_.kernel, module, options, !synchronizes)) return true;
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
  std::vector<Equivalent> rows_of(const Mutant& mutant) const {
    std::vector<Equivalent> rows;
    for (const Equivalent& row : kEquivalent) {
      if (is_one_of(of_.kernel, row.kernels) && comes_from(mutant, row.file, row.source, row.was))
        rows.push_back(row);
    }
    return rows;
  }
  bool is_equivalent(const Mutant& mutant) {
    for (const Equivalent& row : rows_of(mutant)) {
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
  bool thorough_;  // tries every launch
  std::string name_, text_;
  std::shared_ptr<const ptx::Module> module_;
  std::vector<Mutant> mutants_;
  Recorder own_;
  Player player_;
  std::vector<Case> cases_;
  std::set<int32_t> lines_;  // of the program's instructions
};

// The kernels of an architecture's modules that synchronize and are not in the list.
std::vector<MutatedKernel> others_that_synchronize(int32_t arch, const std::vector<MutatedKernel>& listed) {
  std::vector<MutatedKernel> others;
  for (const std::string& module : modules_of(arch)) {
    for (const auto& [kernel, text] : texts_of(module, arch)) {
      const std::vector<Mutant> mutants = mutants_of(text, kernel);
      const bool synchronizes = std::any_of(mutants.begin(), mutants.end(), [](const Mutant& mutant) {
        return mutant.kind == MutantKind::synchronization;
      });
      const bool is_listed = std::any_of(listed.begin(), listed.end(),
                                         [&](const MutatedKernel& of) { return of.kernel == kernel; });
      if (!synchronizes || is_listed) continue;
      const bool has_part =
          module == "norm" || module == "softmax" || module == "rope" || module == "sampling";
      MutatedKernel& other = others.emplace_back(MutatedKernel{module, kernel});
      if (has_part) other.parts.push_back(module);
      other.all_kinds = false;
    }
  }
  return others;
}

// Every launch of a part of the suite.
void record_part(const std::string& part, Recorder& recorder) {
  TestQueue::made = [&](TestQueue& queue) {
    const ptx::Options& options = queue.settings.options;
    if (options.seed == 0 && options.copy_delivery == ptx::CopyDelivery::poisoned) recorder.watch(queue);
  };
  run_part(part);
  TestQueue::made = nullptr;
}

std::vector<MutatedKernel> kernels_of(int32_t arch, bool thorough, const char* only) {
  std::vector<MutatedKernel> all = mutated_kernels(thorough), wanted;
  const std::vector<std::string> modules = modules_of(arch);
  const std::vector<MutatedKernel> others = others_that_synchronize(arch, all);
  all.insert(all.end(), others.begin(), others.end());
  for (const MutatedKernel& of : all) {
    if (std::count(modules.begin(), modules.end(), of.module) == 0) continue;
    if (only == nullptr || is_one_of(of.kernel, only) ||
        is_one_of(of.kernel + "@" + std::to_string(arch), only))
      wanted.push_back(of);
  }
  return wanted;
}

}  // namespace

BITLOOM_CUDA_TEST(mutations) {
  const char* setting = std::getenv("BITLOOM_CUDA_MUTATIONS");
  const char* only = std::getenv("BITLOOM_CUDA_MUTATED");
  const char* seed = std::getenv("BITLOOM_CUDA_MUTATIONS_SEED");
  const bool all = setting != nullptr && std::string(setting) == "all";
  Verdicts verdicts(std::getenv("BITLOOM_CUDA_MUTATIONS_CACHE"));
  std::map<int32_t, std::vector<MutatedKernel>> kernels;
  std::set<std::string> wanted, parts;
  for (const Settings& settings : all_archs()) {
    kernels[settings.arch] = kernels_of(settings.arch, all, only);
    for (const MutatedKernel& of : kernels[settings.arch]) {
      if (of.runs.empty() || !of.parts.empty()) wanted.insert(of.kernel);
      parts.insert(of.parts.begin(), of.parts.end());
    }
  }
  Recorder common(wanted);
  for (const std::string& part : parts) record_part(part, common);
  for (const auto& [arch, subjects] : kernels) {
    const bool launched = std::all_of(subjects.begin(), subjects.end(), [](const MutatedKernel& of) {
      return !of.runs.empty() || !of.parts.empty();
    });
    if (!launched) record(common_runs(), arch, common);
    std::map<MutantKind, Tally> sums;
    for (const MutatedKernel& of : subjects) {
      const std::clock_t begin = std::clock();
      std::map<MutantKind, Tally> tallies;
      const double part = !of.all_kinds ? 0 : all ? 1 : 0.01;
      Subject(of, arch, common, all)
          .mutate(part, seed == nullptr ? 1 : std::strtoull(seed, nullptr, 10), verdicts, tallies);
      for (const auto& [kind, tally] : tallies) print(of.kernel, arch, kind, tally), sums[kind] += tally;
      std::printf("mutants of %s compute_%d: %.1f s\n", of.kernel.c_str(), arch,
                  static_cast<double>(std::clock() - begin) / CLOCKS_PER_SEC);
      std::fflush(stdout);
    }
    for (const auto& [kind, tally] : sums) print("all kernels", arch, kind, tally);
  }
}

}  // namespace bitloom::cuda::testing
