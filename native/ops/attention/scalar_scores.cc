// Sums over the weights of attention: the specification.
#include <cmath>

#include "scores.h"

namespace bitloom::scalar {

void add_weights(const float* weights, int64_t count, double* sums, double* squares, double* logs) {
  for (int64_t s = 0; s < count; ++s) {
    const double p = static_cast<double>(weights[s]);
    sums[s] += p;
    squares[s] += p * p;
    if (logs != nullptr && p != 0) logs[s] += p * std::log(p);
  }
}

}  // namespace bitloom::scalar
