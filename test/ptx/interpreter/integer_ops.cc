// Integer arithmetic: PTX ISA "Integer Arithmetic Instructions" and "Extended-Precision Integer Arithmetic".
#include <algorithm>
#include <limits>
#include <type_traits>

#include "by_type.h"

namespace bitloom::ptx {
namespace {

template <typename T>
using Unsigned = std::make_unsigned_t<T>;

template <typename T>
T op_add(T x, T y) {
  return static_cast<T>(static_cast<Unsigned<T>>(x) + static_cast<Unsigned<T>>(y));
}
template <typename T>
T op_sub(T x, T y) {
  return static_cast<T>(static_cast<Unsigned<T>>(x) - static_cast<Unsigned<T>>(y));
}
template <typename T>
T op_mul_lo(T x, T y) {
  return static_cast<T>(static_cast<uint64_t>(x) * static_cast<uint64_t>(y));
}
template <typename T>
T op_mul_hi(T x, T y) {
  using Wide = std::conditional_t<std::is_signed_v<T>, __int128, unsigned __int128>;
  return static_cast<T>(static_cast<Wide>(x) * static_cast<Wide>(y) >> (8 * sizeof(T)));
}
template <typename T>
T op_mad_lo(T x, T y, T z) {
  return op_add(op_mul_lo(x, y), z);
}
template <typename T>
T op_mad_hi(T x, T y, T z) {
  return op_add(op_mul_hi(x, y), z);
}
template <typename T, typename W>
W op_mul_wide(T x, T y) {
  return static_cast<W>(x) * static_cast<W>(y);
}
template <typename T, typename W>
W op_mad_wide(T x, T y, W z) {
  return op_add<W>(static_cast<W>(x) * static_cast<W>(y), z);
}
// Division by zero gives an unspecified value: here all ones. The most negative by -1 wraps.
template <typename T>
T op_div(T x, T y) {
  if (y == 0) return static_cast<T>(-1);
  if (std::is_signed_v<T> && y == static_cast<T>(-1)) return op_sub<T>(0, x);
  return static_cast<T>(x / y);
}
template <typename T>
T op_rem(T x, T y) {
  if (y == 0) return x;
  if (std::is_signed_v<T> && y == static_cast<T>(-1)) return 0;
  return static_cast<T>(x % y);
}
template <typename T>
T op_min(T x, T y) {
  return std::min(x, y);
}
template <typename T>
T op_max(T x, T y) {
  return std::max(x, y);
}
template <typename T>
T op_abs(T x) {
  return x < 0 ? op_sub<T>(0, x) : x;
}
template <typename T>
T op_neg(T x) {
  return op_sub<T>(0, x);
}
template <typename T>
T op_sad(T x, T y, T z) {
  return op_add<T>(z, x < y ? op_sub(y, x) : op_sub(x, y));
}

int32_t saturate(int64_t value) {
  return static_cast<int32_t>(
      std::clamp<int64_t>(value, std::numeric_limits<int32_t>::min(), std::numeric_limits<int32_t>::max()));
}
int32_t add_sat(int32_t x, int32_t y) { return saturate(int64_t{x} + y); }
int32_t sub_sat(int32_t x, int32_t y) { return saturate(int64_t{x} - y); }
int32_t mad_hi_sat(int32_t x, int32_t y, int32_t z) { return saturate((int64_t{x} * y >> 32) + z); }

template <typename T>
T packed_lanes(T x, T y, bool smaller, bool is_signed) {
  T result = 0;
  for (int half = 0; half < 2; ++half) {
    const uint32_t a = x >> (16 * half) & 0xffff, b = y >> (16 * half) & 0xffff;
    const bool less = is_signed ? static_cast<int16_t>(a) < static_cast<int16_t>(b) : a < b;
    result |= (less == smaller ? a : b) << (16 * half);
  }
  return result;
}

// x + y + carry, x - y - borrow, or low or high half of x * y, + z + carry. T unsigned.
enum CarryOp : uint8_t { carry_add, carry_sub, carry_mad_lo, carry_mad_hi };
template <typename T>
void run_carry_of(Warp& warp, const Instr& in) {
  T* d = row<T>(warp, in.slots[0]);
  const T* x = row<T>(warp, in.slots[1]);
  const T* y = row<T>(warp, in.slots[2]);
  const T* z = in.slot_count > 3 ? row<T>(warp, in.slots[3]) : nullptr;
  const bool takes = in.b, leaves = in.c;
  each_lane(warp.active, [&](uint32_t lane) {
    const T in_carry = takes ? warp.carry >> lane & 1 : 0;
    T left = x[lane], right = y[lane], sum;
    if (in.a == carry_mad_lo || in.a == carry_mad_hi) {
      left = in.a == carry_mad_lo ? op_mul_lo(x[lane], y[lane]) : op_mul_hi(x[lane], y[lane]);
      right = z[lane];
    }
    bool out;
    if (in.a == carry_sub) {
      sum = static_cast<T>(left - right - in_carry);
      out = left < right || (in_carry && left == right);
    } else {
      sum = static_cast<T>(left + right + in_carry);
      out = sum < left || (in_carry && sum == left);
    }
    d[lane] = sum;
    if (leaves) warp.carry = (warp.carry & ~(1u << lane)) | (uint32_t{out} << lane);
  });
}

void bind_carry(Binder& b, CarryOp op, bool takes, bool leaves) {
  const Type type = b.type();
  if (type_class(type) != 'u' && type_class(type) != 's' && type_class(type) != 'b') b.fail("type");
  const uint32_t bytes = type_bytes(type);
  if (bytes != 4 && bytes != 8) b.fail("type");
  if ((op == carry_mad_hi) && type_class(type) == 's') b.fail("signed high half with carry");
  b.dest(b.operand(0), bytes);
  for (size_t i = 1; i < (op >= carry_mad_lo ? 4u : 3u); ++i) b.source(b.operand(i), bytes);
  b.instr.a = op;
  b.instr.b = takes;
  b.instr.c = leaves;
  b.instr.run = bytes == 4 ? run_carry_of<uint32_t> : run_carry_of<uint64_t>;
}

}  // namespace

void bind_add(Binder& b) {
  if (b.has("cc")) return bind_carry(b, carry_add, false, true);
  const Type type = b.type();
  if (bind_float_add(b, type)) return;
  if (b.has("sat")) return type == Type::s32 ? b.alu<add_sat>() : b.fail("type");
  if (type == Type::u16x2 || type == Type::s16x2) {
    return b.alu<[](uint32_t x, uint32_t y) {
      return ((x + y) & 0xffff) | ((x & 0xffff0000u) + (y & 0xffff0000u));
    }>();
  }
  BITLOOM_PTX_BY_INTEGER(type, op_add)
}

void bind_sub(Binder& b) {
  if (b.has("cc")) return bind_carry(b, carry_sub, false, true);
  const Type type = b.type();
  if (bind_float_sub(b, type)) return;
  if (b.has("sat")) return type == Type::s32 ? b.alu<sub_sat>() : b.fail("type");
  BITLOOM_PTX_BY_INTEGER(type, op_sub)
}

void bind_addc(Binder& b) { bind_carry(b, carry_add, true, b.has("cc")); }
void bind_subc(Binder& b) { bind_carry(b, carry_sub, true, b.has("cc")); }

void bind_mul(Binder& b) {
  const bool lo = b.has("lo"), hi = b.has("hi"), wide = b.has("wide");
  const Type type = b.type();
  if (bind_float_mul(b, type)) return;
  if (lo) BITLOOM_PTX_BY_INTEGER(type, op_mul_lo)
  if (hi) BITLOOM_PTX_BY_INTEGER(type, op_mul_hi)
  if (!wide) b.fail("mul without .lo, .hi or .wide");
  if (type == Type::u16) return b.alu<op_mul_wide<uint16_t, uint32_t>>();
  if (type == Type::s16) return b.alu<op_mul_wide<int16_t, int32_t>>();
  if (type == Type::u32) return b.alu<op_mul_wide<uint32_t, uint64_t>>();
  if (type == Type::s32) return b.alu<op_mul_wide<int32_t, int64_t>>();
  b.fail("type");
}

void bind_mad(Binder& b) {
  const bool lo = b.has("lo"), hi = b.has("hi"), wide = b.has("wide");
  if (b.has("cc")) return bind_carry(b, lo ? carry_mad_lo : carry_mad_hi, false, true);
  const Type type = b.type();
  if (bind_float_fma(b, type)) return;
  if (b.has("sat")) return hi && type == Type::s32 ? b.alu<mad_hi_sat>() : b.fail("type");
  if (lo) BITLOOM_PTX_BY_INTEGER(type, op_mad_lo)
  if (hi) BITLOOM_PTX_BY_INTEGER(type, op_mad_hi)
  if (!wide) b.fail("mad without .lo, .hi or .wide");
  if (type == Type::u16) return b.alu<op_mad_wide<uint16_t, uint32_t>>();
  if (type == Type::s16) return b.alu<op_mad_wide<int16_t, int32_t>>();
  if (type == Type::u32) return b.alu<op_mad_wide<uint32_t, uint64_t>>();
  if (type == Type::s32) return b.alu<op_mad_wide<int32_t, int64_t>>();
  b.fail("type");
}

void bind_madc(Binder& b) {
  const bool lo = b.has("lo");
  if (!lo && !b.has("hi")) b.fail("madc without .lo or .hi");
  bind_carry(b, lo ? carry_mad_lo : carry_mad_hi, true, b.has("cc"));
}

void bind_mul24(Binder& b) {
  const bool lo = b.has("lo");
  if (!lo && !b.has("hi")) b.fail("mul24 without .lo or .hi");
  const Type type = b.type();
  if (type == Type::u32) {
    return lo ? b.alu<[](uint32_t x, uint32_t y) { return (x & 0xffffff) * (y & 0xffffff); }>()
              : b.alu<[](uint32_t x, uint32_t y) {
                  return static_cast<uint32_t>(uint64_t{x & 0xffffff} * (y & 0xffffff) >> 16);
                }>();
  }
  if (type != Type::s32) b.fail("type");
  return lo ? b.alu<[](int32_t x, int32_t y) {
    return static_cast<int32_t>(static_cast<uint32_t>(int64_t{x << 8 >> 8} * (y << 8 >> 8)));
  }>()
            : b.alu<[](int32_t x, int32_t y) {
                return static_cast<int32_t>(int64_t{x << 8 >> 8} * (y << 8 >> 8) >> 16);
              }>();
}

void bind_mad24(Binder& b) {
  if (!b.has("lo")) b.fail("mad24 without .lo");
  const Type type = b.type();
  if (type == Type::u32) {
    return b.alu<[](uint32_t x, uint32_t y, uint32_t z) { return (x & 0xffffff) * (y & 0xffffff) + z; }>();
  }
  if (type != Type::s32) b.fail("type");
  return b.alu<[](int32_t x, int32_t y, int32_t z) {
    return static_cast<int32_t>(static_cast<uint32_t>(int64_t{x << 8 >> 8} * (y << 8 >> 8)) +
                                static_cast<uint32_t>(z));
  }>();
}

void bind_sad(Binder& b) { BITLOOM_PTX_BY_INTEGER(b.type(), op_sad) }

void bind_div(Binder& b) {
  const Type type = b.type();
  if (bind_float_div(b, type)) return;
  BITLOOM_PTX_BY_INTEGER(type, op_div)
}

void bind_rem(Binder& b) { BITLOOM_PTX_BY_INTEGER(b.type(), op_rem) }

void bind_abs(Binder& b) {
  const Type type = b.type();
  if (bind_float_abs(b, type)) return;
  if (type_class(type) != 's') b.fail("type");
  BITLOOM_PTX_BY_INTEGER(type, op_abs)
}

void bind_neg(Binder& b) {
  const Type type = b.type();
  if (bind_float_neg(b, type)) return;
  if (type_class(type) != 's') b.fail("type");
  BITLOOM_PTX_BY_INTEGER(type, op_neg)
}

void bind_min(Binder& b) {
  const Type type = b.type();
  if (bind_float_min(b, type)) return;
  if (type == Type::u16x2)
    return b.alu<[](uint32_t x, uint32_t y) { return packed_lanes(x, y, true, false); }>();
  if (type == Type::s16x2)
    return b.alu<[](uint32_t x, uint32_t y) { return packed_lanes(x, y, true, true); }>();
  BITLOOM_PTX_BY_INTEGER(type, op_min)
}

void bind_max(Binder& b) {
  const Type type = b.type();
  if (bind_float_max(b, type)) return;
  if (type == Type::u16x2)
    return b.alu<[](uint32_t x, uint32_t y) { return packed_lanes(x, y, false, false); }>();
  if (type == Type::s16x2)
    return b.alu<[](uint32_t x, uint32_t y) { return packed_lanes(x, y, false, true); }>();
  if (b.has("relu")) {
    if (type != Type::s32) b.fail("type");
    return b.alu<[](int32_t x, int32_t y) { return std::max(std::max(x, y), 0); }>();
  }
  BITLOOM_PTX_BY_INTEGER(type, op_max)
}

}  // namespace bitloom::ptx
