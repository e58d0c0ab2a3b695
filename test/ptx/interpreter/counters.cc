#include "counters.h"

#include <algorithm>
#include <bit>
#include <cstdio>

#include "access.h"
#include "program.h"

namespace bitloom::ptx {
namespace {

std::string opcode_of(const Statement& statement) {
  std::string text(statement.opcode);
  for (std::string_view modifier : statement.modifiers) text += "." + std::string(modifier);
  return text;
}

void add_count(InstrCount& sum, const InstrCount& more) {
  sum.warps += more.warps;
  sum.lanes += more.lanes;
  sum.requests += more.requests;
  sum.bytes += more.bytes;
  sum.used_bytes += more.used_bytes;
  sum.sectors += more.sectors;
  sum.lines += more.lines;
  sum.wavefronts += more.wavefronts;
  sum.ideal_wavefronts += more.ideal_wavefronts;
}

// Distinct values of keys[0..count): the addresses of a warp mostly rise, else they are sorted.
uint32_t distinct(uint64_t* keys, uint32_t count) {
  if (!std::is_sorted(keys, keys + count)) std::sort(keys, keys + count);
  return static_cast<uint32_t>(std::unique(keys, keys + count) - keys);
}

// Shared memory has 32 banks of 4 bytes. A request is served in phases of as many lanes as fill 128 bytes; a
// phase takes as many passes as its busiest bank has distinct words.
void count_wavefronts(InstrCount& count, const uint64_t (&address)[32], uint32_t mask, uint32_t bytes) {
  const uint32_t unit = std::max(bytes, 4u);  // aligned accesses: a group of unit / 4 banks moves as one
  const uint32_t lanes = std::min(32u, 128 / unit), groups = 128 / unit;
  for (uint32_t first = 0; first < 32; first += lanes) {
    uint64_t words[32][4];  // per bank group; more than four distinct ones go to `more`
    uint8_t used[32] = {};
    std::vector<std::pair<uint32_t, uint64_t>> more;
    uint32_t most = 0;
    for (uint32_t lane = first; lane < first + lanes; ++lane) {
      if (!(mask >> lane & 1)) continue;
      const uint64_t word = address[lane] / unit;
      const uint32_t group = static_cast<uint32_t>(word % groups);
      bool known = false;
      for (uint32_t i = 0; i < std::min<uint32_t>(used[group], 4) && !known; ++i)
        known = words[group][i] == word;
      for (const auto& [g, w] : more) known = known || (g == group && w == word);
      if (known) continue;
      if (used[group] < 4) {
        words[group][used[group]] = word;
      } else {
        more.push_back({group, word});
      }
      most = std::max<uint32_t>(most, ++used[group]);
    }
    count.wavefronts += most;
    count.ideal_wavefronts += most > 0;
  }
}

}  // namespace

void count_request(Warp& warp, Space space, const uint64_t (&address)[32], uint32_t mask, uint32_t bytes) {
  if (!warp.launch->options.count_requests || mask == 0) return;
  if (space == Space::generic) {
    const uint64_t first = address[std::countr_zero(mask)];
    space = first - kSharedWindow < kWindowBytes ? Space::shared
            : first >= kSharedWindow             ? Space::local
                                                 : Space::global;
  }
  InstrCount& count = warp.launch->counters->counts[warp.pc];
  if (space == Space::shared) {
    ++count.requests;
    count.bytes += uint64_t{bytes} * static_cast<uint32_t>(std::popcount(mask));
    return count_wavefronts(count, address, mask, bytes);
  }
  if (space != Space::global) return;
  ++count.requests;
  count.bytes += uint64_t{bytes} * static_cast<uint32_t>(std::popcount(mask));
  uint64_t keys[32];
  uint32_t lanes = 0;
  each_lane(mask, [&](uint32_t lane) { keys[lanes++] = address[lane]; });
  const uint32_t accesses =
      distinct(keys, lanes);  // aligned and of one size: they overlap whole or not at all
  count.used_bytes += uint64_t{bytes} * accesses;
  for (uint32_t i = 0; i < accesses; ++i) keys[i] /= 32;  // aligned: within one sector
  const uint32_t sectors = distinct(keys, accesses);
  count.sectors += sectors;
  for (uint32_t i = 0; i < sectors; ++i) keys[i] /= 4;
  count.lines += distinct(keys, sectors);
}

void Counters::reset(const Program& of) {
  program = &of;
  counts.assign(of.code.size(), {});
}

InstrCount Counters::total(const std::string& opcode_prefix) const {
  InstrCount sum;
  for (size_t i = 0; i < counts.size(); ++i) {
    if (opcode_prefix.empty() ||
        opcode_of(*program->info[i].statement).compare(0, opcode_prefix.size(), opcode_prefix) == 0) {
      add_count(sum, counts[i]);
    }
  }
  return sum;
}

uint64_t Counters::warp_instructions() const { return total("").warps; }
uint64_t Counters::mma() const { return total("mma").warps; }

std::map<std::string, uint64_t> Counters::by_opcode() const {
  std::map<std::string, uint64_t> sums;
  for (size_t i = 0; i < counts.size(); ++i) sums[opcode_of(*program->info[i].statement)] += counts[i].warps;
  return sums;
}

std::map<std::string, uint64_t> Counters::by_line() const {
  std::map<std::string, uint64_t> sums;
  for (size_t i = 0; i < counts.size(); ++i) {
    const Statement& s = *program->info[i].statement;
    const auto name = program->module->files.find(s.file);
    if (name != program->module->files.end())
      sums[name->second + ":" + std::to_string(s.line)] += counts[i].warps;
  }
  return sums;
}

std::vector<uint32_t> Counters::never_executed() const {
  std::vector<uint32_t> never;
  for (size_t i = 0; i < counts.size(); ++i) {
    const bool reached = program->code[i].flow == Flow::branch ? counts[i].warps > 0 : counts[i].lanes > 0;
    if (!reached && program->info[i].statement->opcode != "branchtargets")
      never.push_back(static_cast<uint32_t>(i));
  }
  return never;
}

void Counters::add(const Counters& other) {
  for (size_t i = 0; i < counts.size(); ++i) add_count(counts[i], other.counts[i]);
}

std::string Counters::report() const {
  std::string text = "kernel " + program->kernel->name + ": " + std::to_string(warp_instructions()) +
                     " warp instructions, " + std::to_string(mma()) + " mma\n";
  char line[256];
  std::snprintf(line, sizeof line, "%10s %12s %10s %10s %10s %10s  %s\n", "requests", "bytes", "sectors",
                "lines", "wavefronts", "ideal", "instruction");
  text += line;
  for (size_t i = 0; i < counts.size(); ++i) {
    const InstrCount& c = counts[i];
    if (c.requests == 0) continue;
    std::snprintf(line, sizeof line, "%10llu %12llu %10llu %10llu %10llu %10llu  ",
                  static_cast<unsigned long long>(c.requests), static_cast<unsigned long long>(c.bytes),
                  static_cast<unsigned long long>(c.sectors), static_cast<unsigned long long>(c.lines),
                  static_cast<unsigned long long>(c.wavefronts),
                  static_cast<unsigned long long>(c.ideal_wavefronts));
    text += line + opcode_of(*program->info[i].statement) + " at " +
            program->location(static_cast<uint32_t>(i)) + "\n";
  }
  return text;
}

}  // namespace bitloom::ptx
