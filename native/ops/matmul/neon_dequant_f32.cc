// matmul in f32 at level neon: f32_kernel.inl over eight lanes in two registers, half a panel a vector.
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

#include "../../isa/simd_neon.inl"
#include "neon_decode.inl"

namespace {
// Rows of a in registers, times two vectors of weights: 24 of 32 registers are sums, 4 weights.
constexpr int kBlockRows = 6;
}  // namespace

#include "f32_kernel.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
