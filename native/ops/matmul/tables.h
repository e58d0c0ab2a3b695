// Tables of partial sums of activations, which lut kernels look up by the weights' codes (T-MAC, Wei et al.
// 2024; LUT Tensor Core, Mo et al. 2025; here lossless as TL2 of bitnet.cpp).
//
// A nibble of a byte of a plane (panel.h) holds 4 codes of 1 bit, of weights k, k + 4, k + 8, k + 12, or 2
// codes of 2 bits, of weights k and k + 8. Its table has an entry for each value of the nibble:
//
//   entry = sum over its codes c_i of c_i * a_i + largest * (the sum of |a_i| over negative a_i)
//
// largest = 2^bits - 1 is the largest c_i, so that entries begin at 0 (where a_i is negative, the code counts
// from its other end): 0 <= entry <= largest * sum |a_i| <= 4 * 127 = 508 (1 bit) or 2 * 3 * 127 = 762 (2
// bits). What this adds to the products of 32 weights is largest * negatives, negatives as in Activations,
// whatever the codes.
//
// Entries are exact. They stand in two tables of bytes, entry % 32 and entry / 32 (at most 15 or 23): eight
// lookups of either can be added as bytes (8 * 31 = 248, 8 * 23 = 184), which is what makes tables pay
// without VNNI.
//
// Per 32 activations, [run][half][low, high][j][16] bytes: the 64 bytes of a run times one nibble (half 0:
// the low one) look up 4 tables, of its bytes 16j + row.
//
// Tables of bytes (bl_tables, lut_fast; T-MAC's form) hold round(entry * |scale| / table_scale), table_scale
// such that the largest entry of kTableGroup activations is 255: one lookup instead of two. With E the
// largest entry of 32 activations and m = round(4096 * |scale| / table_scale),
//
//   table_scale = max over the 4 groups of 32 of |scale| * max(E, 63.75) / 255
//   byte = (entry * m + 2048) / 4096, rounded down; at most 255, as E * m <= 4096 * 255 + E / 2 + 1
//
// Codes of a group whose scale is negative count with the other sign. Where E < 64 (activations of 4 bits: at
// most 4 * 7 or 6 * 7) entries of equal scales are exact: 4 * entry.
// A byte is off by at most 0.5 + entry / 8192 < 0.6, so that the sum of L lookups is off by less than 0.6 * L
// * table_scale (* 2^shift), L = weights / 4 (planes of 1 bit) or / 2 (of 2 bits); that is besides the
// rounding of activations to int8.
//
// Layout per 32 activations: [run][half][j][16] bytes, as above without the high parts.
#pragma once

#include <cmath>
#include <cstdint>

#include "kernel.h"

namespace bitloom {

constexpr int64_t table_bytes(int32_t bits) { return 256 * bits; }  // of the tables of 32 activations
constexpr int64_t fast_table_bytes(int32_t bits) { return 128 * bits; }
constexpr int32_t kTableHigh = 32;  // what the high part counts

// The first activation of a table, and the distance to the next ones.
constexpr int64_t table_first(int32_t bits, int64_t run, int64_t half, int64_t j) {
  return 16 * half + (bits == 1 ? 0 : 4 * run) + j;
}
constexpr int64_t table_step(int32_t bits) { return 4 * bits; }

// What the sum of a group begins with. Unsigned: a foreign buffer of prepared activations may hold any
// number.
inline int32_t lut_start(const PanelFormat& f, const Activations& a, int64_t group) {
  const uint32_t largest = ((1u << f.bits) - 1) << f.shift;
  return static_cast<int32_t>(static_cast<uint32_t>(a.starts[group]) -
                              largest * static_cast<uint32_t>(a.negatives[group]));
}

// What an entry of tables of bytes counts, for `count` groups of 32 with the scales and largest entries
// given, and m of each, negative where the scale is.
inline float fast_table_scale(const float* scales, const int32_t* largest, int64_t count, int32_t* m) {
  float step = 0;
  bool nan = false;
  for (int64_t i = 0; i < count; ++i) {
    const float entry =
        std::fabs(scales[i]) * (largest[i] < 64 ? 0.25f : static_cast<float>(largest[i]) * (1.0f / 255));
    nan |= std::isnan(entry);
    step = entry > step ? entry : step;
  }
  const bool usable = step > 0 && step <= 3.4028234e38f && !nan;
  for (int64_t i = 0; i < count; ++i) {
    m[i] = usable ? static_cast<int32_t>(std::nearbyint(scales[i] / step * 4096)) : 0;
  }
  return nan ? NAN : step;
}

// table_starts and table_moments of row m of a, which has all that belongs to dequant and lut.
void set_table_starts(const PanelFormat& f, const Activations& a, int64_t m, float* starts, float* moments);

}  // namespace bitloom
