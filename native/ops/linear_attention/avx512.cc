// linear_attention at level avx512: recurrence.inl and chunk.inl with vectors of 16.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "../../isa/simd_math.inl"
#include "../../isa/transpose_avx512.inl"

namespace {

// 8 x 2 sums of the 32 registers: 16 chains of multiply-adds, more than 2 ports x 4 cycles need, and 10 loads
// for 16.
constexpr int kRows = 8;
constexpr int kVecs = 2;
// Columns of a recurrence step: 8 sums and 8 updates.
constexpr int kStepVecs = 8;

}  // namespace

// In this order, hence apart: a formatter sorts what stands together.
#include "work.inl"

#include "recurrence.inl"

#include "inputs.inl"

#include "chunk.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
