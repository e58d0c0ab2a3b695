// The counter-based generator behind `sample`.
#pragma once

#include <cstdint>

namespace bitloom {

// Output number `position` (from 0) of SplitMix64 (Steele, Lea and Flood 2014) started at `seed`, by
// direct computation: its state is a counter, so any position is reached at once.
//   z = seed + (position + 1) * 0x9e3779b97f4a7c15
//   z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9
//   z = (z ^ z >> 27) * 0x94d049bb133111eb
//   z ^ z >> 31                                  all modulo 2^64
constexpr uint64_t splitmix64(uint64_t seed, uint64_t position) {
  uint64_t z = seed + (position + 1) * 0x9e3779b97f4a7c15u;
  z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
  z = (z ^ z >> 27) * 0x94d049bb133111ebu;
  return z ^ z >> 31;
}

// The top 53 bits as a number in [0, 1).
constexpr double uniform_draw(uint64_t seed, uint64_t position) {
  return static_cast<double>(splitmix64(seed, position) >> 11) * 0x1p-53;
}

}  // namespace bitloom
