// Parameters of the copy kernels, shared by host and device.
#pragma once

#include "../../tile/view.h"

namespace bitloom::cuda {

struct CopyParams {
  RowSpace rows;
  Operand input, output;  // strides in elements; copy_wide: in units of 16 bytes
  int32_t element_bytes;  // copy_plain
};

constexpr uint32_t kCopyThreads = 256;

}  // namespace bitloom::cuda
