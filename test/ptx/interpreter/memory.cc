#include "memory.h"

#include <algorithm>
#include <cstdio>
#include <cstring>

#include "fault.h"

namespace bitloom::ptx {
namespace {

std::string hex(uint64_t value) {
  char text[24];
  std::snprintf(text, sizeof text, "0x%llx", static_cast<unsigned long long>(value));
  return text;
}

}  // namespace

uint64_t DeviceMemory::allocate(uint64_t bytes, std::string name, uint64_t align) {
  if (align < 256) align = 256;
  const uint64_t base = (next_ + align - 1) / align * align;
  next_ = (base + bytes + 8192) / 4096 * 4096;
  insert(base, bytes, std::move(name));
  return base;
}

void DeviceMemory::allocate_at(uint64_t address, uint64_t bytes) {
  const auto above = allocations_.lower_bound(address);
  const bool overlaps_above = above != allocations_.end() && above->first - address < bytes + 1;
  if (overlaps_above || find(address)) {
    throw Fault(FaultKind::bad_address, "allocate_at: " + std::to_string(bytes) + " bytes at " +
                                            hex(address) + " overlap another allocation");
  }
  insert(address, bytes, {});
}

void DeviceMemory::insert(uint64_t base, uint64_t bytes, std::string name) {
  auto allocation = std::make_unique<Allocation>();
  allocation->base = base;
  allocation->bytes = bytes;
  allocation->name = std::move(name);
  allocation->data.assign(bytes, 0xff);  // NaN in every floating type
  allocation->shadow.reset(bytes);
  allocation->shadow.start_launch(launch_);
  allocations_[base] = std::move(allocation);
  bytes_allocated_ += bytes;
}

void DeviceMemory::free(uint64_t address) {
  const auto found = allocations_.find(address);
  if (found == allocations_.end())
    throw Fault(FaultKind::bad_address, "free: " + hex(address) + " is no allocation");
  freed_[address] = found->second->bytes;
  bytes_allocated_ -= found->second->bytes;
  allocations_.erase(found);
}

Allocation* DeviceMemory::find(uint64_t address) const {
  auto after = allocations_.upper_bound(address);
  if (after == allocations_.begin()) return nullptr;
  Allocation* allocation = std::prev(after)->second.get();
  return address - allocation->base <= allocation->bytes ? allocation : nullptr;
}

Allocation& DeviceMemory::range(uint64_t address, uint64_t bytes, const char* what) const {
  Allocation* allocation = find(address);
  if (!allocation || bytes > allocation->bytes - (address - allocation->base)) {
    throw Fault(FaultKind::bad_address, std::string(what) + ": " + std::to_string(bytes) + " bytes at " +
                                            hex(address) + ", " + describe(address));
  }
  return *allocation;
}

void DeviceMemory::write(uint64_t address, const void* source, uint64_t bytes) {
  if (bytes == 0) return;
  Allocation& allocation = range(address, bytes, "write");
  std::memcpy(allocation.data.data() + (address - allocation.base), source, bytes);
  allocation.shadow.visit_range(address - allocation.base, bytes,
                                [](Cell& cell) { cell = {kHost, 0, 0, 0, 0, 0}; });
}

void DeviceMemory::read(void* target, uint64_t address, uint64_t bytes) const {
  if (bytes == 0) return;
  const Allocation& allocation = range(address, bytes, "read");
  std::memcpy(target, allocation.data.data() + (address - allocation.base), bytes);
}

void DeviceMemory::fill(uint64_t address, uint8_t value, uint64_t bytes) {
  const std::vector<uint8_t> values(bytes, value);
  write(address, values.data(), bytes);
}

void DeviceMemory::copy(uint64_t target, uint64_t source, uint64_t bytes) {
  if (bytes == 0) return;
  Allocation& from = range(source, bytes, "copy from");
  range(target, bytes, "copy to");
  const uint64_t first = source - from.base;
  write(target, from.data.data() + first, bytes);
  // Pages that are not written in full are looked at cell by cell.
  uint64_t at = first;
  const uint64_t end = first + bytes;
  while (at < end) {
    const uint64_t page_end = std::min(end, (at / Shadow::kPageBytes + 1) * Shadow::kPageBytes);
    if (is_written(source + (at - first), page_end - at)) {
      at = page_end;
      continue;
    }
    const uint64_t granule = from.shadow.granule(at);
    const uint64_t piece = std::min(end, (at / granule + 1) * granule) - at;
    if (!is_written(source + (at - first), piece)) mark_unwritten(target + (at - first), piece);
    at += piece;
  }
}

bool DeviceMemory::is_written(uint64_t address, uint64_t bytes) {
  Allocation& allocation = range(address, bytes, "is_written");
  bool all = true;
  allocation.shadow.visit_range(address - allocation.base, bytes,
                                [&](Cell& cell) { all = all && cell.writer != kUnwritten; });
  return all;
}

void DeviceMemory::mark_unwritten(uint64_t address, uint64_t bytes) {
  Allocation& allocation = range(address, bytes, "mark_unwritten");
  allocation.shadow.visit_range(address - allocation.base, bytes, [](Cell& cell) { cell = {}; });
}

std::string DeviceMemory::describe(uint64_t address) const {
  for (const auto& [base, bytes] : freed_) {
    if (address >= base && address - base < bytes) {
      return "inside the freed " + std::to_string(bytes) + " bytes at " + hex(base);
    }
  }
  const auto after = allocations_.upper_bound(address);
  const Allocation* below = after == allocations_.begin() ? nullptr : std::prev(after)->second.get();
  const Allocation* above = after == allocations_.end() ? nullptr : after->second.get();
  const auto named = [](const Allocation& a) {
    return "the " + std::to_string(a.bytes) + " bytes " + (a.name.empty() ? "" : "of " + a.name + " ") +
           "at " + hex(a.base);
  };
  if (below && address - below->base < below->bytes) {
    return "offset " + std::to_string(address - below->base) + " of " + named(*below);
  }
  const uint64_t past = below ? address - (below->base + below->bytes) : ~0ull;
  const uint64_t before = above ? above->base - address : ~0ull;
  if (past <= before && past < 1u << 20)
    return std::to_string(past) + " bytes past the end of " + named(*below);
  if (before < 1u << 20) return std::to_string(before) + " bytes before " + named(*above);
  return "near no allocation";
}

void DeviceMemory::start_launch() {
  ++launch_;
  for (auto& [base, allocation] : allocations_) allocation->shadow.start_launch(launch_);
}

}  // namespace bitloom::ptx
