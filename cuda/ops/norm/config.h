// Parameters of the norm kernels, shared by host and device.
#pragma once

#include "../../tile/view.h"

namespace bitloom::cuda {

struct NormParams {
  RowSpace rows;
  Operand x, output;
  Operand weight, bias;  // [length] or data null: ones and zeros
  float epsilon;
};

constexpr uint32_t kNormMaxThreads = 512;

}  // namespace bitloom::cuda
