// Parameters of the embedding kernel, shared by host and device.
#pragma once

#include "../../tile/view.h"
#include "../../tile/weights.h"

namespace bitloom::cuda {

struct EmbeddingParams {
  RowSpace rows;
  Operand output;
  Operand ids;  // i32, a number per row
  WeightsParams table;
};

constexpr uint32_t kEmbeddingThreads = 256;

}  // namespace bitloom::cuda
