// Activations brought into the form that a kernel reads.
#pragma once

#include "../../base/tensor.h"
#include "kernel.h"
#include "prepared.h"

namespace bitloom {

// Sizes of the packed activations of m rows. Independent of N.
struct ActivationsPlan {
  int64_t m, stride;
  uint64_t values_bytes, halves_bytes, packed_bytes, sums_bytes, row_bytes;
  PreparedLayout prepared;  // i8
  bool given;               // i8: prepared by the caller
  int64_t tasks;            // the packing's, each with a row of its own to convert into

  ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t m,
                  const PreparedHeader* given);
  uint64_t total() const;
};

// Packs a [M, K] into `memory` (plan.total() bytes, aligned to 64). `prepared`: what the caller prepared, and
// then `a` is not read.
Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run, const Rows& a, const void* prepared, uint8_t* memory);

}  // namespace bitloom
