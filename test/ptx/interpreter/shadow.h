// Shadow memory: for every piece of memory, who wrote it last and who has read it since.
//
// The bytes are split into pages of 1 KiB, a page into cells of 16, 8, 4, 2 or 1 bytes. A page starts with
// cells of 16 bytes and is cut finer, never coarser, when an access needs it: so every answer is exact per
// byte, and the wide accesses of fast kernels touch one cell each.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "knowledge.h"

namespace bitloom::ptx {

// Of a stamp's clock field: the clock is in the low 27 bits.
constexpr uint32_t kClockMask = (1u << 27) - 1;
constexpr uint32_t kStampPending = 1u << 31;  // written by a cp.async that has not been waited for
constexpr uint32_t kStampStrong = 1u << 30;   // atomic, volatile, relaxed, acquire or release
constexpr uint32_t kStampDevice = 1u << 29;   // strong at a scope beyond the block
constexpr uint32_t kStampWrote = 1u << 28;    // in an AccessSet: this access also wrote (an atomic)
constexpr uint32_t kStampLanes = 1u << 27;    // a read by several lanes of the warp

// Values of Cell::writer that are no thread + 1.
constexpr uint32_t kUnwritten = 0;
constexpr uint32_t kHost = ~0u;  // the host, or an earlier launch
// Values of Cell::reader: 0 nobody, kReaderSet | index into Shadow's sets, else thread + 1.
constexpr uint32_t kReaderSet = 1u << 31;

struct Cell {
  uint32_t writer = kUnwritten;
  uint32_t write_clock = 0;
  uint32_t write_pc = 0;
  uint32_t reader = 0;
  uint32_t read_clock = 0;
  uint32_t read_pc = 0;
};

struct Access {
  ThreadId thread;
  uint32_t clock;  // with stamp flags
  uint32_t pc;
};
using AccessSet = std::vector<Access>;

class Shadow {
 public:
  static constexpr uint32_t kPageBytes = 1024;

  // Starts over: `bytes` unwritten bytes.
  void reset(uint64_t bytes) {
    pages_.clear();
    pages_.resize((bytes + kPageBytes - 1) / kPageBytes);
    clear_sets();
  }
  // Later stamps are of another launch; older ones become the host's. Costs nothing until a page is touched.
  void start_launch(uint32_t launch) {
    launch_ = launch;
    clear_sets();
  }

  // Calls body(cell) for the cells of [offset, offset + bytes). bytes is a power of two at most 32 and
  // divides offset, or the range lies in one cell's worth of finer pieces that the caller cut.
  template <typename Body>
  void visit(uint64_t offset, uint32_t bytes, Body&& body) {
    Page& page = pages_[offset / kPageBytes];
    if (!page.cells || page.launch != launch_) prepare(page);
    const uint32_t finest = static_cast<uint32_t>(offset) | bytes;
    if (finest & ((1u << page.granule) - 1)) refine(page, finest);
    Cell* cell = page.cells.get() + ((offset % kPageBytes) >> page.granule);
    const uint32_t count = bytes >> page.granule;
    for (uint32_t i = 0; i < count; ++i) body(cell[i]);
  }

  // Calls body(cell) for the cells of any range.
  template <typename Body>
  void visit_range(uint64_t offset, uint64_t bytes, Body&& body) {
    while (bytes > 0) {
      uint64_t piece = offset ? offset & (0 - offset) : 16;
      if (piece > 16) piece = 16;
      while (piece > bytes) piece /= 2;
      visit(offset, static_cast<uint32_t>(piece), body);
      offset += piece;
      bytes -= piece;
    }
  }

  uint32_t granule(uint64_t offset) const { return 1u << pages_[offset / kPageBytes].granule; }

  AccessSet& set_of(uint32_t reader) { return sets_[reader & ~kReaderSet]; }
  uint32_t make_set() {
    if (free_sets_.empty()) {
      sets_.emplace_back();
      return kReaderSet | static_cast<uint32_t>(sets_.size() - 1);
    }
    const uint32_t index = free_sets_.back();
    free_sets_.pop_back();
    sets_[index].clear();
    return kReaderSet | index;
  }
  void free_set(uint32_t reader) { free_sets_.push_back(reader & ~kReaderSet); }

 private:
  struct Page {
    std::unique_ptr<Cell[]> cells;
    uint32_t launch = 0;
    uint8_t granule = 4;  // log2 of a cell's bytes
  };

  void clear_sets() {
    sets_.clear();
    free_sets_.clear();
  }
  void prepare(Page& page);
  void refine(Page& page, uint32_t finest);

  std::vector<Page> pages_;
  std::vector<AccessSet> sets_;
  std::vector<uint32_t> free_sets_;
  uint32_t launch_ = 0;
};

}  // namespace bitloom::ptx
