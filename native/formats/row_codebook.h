// Encoder of rows with a table of their own (lut<b>).
#pragma once

#include <cstdint>

#include "../include/bitloom.h"

namespace bitloom {

// Encodes a row of values[0, count), all finite, count > 0, to `bytes` (bl_row_bytes of them).
//
// table: [2^bits] finite entries, kept in their order, rounded to the table's type; each weight gets the
// nearest as rounded, the first of equals. Null: levels that make sum_k importance[k] * (value[k] - level)^2
// small, by Lloyd's iteration in double (k-means in one dimension, as SqueezeLLM has it; Kim et al. 2023), in
// ascending order.
//   BL_QUANTIZE_minmax  from the weighted quantiles (e + 1/2) / 2^bits
//   BL_QUANTIZE_mse     also from levels evenly between the least and the largest value; the better of the
//   two
// A row of at most 2^bits different values that the table's type has is encoded exactly. importance: [count],
// finite and not negative, or null: ones. All zero counts as ones.
//
// False: no memory (8 bytes per weight, for the sorted row).
bool encode_row_codebook(const bl_format_info& info, const float* values, int64_t count, const float* table,
                         int32_t method, const float* importance, uint8_t* bytes);

}  // namespace bitloom
