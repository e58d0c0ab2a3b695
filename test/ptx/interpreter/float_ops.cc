// f32 and f64 arithmetic: PTX ISA "Floating Point Instructions". Results are correctly rounded; the .approx
// forms are computed in double and rounded, so hardware differs from them by the few ulp that the ISA allows.
#include <cfenv>
#include <cmath>

#include "by_type.h"
#include "formats.h"
#include "half_ops.h"

namespace bitloom::ptx {
namespace {

template <bool Ftz>
float in32(float x) {
  return Ftz ? flush(x) : x;
}
template <bool Ftz, bool Sat>
float out32(float x) {
  if (Sat) x = x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f;  // NaN becomes 0
  return Ftz ? flush(x) : x;
}
template <bool Ftz, bool Sat>
float f32_add(float x, float y) {
  return out32<Ftz, Sat>(in32<Ftz>(x) + in32<Ftz>(y));
}
template <bool Ftz, bool Sat>
float f32_sub(float x, float y) {
  return out32<Ftz, Sat>(in32<Ftz>(x) - in32<Ftz>(y));
}
template <bool Ftz, bool Sat>
float f32_mul(float x, float y) {
  return out32<Ftz, Sat>(in32<Ftz>(x) * in32<Ftz>(y));
}
// The product of two f32 is exact in double, and a sum rounded to odd there rounds right to f32. Unlike a
// call of fmaf, this needs no instruction set.
template <bool Ftz, bool Sat>
float f32_fma(float x, float y, float z) {
  const double product = static_cast<double>(in32<Ftz>(x)) * static_cast<double>(in32<Ftz>(y));
  return out32<Ftz, Sat>(static_cast<float>(add_to_odd(product, in32<Ftz>(z))));
}
template <bool Ftz, bool Sat>
float f32_div(float x, float y) {
  return out32<Ftz, Sat>(in32<Ftz>(x) / in32<Ftz>(y));
}

enum FloatOp : uint8_t { float_add, float_sub, float_mul, float_fma, float_div, float_sqrt, float_rcp };

// Directed rounding, through the host's rounding mode. Slow and rare.
template <typename T>
void run_directed(Warp& warp, const Instr& in) {
  static constexpr int modes[] = {FE_TONEAREST, FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};
  T* d = row<T>(warp, in.slots[0]);
  const T* rows[3] = {};
  for (uint32_t i = 1; i < in.slot_count; ++i) rows[i - 1] = row<T>(warp, in.slots[i]);
  const bool ftz = in.c & 1, sat = in.c & 2;
  const int before = std::fegetround();
  std::fesetround(modes[in.b]);
  each_lane(warp.active, [&](uint32_t lane) {
    volatile T x = rows[0][lane], y = rows[1] ? rows[1][lane] : T{0}, z = rows[2] ? rows[2][lane] : T{0};
    if constexpr (sizeof(T) == 4) {
      if (ftz) {
        x = flush(x);
        y = flush(y);
        z = flush(z);
      }
    }
    volatile T result = 0;
    switch (in.a) {
      case float_add:
        result = x + y;
        break;
      case float_sub:
        result = x - y;
        break;
      case float_mul:
        result = x * y;
        break;
      case float_fma:
        result = std::fma(T{x}, T{y}, T{z});
        break;
      case float_div:
        result = x / y;
        break;
      case float_sqrt:
        result = std::sqrt(T{x});
        break;
      case float_rcp:
        result = T{1} / x;
        break;
      default:
        break;
    }
    T value = result;
    if (sat) value = value > 0 ? (value < 1 ? value : T{1}) : T{0};
    if constexpr (sizeof(T) == 4) {
      if (ftz) value = flush(value);
    }
    d[lane] = value;
  });
  std::fesetround(before);
}

Rounding take_rounding(Binder& b) {
  if (b.has("rz")) return Rounding::zero;
  if (b.has("rm")) return Rounding::down;
  if (b.has("rp")) return Rounding::up;
  b.has("rn");
  return Rounding::nearest_even;
}

// True if the instruction rounds in a direction, and is bound.
bool bind_directed(Binder& b, Type type, FloatOp op, size_t sources, Rounding rounding, bool ftz, bool sat) {
  if (rounding == Rounding::nearest_even) return false;
  const uint32_t bytes = type_bytes(type);
  b.dest(b.operand(0), bytes);
  for (size_t i = 1; i <= sources; ++i) b.source(b.operand(i), bytes, true);
  b.instr.a = op;
  b.instr.b = static_cast<uint8_t>(rounding);
  b.instr.c = static_cast<uint8_t>((ftz ? 1 : 0) | (sat ? 2 : 0));
  b.instr.run = bytes == 4 ? run_directed<float> : run_directed<double>;
  return true;
}

#define BITLOOM_PTX_FTZ_SAT(op)                                     \
  (ftz ? (sat ? b.alu<op<true, true>>() : b.alu<op<true, false>>()) \
       : (sat ? b.alu<op<false, true>>() : b.alu<op<false, false>>()))

#define BITLOOM_PTX_FLOAT_BINARY(function, half, op, single, f64_expression)           \
  bool function(Binder& b, Type type) {                                                \
    if (bind_half(b, type, half)) return true;                                         \
    if (type != Type::f32 && type != Type::f64) return false;                          \
    const Rounding rounding = take_rounding(b);                                        \
    const bool ftz = b.has("ftz"), sat = b.has("sat");                                 \
    if (bind_directed(b, type, op, 2, rounding, ftz, sat)) return true;                \
    if (type == Type::f32) BITLOOM_PTX_FTZ_SAT(single);                                \
    if (type == Type::f64) b.alu<[](double x, double y) { return f64_expression; }>(); \
    return true;                                                                       \
  }

template <bool Minimum, bool Ftz, bool Nan>
float f32_select(float x, float y) {
  return Minimum ? float_min(in32<Ftz>(x), in32<Ftz>(y), Nan) : float_max(in32<Ftz>(x), in32<Ftz>(y), Nan);
}
template <bool Minimum, bool Ftz, bool Nan>
float f32_select3(float x, float y, float z) {
  return f32_select<Minimum, Ftz, Nan>(f32_select<Minimum, Ftz, Nan>(x, y), z);
}
template <bool Minimum>
double f64_select(double x, double y) {
  if (std::isnan(x)) return y;
  if (std::isnan(y)) return x;
  if (x == y) return std::signbit(x) == Minimum ? x : y;
  return (x < y) == Minimum ? x : y;
}

template <bool Minimum>
bool bind_select(Binder& b, Type type) {
  if (bind_half(b, type, Minimum ? HalfOp::min : HalfOp::max)) return true;
  if (type == Type::f64) return b.alu<f64_select<Minimum>>(), true;
  if (type != Type::f32) return false;
  const bool ftz = b.has("ftz"), nan = b.has("NaN"), three = b.count() == 4;
  if (ftz && nan)
    three ? b.alu<f32_select3<Minimum, true, true>>() : b.alu<f32_select<Minimum, true, true>>();
  if (ftz && !nan)
    three ? b.alu<f32_select3<Minimum, true, false>>() : b.alu<f32_select<Minimum, true, false>>();
  if (!ftz && nan)
    three ? b.alu<f32_select3<Minimum, false, true>>() : b.alu<f32_select<Minimum, false, true>>();
  if (!ftz && !nan)
    three ? b.alu<f32_select3<Minimum, false, false>>() : b.alu<f32_select<Minimum, false, false>>();
  return true;
}

}  // namespace

BITLOOM_PTX_FLOAT_BINARY(bind_float_add, HalfOp::add, float_add, f32_add, x + y)
BITLOOM_PTX_FLOAT_BINARY(bind_float_sub, HalfOp::sub, float_sub, f32_sub, x - y)
BITLOOM_PTX_FLOAT_BINARY(bind_float_mul, HalfOp::mul, float_mul, f32_mul, x* y)

bool bind_float_fma(Binder& b, Type type) {
  if (bind_half(b, type, HalfOp::fma)) return true;
  if (type != Type::f32 && type != Type::f64) return false;
  const Rounding rounding = take_rounding(b);
  const bool ftz = b.has("ftz"), sat = b.has("sat");
  if (bind_directed(b, type, float_fma, 3, rounding, ftz, sat)) return true;
  if (type == Type::f32) BITLOOM_PTX_FTZ_SAT(f32_fma);
  if (type == Type::f64) b.alu<[](double x, double y, double z) { return std::fma(x, y, z); }>();
  return true;
}

void bind_fma(Binder& b) {
  if (!bind_float_fma(b, b.type())) b.fail("type");
}

bool bind_float_div(Binder& b, Type type) {
  if (type != Type::f32 && type != Type::f64) return false;
  const bool sat = false;
  if (b.has("approx") || b.has("full")) {
    const bool ftz = b.has("ftz");
    BITLOOM_PTX_FTZ_SAT(f32_div);
    return true;
  }
  const Rounding rounding = take_rounding(b);
  const bool ftz = b.has("ftz");
  if (bind_directed(b, type, float_div, 2, rounding, ftz, sat)) return true;
  if (type == Type::f32) BITLOOM_PTX_FTZ_SAT(f32_div);
  if (type == Type::f64) b.alu<[](double x, double y) { return x / y; }>();
  return true;
}

bool bind_float_abs(Binder& b, Type type) {
  if (bind_half(b, type, HalfOp::abs)) return true;
  if (type == Type::f64) return b.alu<[](double x) { return std::fabs(x); }>(), true;
  if (type != Type::f32) return false;
  b.has("ftz") ? b.alu<[](float x) { return std::fabs(flush(x)); }>()
               : b.alu<[](float x) { return std::fabs(x); }>();
  return true;
}

bool bind_float_neg(Binder& b, Type type) {
  if (bind_half(b, type, HalfOp::neg)) return true;
  if (type == Type::f64) return b.alu<[](double x) { return -x; }>(), true;
  if (type != Type::f32) return false;
  b.has("ftz") ? b.alu<[](float x) { return -flush(x); }>() : b.alu<[](float x) { return -x; }>();
  return true;
}

bool bind_float_min(Binder& b, Type type) { return bind_select<true>(b, type); }
bool bind_float_max(Binder& b, Type type) { return bind_select<false>(b, type); }

// One f32 or f64 source: correctly rounded forms with a direction, or .approx computed in double.
#define BITLOOM_PTX_ROOT(function, op, expression)                                \
  void function(Binder& b) {                                                      \
    const bool approx = b.has("approx");                                          \
    const Rounding rounding = approx ? Rounding::nearest_even : take_rounding(b); \
    const bool ftz = b.has("ftz");                                                \
    const Type type = b.type();                                                   \
    if (type != Type::f32 && type != Type::f64) b.fail("type");                   \
    if (bind_directed(b, type, op, 1, rounding, ftz, false)) return;              \
    if (type == Type::f64) return b.alu<[](double x) { return expression; }>();   \
    ftz ? b.alu<[](float v) {                                                     \
      const double x = flush(v);                                                  \
      return flush(static_cast<float>(expression));                               \
    }>()                                                                          \
        : b.alu<[](float v) {                                                     \
            const double x = v;                                                   \
            return static_cast<float>(expression);                                \
          }>();                                                                   \
  }
BITLOOM_PTX_ROOT(bind_sqrt, float_sqrt, std::sqrt(x))
BITLOOM_PTX_ROOT(bind_rcp, float_rcp, 1.0 / x)

#define BITLOOM_PTX_APPROX(function, expression)                                              \
  void function(Binder& b) {                                                                  \
    if (!b.has("approx")) b.fail("without .approx");                                          \
    const Type type = b.type();                                                               \
    if (std::string_view(#function) == "bind_ex2" && bind_half(b, type, HalfOp::ex2)) return; \
    const bool ftz = b.has("ftz");                                                            \
    if (type == Type::f64) return b.alu<[](double x) { return expression; }>();               \
    if (type != Type::f32) b.fail("type");                                                    \
    ftz ? b.alu<[](float v) {                                                                 \
      const double x = flush(v);                                                              \
      return flush(static_cast<float>(expression));                                           \
    }>()                                                                                      \
        : b.alu<[](float v) {                                                                 \
            const double x = v;                                                               \
            return static_cast<float>(expression);                                            \
          }>();                                                                               \
  }
BITLOOM_PTX_APPROX(bind_rsqrt, 1.0 / std::sqrt(x))
BITLOOM_PTX_APPROX(bind_ex2, std::exp2(x))
BITLOOM_PTX_APPROX(bind_lg2, std::log2(x))
BITLOOM_PTX_APPROX(bind_sin, std::sin(x))
BITLOOM_PTX_APPROX(bind_cos, std::cos(x))

void bind_tanh(Binder& b) {
  const Type type = b.type();
  if (bind_half(b, type, HalfOp::tanh)) return;
  if (type != Type::f32 || !b.has("approx")) b.fail("form of tanh");
  b.alu<[](float x) { return static_cast<float>(std::tanh(static_cast<double>(x))); }>();
}

void bind_copysign(Binder& b) {
  if (b.type() == Type::f32) return b.alu<[](float x, float y) { return std::copysign(y, x); }>();
  b.alu<[](double x, double y) { return std::copysign(y, x); }>();
}

}  // namespace bitloom::ptx
