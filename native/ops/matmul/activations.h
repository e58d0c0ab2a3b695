// Activations brought into the form that a kernel reads.
#pragma once

#include "../../base/tensor.h"
#include "kernel.h"

namespace bitloom {

// Sizes of the packed activations of m rows. Independent of N.
struct ActivationsPlan {
  int64_t m, stride;
  bool tile;  // laid out in tiles of 16 rows
  uint64_t values_bytes, halves_bytes, codes_bytes, scales_bytes, sums_bytes, row_bytes;
  uint64_t tile_sums_bytes;
  uint64_t tables_bytes[2], negatives_bytes;  // lut: per plane width
  int64_t tasks;  // the packing's, each with a row of its own to convert into

  ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t m);
  uint64_t total() const;
};

// Packs a [M, K] into `memory` (plan.total() bytes, aligned to 64).
Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run, const Rows& a, uint8_t* memory);

// The same for algorithm tile. Row i of the result is row rows[i] of a, i < count.
// i8: rows that int8 does not suit (kTileWorstError of tile.h) are left out. On entry rows is [0, count); on return it
// names the rows that are packed, in the order of the result, then those that are not; returns how many are.
struct TileActivations {
  Activations a;
  int64_t count;
};
TileActivations pack_tile_activations(const MatmulKernelRow& kernel, const PanelFormat& f,
                                      const ActivationsPlan& plan, const bl_run& run, const Rows& a, int64_t* rows,
                                      int64_t count, uint8_t* memory);

}  // namespace bitloom
