// The sums of products of mma.sync, in two models of how a tensor core adds.
#pragma once

#include <cstdint>

namespace bitloom::ptx {

// sums[i][j] += a[i][k] * b[k][j] over k < depth, all in double: products of up to 24 x 24 bits are exact, so
// only the additions round, far below f32. a: 16 rows of `stride` values, b: depth x 8.
void multiply_exact(const float* a, uint32_t stride, const float* b, uint32_t depth, double (&sums)[16][8]);

// As measurements of tensor cores describe them: `block` products and the running sum are aligned to the
// largest exponent among them, what lies below 2^-24 of that exponent's unit is cut off, and their sum is cut
// to f32.
void multiply_in_blocks(const float* a, uint32_t stride, const float* b, uint32_t depth, uint32_t block,
                        double (&sums)[16][8]);

}  // namespace bitloom::ptx
