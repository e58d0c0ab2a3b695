// Parameters of the quantize and dequantize kernels, shared by host and device.
#pragma once

#include "../../tile/view.h"
#include "../../tile/weights.h"

namespace bitloom::cuda {

struct DequantizeParams {
  RowSpace rows;
  Operand output;
  WeightsParams input;
};

struct QuantizeParams {
  RowSpace rows;
  Operand input;
  WeightsParams output;
  uint8_t* data;         // output.data, to be written
  int64_t groups;        // blocks of a row
  uint64_t* non_finite;  // 2^64 - 1 - the lowest row * cols + col of an input that is not finite; 0: none
};

constexpr uint32_t kQuantizeThreads = 128;

}  // namespace bitloom::cuda
