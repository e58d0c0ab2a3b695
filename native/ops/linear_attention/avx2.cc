// linear_attention at level avx2: recurrence.inl and chunk.inl with vectors of 8.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "../../isa/simd_math.inl"
#include "../../isa/transpose_avx2.inl"

namespace {

// 6 x 2 sums of the 16 registers, with 2 columns and a broadcast beside them.
constexpr int kRows = 6;
constexpr int kVecs = 2;
// Columns of a recurrence step: 4 sums and 4 updates.
constexpr int kStepVecs = 4;

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "work.inl"

#include "recurrence.inl"

#include "inputs.inl"

#include "chunk.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
