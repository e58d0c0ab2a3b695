// Sine and cosine of an angle in f64, without the local memory that the CUDA library's keep for huge angles. Error below
// 2^-52 of the result and 2^-53 more of the angle's rest.
#pragma once

#include <cstdint>

namespace bitloom::cuda {

// 64 zeros, then the bits of 2 / pi after its point: enough for the largest angle of f64.
__constant__ const uint64_t kTwoOverPi[20] = {
    0,
    0xa2f9836e4e441529, 0xfc2757d1f534ddc0, 0xdb6295993c439041, 0xfe5163abdebbc561, 0xb7246e3a424dd2e0,
    0x06492eea09d1921c, 0xfe1deb1cb129a73e, 0xe88235f52ebb4484, 0xe99c7026b45f7e41, 0x3991d639835339f4,
    0x9c845f8bbdf9283b, 0x1ff897ffde05980f, 0xef2f118b5a0a6d1f, 0x6d367ecf27cb09b7, 0x4f463f669e5fea2d,
    0x7527bac7ebe5f17b, 0x3d0739f78a5292ea, 0x6bfb5fb11f8d5d08, 0x56033046fc7b6bab};

// angle = quarter * pi / 2 + rest, |rest| at most pi / 4 and a little; quarter modulo 4.
struct ReducedAngle {
  double rest;
  int quarter;
};

// angle of 2^31 or more (Payne and Hanek): of its 53 bits times those of 2 / pi, whole turns don't matter, and neither does
// what lies below 2^-126 quarters.
__device__ __forceinline__ ReducedAngle reduce_huge(double angle) {
  const uint64_t bits = static_cast<uint64_t>(__double_as_longlong(angle));
  const uint64_t mantissa = (bits & 0xfffffffffffff) | 0x10000000000000;
  const int biased = static_cast<int>(bits >> 52 & 0x7ff);
  if (biased == 0x7ff) return {angle - angle, 0};  // NaN
  // angle = mantissa * 2^e, e = biased - 1075. Bit p of 2 / pi, worth 2^(-1 - p), makes e - 1 - p quarters' power of two:
  // turns for p < e - 2. With the zeros in front that is bit e + 62 of the table.
  const int first = biased - 1013, word = first >> 6, shift = first & 63;
  const auto part = [&](int i) {
    return kTwoOverPi[word + i] << shift | (kTwoOverPi[word + i + 1] >> 1) >> (63 - shift);
  };
  // 192 bits of quarters, worth 2^-190: two bits before the point. The lowest 64 are not needed.
  const uint64_t middle = part(1), below = __umul64hi(part(2), mantissa), sum = middle * mantissa + below;
  const uint64_t top = part(0) * mantissa + __umul64hi(middle, mantissa) + (sum < below ? 1 : 0);
  // To the nearest quarter: what is behind the point as a number with a sign.
  const int64_t high = static_cast<int64_t>(top << 2 | sum >> 62);
  const int quarter = static_cast<int>(top >> 62) + (high < 0 ? 1 : 0);
  const double rest = (static_cast<double>(high) * 0x1p-64 + static_cast<double>(sum << 2) * 0x1p-128) * 1.5707963267948966;
  return angle < 0 ? ReducedAngle{-rest, -quarter} : ReducedAngle{rest, quarter};
}

__device__ __forceinline__ ReducedAngle reduce(double angle) {
  if (!(fabs(angle) < 0x1p31)) return reduce_huge(angle);
  // pi / 2 in three parts of 53 bits: the first difference is exact.
  const double quarters = rint(angle * 0.63661977236758134);
  double rest = fma(-quarters, 0x1.921fb54442d18p+0, angle);
  rest = fma(-quarters, 0x1.1a62633145c07p-54, rest);
  rest = fma(-quarters, -0x1.f1976b7ed8fbcp-110, rest);
  return {rest, static_cast<int>(quarters)};
}

__device__ __forceinline__ void sine_and_cosine(double angle, double* sine, double* cosine) {
  const ReducedAngle reduced = reduce(angle);
  const double x = reduced.rest, square = x * x;
  // Taylor series to x^19 and x^18: what follows is below 2^-67.
  double s = -1.0 / 121645100408832000.0, c = -1.0 / 6402373705728000.0;
  s = fma(s, square, 1.0 / 355687428096000.0), c = fma(c, square, 1.0 / 20922789888000.0);
  s = fma(s, square, -1.0 / 1307674368000.0), c = fma(c, square, -1.0 / 87178291200.0);
  s = fma(s, square, 1.0 / 6227020800.0), c = fma(c, square, 1.0 / 479001600.0);
  s = fma(s, square, -1.0 / 39916800.0), c = fma(c, square, -1.0 / 3628800.0);
  s = fma(s, square, 1.0 / 362880.0), c = fma(c, square, 1.0 / 40320.0);
  s = fma(s, square, -1.0 / 5040.0), c = fma(c, square, -1.0 / 720.0);
  s = fma(s, square, 1.0 / 120.0), c = fma(c, square, 1.0 / 24.0);
  s = fma(s, square, -1.0 / 6.0);
  const double half = 0.5 * square, near = 1.0 - half;
  s = fma(x * square, s, x);
  c = near + fma(square * square, c, (1.0 - near) - half);  // with what rounding `near` lost
  const bool swaps = (reduced.quarter & 1) != 0;
  const double first = swaps ? c : s, second = swaps ? s : c;
  *sine = (reduced.quarter & 2) != 0 ? -first : first;
  *cosine = ((reduced.quarter + 1) & 2) != 0 ? -second : second;
}

}  // namespace bitloom::cuda
