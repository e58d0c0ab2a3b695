// Parameters of the elementwise kernels, shared by host and device.
#pragma once

#include "../../tile/view.h"

namespace bitloom::cuda {

struct ElementwiseParams {
  RowSpace rows;
  Operand left, right, output;  // right.data null for one argument
};

constexpr uint32_t kElementwiseThreads = 256;

}  // namespace bitloom::cuda
