// Host side: a matrix in layout fragments as kernels take it, and which kernel decodes it.
#pragma once

#include <cstdint>

#include "../../../native/formats/formats.h"
#include "../../../native/formats/fragments.h"
#include "config.h"

namespace bitloom::cuda::gemm {

// What kernels need of b. `product` is null where no kernel has such codes: then `unpack` says how weights
// become f16.
struct PlannedWeights {
  FragmentWeights weights;
  const char* product;  // "c4": a row of kernels.inc
  const char* bf16;     // "bf16_c4": a row of kernels_bf16.inc, for activations of bf16; or null
  UnpackKind unpack;
  int32_t table_bytes;  // shared memory of the pair tables, for all
  int32_t bits;
  const float* entries;  // of the tables, on the host
  int32_t entry_count;
};

// b: layout fragments, data on the device.
PlannedWeights plan_weights(const bl_weights& b);

// The same matrix as f16 fragments at `data`.
FragmentWeights unpacked_weights(const FragmentWeights& b, const void* data);

}  // namespace bitloom::cuda::gemm
