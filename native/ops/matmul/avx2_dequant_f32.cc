// matmul in f32 at level avx2: f32_kernel.inl over eight lanes, half a panel a vector.
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

#include "../../isa/simd_avx2.inl"
#include "avx2_scales.inl"
#include "avx2_decode.inl"

namespace {
// Rows of a in registers, times two vectors of weights: 12 of 16 registers are sums.
constexpr int kBlockRows = 6;
}  // namespace

#include "f32_kernel.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
