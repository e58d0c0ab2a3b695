// Algorithm tile, compute i8: how weights become int8. Exact, so that every ISA level gives the same bits.
//
// K is cut into blocks of kTileDepth. In a block, a row of `a` has one scale and codes of int8, and a row n
// of `b` has one step: w8 = weight / step to nearest, |w8| <= 127. With I the sum of w8 * a_code over the
// block, exact in int32 and, being at most 512 * 128 * 127 < 2^24, exact as f32 too,
//
//   sum = fma((float) I, step * a_scale, sum)        block after block, in order of k
//
// Re-scaling of a block of row n, all in f32 with each operation rounded unless fma is written:
//
//   o_g  = fma(scale_g, centre, offset_g)            formats with offsets; the weight of value - zero =
//   centre R    = max over the groups g of fma(|scale_g|, spread, |o_g|)     no weight of the block is larger
//   step = R / levels; both factors below are zero unless kTileLeast <= R < infinity
//   m_g  = rint(scale_g * (unit / step)) | 1         int16, odd
//   h_g  = rint(o_g * (128 / step))                  int16, 0 for formats without offsets
//   y    = (x[code] * m_g) >> 16                     what vpmulhw does; w8 in steps of 1/128
//   w8   = (y + h_g + 64) >> 7
//
// Rounding has no bias: both shifts together are floor(x m / 2^16 + h + 64, in steps of 128), which is odd in
// x unless x m = 2^22 (2 i + 1). An odd m cannot give that, as |x| <= 2^15. (Half up, as vpmulhrsw and a
// shift by 8 round, moves all ties one way: with scales that are powers of two, up to a fifth of a step on
// average, which activations of one sign add up.)
//
// levels is 127, or where there are no offsets a multiple of `spread`: the largest of all where `spread` is
// at most 4, so that ternary and other narrow codes stay exact where the groups of a block share one scale;
// and for scales that are powers of two the largest `spread` * 2^i of at least 2 * `spread`, so that groups
// whose scale is 2^i below the largest of the block stay exact (mxfp4: 96, three octaves). x[code] = (value -
// zero - centre) * C, an int16 table of the format, and unit = 128 * 2^16 / C.
//
// Error: m is off by at most 1, of 2^15, and |x| <= 2^15: 0.5 units of y; h: 0.5; x itself: exact for
// integers and tables of integers, 0.25 for float tables. So what is rounded is within 1.25 units (0.5 for
// integers without offsets) of 128 * weight / step, a 102nd of a step, besides f32 roundings below 2^-20 of
// it, and
//
//   |w8 * step - weight| <= 0.51 step = 0.0041 * R      (levels >= 124; 0.008 * R for powers of two)
//
// Overflow: |x| * |m| is at most 32767 * 32641, and |y + h| <= 127 * 128 + 2, so w8 stays within +-127.
//
// `_row` formats of integers and of tables of integers have one scale per row; there w8 = value - zero -
// centre itself (centre an integer), step = scale, and an offset is added as fma(o, a_scale * sum of a's
// codes, sum): no error but that of the activations.
//
// Why blocks of 512 and not one step per row: the largest of 512 Gaussian values is 3.0 sigma, of 4096 3.6: a
// fifth less error on either side; activation channels that are large cost their own block, not the row; sums
// are exact in f32 whatever K; and the weights' scales are read where their codes are. The price is a
// conversion and two multiplications per 16 results and 512 weights, beside 8 tile products of 16 cycles.
#pragma once

#include <cstdint>

#include "kernel.h"

namespace bitloom {

// Below it weights count as zero: 256 / step would overflow below 1e-34.
constexpr float kTileLeast = 1e-30f;

// What the re-scaling needs to know of a format.
struct TileRecipe {
  bool exact;  // `_row`: codes go in as they are
  bool has_offsets;
  float centre;  // in units of value - zero
  float spread;  // largest |value - zero - centre|
  float unit;
  float levels;
  int32_t exact_multiplier;  // m of `exact`, where it fits int16 (all but 8 bits)
  int16_t x[256];
};

TileRecipe tile_recipe(const PanelFormat& f);

// Where element k of row m stands in tiles of 16 rows x 64 bytes: [m / 16][k / depth][m % 16][k % depth],
// rows of `stride` elements, `depth` of them in a tile's row (64 of i8, 32 of bf16).
inline int64_t tile_at(int64_t m, int64_t k, int64_t stride, int64_t depth) {
  return m / 16 * 16 * stride + k / depth * 16 * depth + m % 16 * depth + k % depth;
}

// Errors of rounding, from sums over blocks that are the same on every ISA level: predicted error of a row's
// codes relative to the row, 0 for a row of zeros.
float predicted_error(const TileSums* sums, const float* scales, int64_t blocks);
// Rows whose codes are worse are computed in bf16: half as bad again as rows drawn from a Laplacian.
constexpr float kTileWorstError = 1.8e-2f;

}  // namespace bitloom
