// bitloom's grouped formats (u, i, t, nf, fp, cb, cbs, lut, bfp, e<x>m<y>, mxint8; pictures in formats.inc):
// scalar decoder and encoder.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"
#include "codebooks.h"

namespace bitloom {

constexpr int64_t scale_bytes(int32_t scale_dtype) {
  return scale_dtype == BL_SCALE_e8m0 || scale_dtype == BL_SCALE_e4m3 ? 1 : 2;
}

// Bytes before a block's codes: scale and, if the format has one, zero point or the number of a table; or the
// row's table.
constexpr int64_t header_bytes(int32_t kind, int32_t bits, int32_t scale_dtype, int has_zero_point) {
  if (kind == BL_KIND_row_codebook) return scale_bytes(scale_dtype) << bits;
  return scale_bytes(scale_dtype) * (has_zero_point != 0 ? 2 : 1) + (kind == BL_KIND_codebooks ? 1 : 0);
}
inline int64_t grouped_header_bytes(const bl_format_info& info) {
  return header_bytes(info.kind, info.bits, info.scale_dtype, info.has_zero_point);
}

// Code `index` of a bit stream, least significant bit first; bits 1 to 8. Reads the second byte only if
// the code reaches into it.
inline uint32_t read_code(const uint8_t* codes, int64_t index, int bits) {
  const int64_t position = index * bits;
  const int shift = static_cast<int>(position & 7);
  uint32_t word = codes[position >> 3];
  if (shift + bits > 8) word |= static_cast<uint32_t>(codes[(position >> 3) + 1]) << 8;
  return word >> shift & ((1u << bits) - 1);
}

// Sets code `index` of a stream whose bits there are zero.
inline void write_code(uint8_t* codes, int64_t index, int bits, uint32_t code) {
  const int64_t position = index * bits;
  const int shift = static_cast<int>(position & 7);
  const uint32_t word = code << shift;
  codes[position >> 3] |= static_cast<uint8_t>(word);
  if (shift + bits > 8) codes[(position >> 3) + 1] |= static_cast<uint8_t>(word >> 8);
}

// A code of `bits` bits as a two's complement number.
inline int sign_extend(uint32_t code, int bits) {
  const int sign = 1 << (bits - 1);
  return (static_cast<int>(code) ^ sign) - sign;
}

// values[0, count) = weights [first, first + count) of the block at `bytes`. `codebook` as
// codebooks_of gives it.
void decode_grouped(const bl_format_info& info, const uint8_t* bytes, int64_t first, int64_t count,
                    const Codebooks& codebook, float* values);

// Encodes values[0, count), all finite, into a block of `elements` >= count weights; codebook finite.
//
// BL_QUANTIZE_minmax:
//   u, i      the scale maps the weight of largest magnitude onto the code -2^(b-1) (signed, as q4_0
//             does) or its magnitude onto 2^(b-1) - 1, whichever has the smaller squared error;
//             b = 1: the scale is the mean magnitude, the best for given signs
//   uz, iz    the codes span [min(0, weights), max(0, weights)]; the zero point is an integer among the
//             codes, so that zero is exact; b = 1: the zero point is not rounded to an integer
//   t2        the scale is the mean magnitude (BitNet b1.58)
//   nf, fp, cb  the scale maps the codebook's largest magnitude onto the weights'
//   cbs       for each table that scale, and the one at which the table's ends span the weights; the table
//   and
//             scale of the least squared error
//   bfp, e<x>m<y>, mxint8  the scale puts the largest magnitude into the binade of the largest element, as
//             OCP Microscaling v1.0 section 6.3 says: what is beyond that element is clipped. bfp: twice
//             that scale, which clips nothing, if it fits better. Integers: half of that scale if it fits
//             better, for largest weights of -2^n
//   nvfp4     the scale maps 6 onto the largest magnitude
// BL_QUANTIZE_mse: scales (and zero points) on a fixed grid around those of minmax, then least squares;
//   the smallest squared error wins, minmax's own included. bfp, e<x>m<y>, mxint8: exponents from three
//   below that of minmax to one above.
//
// Codes are the nearest ones for the scale as stored, ties to the even code or the first codebook entry
// (nf, fp, cb). Elements that are infinite or NaN are never used.
// A scale beyond its type saturates at the largest finite value. A scale that underflows to zero makes
// the whole block decode to zero.
void encode_grouped(const bl_format_info& info, const float* values, int64_t count, int64_t elements,
                    const Codebooks& codebook, int32_t method, uint8_t* bytes);

}  // namespace bitloom
