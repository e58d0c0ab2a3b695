// Arithmetic of f16, bf16 and their pairs (half_ops.cc).
#pragma once

#include "binder.h"

namespace bitloom::ptx {

enum class HalfOp : uint8_t { add, sub, mul, fma, abs, neg, min, max, ex2, tanh };

// False if type is none of f16, f16x2, bf16, bf16x2.
bool bind_half(Binder& b, Type type, HalfOp op);

// Of min and max: a NaN loses against a number unless `nan` asks for it; -0 is below +0.
float float_min(float x, float y, bool nan);
float float_max(float x, float y, bool nan);

}  // namespace bitloom::ptx
