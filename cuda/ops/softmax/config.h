// Parameters of the softmax kernels, shared by host and device.
#pragma once

#include "../../tile/view.h"

namespace bitloom::cuda {

struct SoftmaxParams {
  RowSpace rows;
  Operand x, output;
  float scale;
};

constexpr uint32_t kSoftmaxMaxThreads = 512;

}  // namespace bitloom::cuda
