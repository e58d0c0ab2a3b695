// attention at level avx512: core.inl with vectors of 16.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"

// In this order, hence apart: a formatter sorts what stands together.
#include "avx512_units.inl"

#include "units.inl"

#include "rows.inl"

#include "core.inl"

#include "core_f32.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
