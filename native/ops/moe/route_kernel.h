// The contract of the router's kernels: what a token's logits become.
#pragma once

#include <cstdint>

namespace bitloom {

// Logits of a token stand in memory padded to a whole number of these, with -infinity.
constexpr int64_t kRouteLanes = 8;

enum class RouteScore { softmax, sigmoid };

// score[e] for e in [0, count), count a multiple of kRouteLanes, of logits without NaN and +infinity:
//
//   softmax: exp(z[e] - largest); returns the sum, taken in kRouteLanes sums, lane e % kRouteLanes each,
//            added as ((0 + 4) + (2 + 6)) + ((1 + 5) + (3 + 7))
//   sigmoid: 1 / (1 + exp(-z)), for z < 0 as exp(z) / (1 + exp(z)); returns 0; largest is not read
//
// in double. exp(x), x <= 0, is 0 below -708, where it ends to be a normal number. Every level does the
// same operations in the same order and gives the same bits. Pure: no allocation, threads or errors.
using RouteKernel = double (*)(const float* logits, int64_t count, float largest, double* score);

// exp(x) = 2^n exp(r), x = n ln 2 + r, |r| <= ln 2 / 2. ln 2 in two parts, the first with 32 bits, so that
// n times it is exact (n has 11). exp(r) is its Taylor polynomial of degree 13, whose remainder is
// 0.3466^14 / 14! = 4e-18 < 2^-57. Largest relative error found, over 2 million x: 0.8 * 2^-52.
namespace route_exp {
constexpr double kLeast = -708;
constexpr double kLog2e = 1.4426950408889634;
constexpr double kLn2High = 6.93147180369123816490e-01;
constexpr double kLn2Low = 1.90821492927058770002e-10;
// Added and taken away it rounds to a whole number, which stands in the low bits between the two.
constexpr double kRounder = 6755399441055744.0;  // 1.5 * 2^52
constexpr double kTaylor[] = {1.0 / 6227020800.0,
                              1.0 / 479001600.0,
                              1.0 / 39916800.0,
                              1.0 / 3628800.0,
                              1.0 / 362880.0,
                              1.0 / 40320.0,
                              1.0 / 5040.0,
                              1.0 / 720.0,
                              1.0 / 120.0,
                              1.0 / 24.0,
                              1.0 / 6.0,
                              0.5,
                              1.0,
                              1.0};
}  // namespace route_exp

#define BL_ROUTE_KERNEL(op, isa)                                                     \
  namespace isa {                                                                    \
  double op##_f64(const float* logits, int64_t count, float largest, double* score); \
  }
#include "route_kernels.inc"
#undef BL_ROUTE_KERNEL

}  // namespace bitloom
