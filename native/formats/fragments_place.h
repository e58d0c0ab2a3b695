// Where a code stands among the words that a lane of a warp reads: shared by the packer and by device code.
//
// A unit is 16 rows of b by 64 weights. Its element (row r, weight k) belongs to lane 4 * (r % 8) + t of the
// warp, where k = 32 h + 8 t + 4 u + 2 v + e:
//
//   step j = 2 h + u (0 to 3)   the mma.m16n8k16 that takes it: its 16 columns are those 4 of each t
//   pair i = 2 (r / 8) + v      register r / 8 + 2 v of the mma's first operand, 16 rows of b
//   e                           low or high half of that register
//
// So a lane has 32 codes: 4 steps of 4 pairs. The 8 weights of a lane in one half h of the unit are
// consecutive: lanes t = 0 to 3 then read 16 consecutive bytes of f16 activations each, and 32 weights are an
// m16n8k32 of int8.
#pragma once

#include <cstdint>

#if defined(__CUDACC__)
#define BL_HOST_DEVICE __host__ __device__
#else
#define BL_HOST_DEVICE
#endif

namespace bitloom {

constexpr int kUnitRows = 16;
constexpr int kUnitDepth = 64;  // weights of a row
constexpr int kLaneCodes = 32;  // of a unit

// Codes of `bits` bits are cut into planes of 8, 4, 2 and 1 bits, low bits first; the first is the widest.
BL_HOST_DEVICE constexpr int widest_plane(int bits) {
  return bits >= 8 ? 8 : bits >= 4 ? 4 : bits >= 2 ? 2 : 1;
}

// A pair in a plane of `plane` bits: bits [bit, bit + plane) of word `word` of the lane's for its low half,
// 16 bits on for its high half.
struct PairPlace {
  int word;
  int bit;
};

// `first`: bits of the format's widest plane (that of this one, if it is the widest).
//  - The widest plane: pairs from bit 0 on, in steps of its width, so that masks and one shift by 8 find
//  them.
//  - Others: such that one shift brings the pairs of a step (two pairs, beside 4 bits) above the codes that
//  the widest
//    plane has there.
BL_HOST_DEVICE constexpr PairPlace pair_place(int plane, int first, int step, int pair) {
  if (plane == 8) return {2 * step + pair / 2, 8 * (pair % 2)};
  if (plane == 4) return {step, 4 * pair};
  const int per_word = 4 / plane;  // steps in a word
  const int word = step / per_word, in_word = step % per_word;
  if (plane == first) return {word, 4 * plane * in_word + plane * pair};
  if (first == 2) return {word, (step & 1) + 8 * (step >> 1) + 2 * pair};
  const int set = 2 * in_word + pair / 2;  // of two pairs, four bits apart
  return {word, plane * (set % (4 / plane)) + 8 * (set / (4 / plane)) + 4 * (pair % 2)};
}

// Codes that index tables stand two by two, so that a pair's codes are one number: the pair takes bits [bit,
// bit + 2 * plane), the low half's code first.
BL_HOST_DEVICE constexpr PairPlace table_pair_place(int plane, int step, int pair) {
  if (plane == 8) return {2 * step + pair / 2, 16 * (pair % 2)};
  const int per_word = 4 / plane;
  return {step / per_word, 8 * plane * (step % per_word) + 2 * plane * pair};
}

// Word `word` of lane `lane` in a plane of a unit, in words: planes are read 16 bytes a lane at a time, or
// all of the lane's 4 or 8 bytes.
BL_HOST_DEVICE constexpr int plane_word(int plane, int lane, int word) {
  const int together = plane < 4 ? plane : 4;  // words of a lane in a row
  return word / together * 32 * together + lane * together + word % together;
}

}  // namespace bitloom
