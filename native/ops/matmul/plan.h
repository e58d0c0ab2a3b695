// How a call of matmul is cut into pieces, and what memory each piece needs.
#pragma once

#include <algorithm>

#include "../../base/scratch.h"
#include "../../base/shares.h"
#include "../../base/thread_pool.h"
#include "activations.h"
#include "choose.h"
#include "finish.h"

namespace bitloom {

// Bytes of packed activations that a block of M may have: half of a 2 MB L2, where they stay while all units
// of N pass.
constexpr int64_t kBlockBytes = int64_t{1} << 20;

// Panels of a unit, at most: what the kernels that read several at a time need to read fast.
constexpr int64_t kUnitPanels = 8;

// The kernel of a product, and the one for rows that it leaves out, or null.
struct ChosenKernels {
  const MatmulKernelRow* kernel;
  const MatmulKernelRow* spare;
};

struct Plan {
  const MatmulKernelRow& kernel;
  const MatmulKernelRow* spare;  // for rows that `kernel` leaves out, or null
  int64_t batches, batch_rows;   // matrices in b; rows of a for each
  ActivationsPlan activations, spare_activations;
  uint64_t rows_bytes;  // tile: which row of a is where
  uint64_t additions_bytes;
  int64_t columns;  // of c
  // A unit: 16 * unit_panels columns of c, by as many gate and up rows of b, of a matrix. A slot takes up to
  // most_units beside each other at a time.
  int64_t unit_panels, units, most_units;
  int64_t slots;  // pieces worked on at a time, each with memory of its own:
  uint64_t values_bytes, kernel_bytes, packed_bytes, epilogue_bytes;
  // Panels that a part (gate or up) of a unit may have brought into place, and the bytes between them.
  int64_t packed_panels, packed_stride;
  // Columns to either side of a part in the memory of a slot: a part that does not begin or end with a panel
  // of b has the rest of that panel there.
  int64_t margin;

  // `sharing`: as many matrices like this one as others work on at the same time; 1: this one alone.
  Plan(const bl_run& run, const ChosenKernels& chosen, const WeightsView& b, const Input& input,
       const Finish& finish, int64_t columns_, int64_t batches_, uint64_t additions_bytes_,
       int64_t sharing = 1)
      : kernel(*chosen.kernel),
        spare(chosen.spare),
        batches(batches_),
        batch_rows(input.rows() / batches),
        activations(kernel, b.panel, input, tile() ? batch_rows : input.rows()),
        spare_activations(spare == nullptr ? kernel : *spare, b.panel, input, batch_rows),
        rows_bytes(tile() ? align_up(static_cast<uint64_t>(batch_rows) * sizeof(int64_t)) : 0),
        additions_bytes(additions_bytes_),
        columns(columns_) {
    const int64_t panels = (columns + kPanelRows - 1) / kPanelRows;
    const int32_t threads = run.executor == nullptr ? thread_count(run) : 16;
    // Canonical weights are brought into panels as they are used, one by one unless the kernel is made for
    // several; panels in memory are read several at a time, but no more than lets every thread have some.
    const int64_t least = (finish.granularity() + kPanelRows - 1) / kPanelRows;
    const int64_t together =
        b.panels() == 0 && !tile()
            ? 1
            : std::min<int64_t>(kernel.panels, sharing * batches * panels / (2 * threads));
    unit_panels = std::max<int64_t>(std::min(together, kUnitPanels) / least, 1) * least;
    most_units = std::max<int64_t>(together / unit_panels, 1);
    units = (panels + unit_panels - 1) / unit_panels;
    slots = std::min<int64_t>(threads, batches * units * blocks(batch_rows, kernel));
    int64_t rows = std::min<int64_t>(batch_rows, kernel.rows);
    kernel_bytes = align_up(static_cast<uint64_t>(kernel.scratch_bytes(b.panel, rows)));
    if (spare != nullptr) {
      slots = std::max(slots, std::min<int64_t>(threads, units * blocks(batch_rows, *spare)));
      rows = std::max(rows, std::min<int64_t>(batch_rows, spare->rows));
      kernel_bytes =
          std::max(kernel_bytes, align_up(static_cast<uint64_t>(spare->scratch_bytes(b.panel, rows))));
    }
    margin = b.panels() > 0 && batches * finish.parts() > 1 && columns % kPanelRows != 0 ? kPanelRows : 0;
    values_bytes = align_up(static_cast<uint64_t>(rows * finish.parts() * part_width()) * sizeof(float));
    packed_stride = static_cast<int64_t>(align_up(static_cast<uint64_t>(b.panel.panel_bytes)));
    // All panels of a unit of canonical weights; of weights in panels the last one, which may be canonical.
    packed_panels = b.panels() == 0 ? width() / kPanelRows : b.rows % kPanelRows == 0 ? 0 : 1;
    packed_bytes = static_cast<uint64_t>(finish.parts() * packed_panels * packed_stride);
    epilogue_bytes = finish.slot_bytes(part_width());
  }
  bool tile() const { return kernel.algorithm == BL_ALGORITHM_tile; }
  // Columns of c in the memory of a slot.
  int64_t width() const { return most_units * unit_panels * kPanelRows; }
  // The same with the margins of a part.
  int64_t part_width() const { return width() + 2 * margin; }
  // Rows of a that every unit of N passes over before the next ones: all, or in algorithm tile what fits L2.
  int64_t block_rows(const MatmulKernelRow& of) const {
    if (!tile()) return std::max<int64_t>(batch_rows, 1);
    const int64_t bytes = std::max<int64_t>(activations.stride, 1) * (of.compute == BL_COMPUTE_bf16 ? 2 : 1);
    return std::clamp<int64_t>(kBlockBytes / bytes / 32 * 32, 32, of.rows);
  }
  int64_t blocks(int64_t m, const MatmulKernelRow& of) const {
    return (m + block_rows(of) - 1) / block_rows(of);
  }
  // Of a pass: shares of them are handed out by number (base/shares.h).
  int64_t tasks() const {
    const int64_t most = spare == nullptr ? blocks(batch_rows, kernel)
                                          : std::max(blocks(batch_rows, kernel), blocks(batch_rows, *spare));
    return batches * units * most;
  }
  uint64_t shared_bytes() const {
    return additions_bytes + rows_bytes + activations.total() +
           (spare == nullptr ? 0 : spare_activations.total());
  }
  uint64_t slot_bytes() const { return values_bytes + kernel_bytes + packed_bytes + epilogue_bytes; }
  // What slots have, and behind them a share of the tasks each (matmul.cc).
  uint64_t total() const {
    return shared_bytes() + static_cast<uint64_t>(slots) * (slot_bytes() + align_up(sizeof(Share)));
  }
};

}  // namespace bitloom
