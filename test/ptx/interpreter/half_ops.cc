// f16, f16x2, bf16, bf16x2: computed wide and rounded once. The sum of a product and an addend is formed in
// double, rounded to odd on the way to f32 and from there to the nearest: the same as one rounding of the
// exact value.
#include "half_ops.h"

#include <bit>
#include <cmath>

#include "formats.h"

namespace bitloom::ptx {
namespace {

float to_float_odd(double value) {
  const float nearest = static_cast<float>(value);
  const double error = value - static_cast<double>(nearest);
  uint32_t bits = std::bit_cast<uint32_t>(nearest);
  if (!(error != 0) || !std::isfinite(nearest) || (bits & 1)) return nearest;
  if (nearest == 0) return std::copysign(0x1p-149f, static_cast<float>(value));
  bits += (error > 0) == (value > 0) ? 1 : -1;
  return std::bit_cast<float>(bits);
}

// Modifiers of an instruction, as bits of Instr::b.
enum Modifier : uint8_t { modify_ftz = 1, modify_sat = 2, modify_relu = 4, modify_nan = 8 };

struct HalfTraits {
  using Value = Half;
  static Half narrow(float value) { return to_half(value); }
  static bool subnormal(uint16_t bits) { return (bits & 0x7c00) == 0; }
};
struct BrainTraits {
  using Value = Brain;
  static Brain narrow(float value) { return to_brain(value); }
  static bool subnormal(uint16_t bits) { return (bits & 0x7f80) == 0; }
};

template <typename Traits>
typename Traits::Value compute(HalfOp op, uint8_t modifiers, typename Traits::Value x,
                               typename Traits::Value y, typename Traits::Value z) {
  using Value = typename Traits::Value;
  const auto flushed = [&](Value v) {
    if ((modifiers & modify_ftz) && Traits::subnormal(v.bits)) v.bits &= 0x8000;
    return v;
  };
  x = flushed(x);
  y = flushed(y);
  z = flushed(z);
  if (op == HalfOp::abs) return {static_cast<uint16_t>(x.bits & 0x7fff)};
  if (op == HalfOp::neg) return {static_cast<uint16_t>(x.bits ^ 0x8000)};
  const float p = to_float(x), q = to_float(y), r = to_float(z);
  float result = 0;
  switch (op) {
    case HalfOp::add:
      result = p + q;
      break;  // f32 holds more than twice the bits: rounding twice does no harm
    case HalfOp::sub:
      result = p - q;
      break;
    case HalfOp::mul:
      result = to_float_odd(static_cast<double>(p) * q);
      break;
    case HalfOp::fma:
      result = to_float_odd(add_to_odd(static_cast<double>(p) * q, r));
      break;
    case HalfOp::min:
      result = float_min(p, q, modifiers & modify_nan);
      break;
    case HalfOp::max:
      result = float_max(p, q, modifiers & modify_nan);
      break;
    case HalfOp::ex2:
      result = to_float_odd(std::exp2(static_cast<double>(p)));
      break;
    case HalfOp::tanh:
      result = to_float_odd(std::tanh(static_cast<double>(p)));
      break;
    default:
      break;
  }
  if (modifiers & modify_sat) result = result > 0 ? std::fmin(result, 1.0f) : 0.0f;
  if ((modifiers & modify_relu) && result < 0) result = 0.0f;
  return flushed(Traits::narrow(result));
}

// Lanes hold Pack values of 16 bits.
template <typename Traits, int Pack, HalfOp Op, bool Plain>
void run_half(Warp& warp, const Instr& in) {
  using Value = typename Traits::Value;
  const uint32_t operands = in.slot_count - 1;
  Value* d = row<Value>(warp, in.slots[0]);
  const Value* x = row<Value>(warp, in.slots[1]);
  const Value* y = operands > 1 ? row<Value>(warp, in.slots[2]) : x;
  const Value* z = operands > 2 ? row<Value>(warp, in.slots[3]) : x;
  const uint8_t modifiers = Plain ? 0 : in.b;
  each_lane(warp.active, [&](uint32_t lane) {
    for (uint32_t i = lane * Pack; i < (lane + 1) * Pack; ++i)
      d[i] = compute<Traits>(Op, modifiers, x[i], y[i], z[i]);
  });
}

template <typename Traits, int Pack>
Handler half_handler(HalfOp op, bool plain) {
  switch (op) {
#define BITLOOM_PTX_HALF(name) \
  case HalfOp::name:           \
    return plain ? run_half<Traits, Pack, HalfOp::name, true> : run_half<Traits, Pack, HalfOp::name, false>;
    // clang-format off
    BITLOOM_PTX_HALF(add) BITLOOM_PTX_HALF(sub) BITLOOM_PTX_HALF(mul) BITLOOM_PTX_HALF(fma)
    BITLOOM_PTX_HALF(abs) BITLOOM_PTX_HALF(neg) BITLOOM_PTX_HALF(min) BITLOOM_PTX_HALF(max)
    BITLOOM_PTX_HALF(ex2) BITLOOM_PTX_HALF(tanh)
    // clang-format on
#undef BITLOOM_PTX_HALF
  }
  return nullptr;
}

}  // namespace

float float_min(float x, float y, bool nan) {
  if (std::isnan(x) || std::isnan(y)) {
    if (nan || (std::isnan(x) && std::isnan(y))) return std::bit_cast<float>(0x7fffffffu);
    return std::isnan(x) ? y : x;
  }
  return x < y || (x == y && std::signbit(x)) ? x : y;
}

float float_max(float x, float y, bool nan) {
  if (std::isnan(x) || std::isnan(y)) {
    if (nan || (std::isnan(x) && std::isnan(y))) return std::bit_cast<float>(0x7fffffffu);
    return std::isnan(x) ? y : x;
  }
  return x > y || (x == y && !std::signbit(x)) ? x : y;
}

bool bind_half(Binder& b, Type type, HalfOp op) {
  const bool half = type == Type::f16 || type == Type::f16x2,
             brain = type == Type::bf16 || type == Type::bf16x2;
  if (!half && !brain) return false;
  const bool pair = type == Type::f16x2 || type == Type::bf16x2;
  b.has("rn");
  b.has("approx");
  b.instr.b = static_cast<uint8_t>((b.has("ftz") ? modify_ftz : 0) | (b.has("sat") ? modify_sat : 0) |
                                   (b.has("relu") ? modify_relu : 0) | (b.has("NaN") ? modify_nan : 0));
  if (brain && op == HalfOp::ex2)
    b.instr.b &= static_cast<uint8_t>(~modify_ftz);  // required spelling, no effect
  const uint32_t bytes = pair ? 4 : 2;
  const size_t sources = op == HalfOp::fma                                             ? 3
                         : op <= HalfOp::mul || op == HalfOp::min || op == HalfOp::max ? 2
                                                                                       : 1;
  if (b.count() != sources + 1) b.fail("number of operands");
  b.dest(b.operand(0), bytes);
  for (size_t i = 1; i <= sources; ++i) b.source(b.operand(i), bytes);
  const bool plain = b.instr.b == 0;
  if (half) {
    b.instr.run = pair ? half_handler<HalfTraits, 2>(op, plain) : half_handler<HalfTraits, 1>(op, plain);
  } else {
    b.instr.run = pair ? half_handler<BrainTraits, 2>(op, plain) : half_handler<BrainTraits, 1>(op, plain);
  }
  return true;
}

}  // namespace bitloom::ptx
