#include "recording.h"

namespace bitloom::cuda::testing {
namespace {

// Bytes of an allocation that nobody has written, by the pieces that its shadow knows.
std::vector<std::pair<uint64_t, uint64_t>> unwritten_of(ptx::DeviceMemory& memory,
                                                        ptx::Allocation& allocation) {
  std::vector<std::pair<uint64_t, uint64_t>> ranges;
  for (uint64_t at = 0; at < allocation.bytes;) {
    const uint64_t granule = allocation.shadow.granule(at);
    const uint64_t bytes = std::min(granule, allocation.bytes - at);
    if (!memory.is_written(allocation.base + at, bytes)) {
      if (!ranges.empty() && ranges.back().first + ranges.back().second == at) {
        ranges.back().second += bytes;
      } else {
        ranges.emplace_back(at, bytes);
      }
    }
    at += bytes;
  }
  return ranges;
}

void count_memory(const ptx::Counters& counters, uint64_t& sectors, uint64_t& wavefronts) {
  for (const ptx::InstrCount& count : counters.counts)
    sectors += count.sectors, wavefronts += count.wavefronts;
}

}  // namespace

Recording::Recording(const Run& run, const Settings& settings, const std::string& kernel,
                     std::shared_ptr<const ptx::Module> module)
    : kernel_(kernel), queue_(settings) {
  queue_.mutated_kernel = kernel;
  queue_.mutated_module = std::move(module);
  queue_.before_launch = [&](const std::string& name, const ptx::LaunchConfig& config) {
    if (name != kernel) return;
    RecordedLaunch launch;
    launch.config = config;
    for (uint64_t address : queue_.allocations()) {
      ptx::Allocation& allocation = *queue_.machine.memory.find(address);
      launch.memory.push_back(
          {address, allocation.data, {}, unwritten_of(queue_.machine.memory, allocation)});
    }
    launches_.push_back(std::move(launch));
  };
  queue_.after_launch = [&](const std::string& name, const ptx::LaunchReport& report) {
    if (name != kernel) return;
    RecordedLaunch& launch = launches_.back();
    for (RecordedMemory& piece : launch.memory) piece.after = queue_.machine.memory.find(piece.address)->data;
    count_memory(report.counters, launch.sectors, launch.wavefronts);
    launch.instructions = report.counters.warp_instructions();
    for (size_t pc = 0; pc < report.counters.counts.size(); ++pc) {
      if (report.counters.counts[pc].lanes > 0)
        launch.lines.insert(report.counters.program->info[pc].statement->ptx_line);
    }
  };
  run(queue_);
  queue_.before_launch = nullptr;
  queue_.after_launch = nullptr;
}

void Recording::restore(const RecordedLaunch& launch) {
  ptx::DeviceMemory& memory = queue_.machine.memory;
  for (const RecordedMemory& piece : launch.memory) {
    // Allocated anew, so that shadows do not stay as fine as the finest access of a mutant has cut them.
    const ptx::Allocation* allocation = memory.find(piece.address);
    if (allocation != nullptr && allocation->base == piece.address) memory.free(piece.address);
    memory.allocate_at(piece.address, piece.before.size());
    memory.write(piece.address, piece.before.data(), piece.before.size());
    for (const auto& [first, bytes] : piece.unwritten) memory.mark_unwritten(piece.address + first, bytes);
  }
}

bool Recording::differs(const RecordedLaunch& launch, std::shared_ptr<const ptx::Module> module,
                        const ptx::Options& options, bool counts) {
  restore(launch);
  const ptx::LoadedModule& loaded = queue_.machine.load(std::move(module));
  ptx::LaunchConfig config = launch.config;
  config.options = options;
  bool is_different = false;
  try {
    const ptx::LaunchReport report = queue_.machine.launch(loaded, kernel_, config);
    for (const RecordedMemory& piece : launch.memory)
      is_different = is_different || queue_.machine.memory.find(piece.address)->data != piece.after;
    uint64_t sectors = 0, wavefronts = 0;
    count_memory(report.counters, sectors, wavefronts);
    is_different = is_different || (counts && (sectors != launch.sectors || wavefronts != launch.wavefronts));
  } catch (const ptx::Fault&) {
    is_different = true;
  }
  queue_.machine.unload(loaded);
  return is_different;
}

}  // namespace bitloom::cuda::testing
