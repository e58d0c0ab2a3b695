// The kernels of kernels.inl at level neon.
#include <cmath>
#include <cstdint>
#include <limits>

#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

// clang-format off: the order of these is their meaning
#include "../../isa/neon_begin.h"
#include "../../isa/simd_neon.inl"
#include "../../isa/simd_math.inl"
#include "kernels.inl"
#include "../../isa/end.h"
// clang-format on
#endif  // __aarch64__
