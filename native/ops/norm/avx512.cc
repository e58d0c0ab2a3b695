// The kernels of kernels.inl at level avx512.
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

// clang-format off: the order of these is their meaning
#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"
#include "kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __x86_64__
