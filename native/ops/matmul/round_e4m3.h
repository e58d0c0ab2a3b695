// Compute e4m3: the numbers that activations are rounded to.
#pragma once

#include <cstdint>

namespace bitloom {

constexpr float kLargestE4m3 = 448.0f;
// The least scale of 32 columns: with it every number is normal in bf16 too, in which devices without
// products of fp8 multiply.
constexpr int32_t kLeastE4m3Exponent = -117;

// x[0, count) becomes code * scale, code the e4m3 number nearest to x / scale (ties to even), rounded once.
// per_row: scale = largest / 448, x / scale taken as x * (448 / largest); 0 for a row below 1.5e-36, where
// that overflows. Else each 32 columns have the least power of two, of at least 2^kLeastE4m3Exponent, with
// largest <= 448 * scale: exact. What shares its scale with a value that is not finite becomes NaN. For all
// ISAs the same bits.
void round_e4m3(float* x, int64_t count, bool per_row);

}  // namespace bitloom
