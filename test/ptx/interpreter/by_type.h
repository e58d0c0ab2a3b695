// Chooses the instantiation of a function template for a PTX type, inside a bind function with Binder `b`.
#pragma once

#include "binder.h"

// op<T> for each integer type of 16, 32 and 64 bits; bits count as unsigned.
#define BITLOOM_PTX_BY_INTEGER(type, op) \
  switch (type) {                        \
    case Type::b16:                      \
    case Type::u16:                      \
      return b.alu<op<uint16_t>>();      \
    case Type::s16:                      \
      return b.alu<op<int16_t>>();       \
    case Type::b32:                      \
    case Type::u32:                      \
      return b.alu<op<uint32_t>>();      \
    case Type::s32:                      \
      return b.alu<op<int32_t>>();       \
    case Type::b64:                      \
    case Type::u64:                      \
      return b.alu<op<uint64_t>>();      \
    case Type::s64:                      \
      return b.alu<op<int64_t>>();       \
    default:                             \
      b.fail("type");                    \
  }

namespace bitloom::ptx {

// The floating-point branch of opcodes that also have an integer one (float_ops.cc). False: no floating type.
bool bind_float_add(Binder& b, Type type);
bool bind_float_sub(Binder& b, Type type);
bool bind_float_mul(Binder& b, Type type);
bool bind_float_fma(Binder& b, Type type);
bool bind_float_div(Binder& b, Type type);
bool bind_float_abs(Binder& b, Type type);
bool bind_float_neg(Binder& b, Type type);
bool bind_float_min(Binder& b, Type type);
bool bind_float_max(Binder& b, Type type);

}  // namespace bitloom::ptx
