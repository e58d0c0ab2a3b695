#include "recording.h"

#include <algorithm>
#include <cstring>

#include "coverage.h"

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

// The allocations that words of the parameters point into, or right behind.
std::set<uint64_t> pointed_at(const ptx::DeviceMemory& memory, const std::vector<uint8_t>& parameters) {
  std::set<uint64_t> addresses;
  for (size_t at = 0; at + 8 <= parameters.size(); at += 8) {
    uint64_t word;
    std::memcpy(&word, parameters.data() + at, 8);
    if (const ptx::Allocation* allocation = memory.find(word)) addresses.insert(allocation->base);
  }
  return addresses;
}

// Kernels whose blocks take turns, and along which axes of the grid.
struct Turns {
  const char* kernels;
  bool x, y;
};
constexpr Turns kTurns[] = {
    {"rms_norm_* layer_norm_* softmax_* rope matmul_prepare* matmul_integer_rows matmul_fp8_rows", true,
     false},
    {"matmul_low_rank matmul_unpack matmul_collect sample_keys sample_penalize sample_largest", true, false},
    {"copy_* elementwise_* embedding quantize quantize_check quantize_mse dequantize", true, true},
    {"matmul_finish", false, true}};

void count_memory(const ptx::Counters& counters, uint64_t& sectors, uint64_t& wavefronts) {
  for (const ptx::InstrCount& count : counters.counts)
    sectors += count.sectors, wavefronts += count.wavefronts;
}

}  // namespace

void Recorder::watch(TestQueue& queue) {
  queue.before_launch = [this, &queue](const std::string& kernel, ptx::LaunchConfig& config) {
    if (wanted_.count(kernel) == 0) return;
    for (const Turns& it : kTurns) {
      const bool x = it.x && config.grid[0] > 1, y = it.y && config.grid[1] > 1;
      if (!is_one_of(kernel, it.kernels) || (!x && !y)) continue;
      const int turn = turns_[{queue.settings.arch, kernel}]++;
      if (x && turn % 2 == 0) config.grid[0] = 1;
      if (y && turn % 3 == 0) config.grid[1] = 1;
    }
    RecordedLaunch launch;
    launch.config = config;
    for (uint64_t address : pointed_at(queue.machine.memory, config.parameters)) {
      ptx::Allocation& allocation = *queue.machine.memory.find(address);
      launch.memory.push_back({address, allocation.data, {}, unwritten_of(queue.machine.memory, allocation)});
    }
    launches_[{queue.settings.arch, kernel}].push_back(std::move(launch));
  };
  queue.after_launch = [this, &queue](const std::string& kernel, const ptx::LaunchReport& report) {
    if (wanted_.count(kernel) == 0) return;
    RecordedLaunch& launch = launches_[{queue.settings.arch, kernel}].back();
    for (RecordedMemory& piece : launch.memory) piece.after = queue.machine.memory.find(piece.address)->data;
    count_memory(report.counters, launch.sectors, launch.wavefronts);
    launch.instructions = report.counters.warp_instructions();
    for (const ptx::InstrCount& count : report.counters.counts) launch.executed.push_back(count.lanes > 0);
  };
}

const std::vector<RecordedLaunch>& Recorder::launches(int32_t arch, const std::string& kernel) const {
  static const std::vector<RecordedLaunch> none;
  const auto at = launches_.find({arch, kernel});
  return at == launches_.end() ? none : at->second;
}

Player::Player(int32_t arch) {
  Settings settings;
  settings.arch = arch;
  machine_.max_shared_bytes = static_cast<uint32_t>(TestQueue(settings).limits().shared_bytes_per_block);
  machine_.memory.start_at(uint64_t{1} << 40);  // variables of modules: behind all that was recorded
}

void Player::restore(const RecordedLaunch& launch) {
  ptx::DeviceMemory& memory = machine_.memory;
  // Allocated anew, so that shadows do not stay as fine as the finest access of a mutant has cut them.
  for (uint64_t address : restored_) memory.free(address);
  restored_.clear();
  for (const RecordedMemory& piece : launch.memory) {
    memory.allocate_at(piece.address, piece.before.size());
    restored_.push_back(piece.address);
    memory.write(piece.address, piece.before.data(), piece.before.size());
    for (const auto& [first, bytes] : piece.unwritten) memory.mark_unwritten(piece.address + first, bytes);
  }
}

bool Player::differs(const RecordedLaunch& launch, const std::string& kernel,
                     std::shared_ptr<const ptx::Module> module, const ptx::Options& options, bool counts) {
  restore(launch);
  const ptx::LoadedModule& loaded = machine_.load(std::move(module));
  ptx::LaunchConfig config = launch.config;
  config.options = options;
  bool is_different = false;
  try {
    const ptx::LaunchReport report = machine_.launch(loaded, kernel, config);
    for (const RecordedMemory& piece : launch.memory)
      is_different = is_different || machine_.memory.find(piece.address)->data != piece.after;
    uint64_t sectors = 0, wavefronts = 0;
    count_memory(report.counters, sectors, wavefronts);
    is_different = is_different || (counts && (sectors != launch.sectors || wavefronts != launch.wavefronts));
  } catch (const ptx::Fault&) {
    is_different = true;
  }
  machine_.unload(loaded);
  return is_different;
}

}  // namespace bitloom::cuda::testing
