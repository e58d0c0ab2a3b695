// A canonical weight matrix as kernels that decode single weights get it. Shared by host and device; plain
// C++17.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

struct WeightsParams {
  const uint8_t* data;
  int64_t rows, cols;
  int64_t row_bytes;
  int64_t block_elements, block_bytes;  // of a block or group; the row's for `_row` formats
  int32_t format, kind, bits, scale_dtype, has_zero_point;
  int32_t header_bytes;  // before a group's codes
  const float* table;    // device memory, of kinds whose codes index one; [table_count][2^bits]
  int32_t table_count;
  float tensor_scale;
};

}  // namespace bitloom::cuda
