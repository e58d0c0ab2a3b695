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
#pragma once

#include <cstdint>

#include "kernel.h"

namespace bitloom {

constexpr int64_t table_bytes(int32_t bits) { return 256 * bits; }  // of the tables of 32 activations
constexpr int32_t kTableHigh = 32;                                  // what the high part counts

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

}  // namespace bitloom
