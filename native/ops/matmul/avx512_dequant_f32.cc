// matmul in f32 at level avx512: f32_kernel.inl over sixteen lanes, a panel a vector.
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

#include "../../isa/simd_avx512.inl"
#include "avx512_scales.inl"
#include "avx512_decode.inl"

namespace {
// Rows of a in registers, times two vectors of weights: 24 of 32 registers are sums.
constexpr int kBlockRows = 12;
}  // namespace

#include "f32_kernel.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
