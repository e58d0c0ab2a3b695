// linear_attention at level neon: recurrence.inl and chunk.inl with vectors of 8 in two registers.
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "kernel.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"
#include "../../isa/simd_neon.inl"
#include "../../isa/simd_math.inl"
#include "../../isa/transpose_neon.inl"

namespace {

// 6 x 2 sums of two registers each, of 32, with 2 columns and a broadcast beside them.
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
#endif  // __aarch64__
