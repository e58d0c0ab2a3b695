// cvt in all its forms: PTX ISA "cvt". A value goes source type -> double or 64-bit integer -> destination
// type, with one rounding. Registers may be wider than the types; narrow results are extended to the
// register.
#include <cmath>
#include <limits>

#include "by_type.h"
#include "formats.h"

namespace bitloom::ptx {
namespace {

// Instr: type = destination, a = source type, b = Rounding, c = modifiers, d = 1 if rounded to an integral
// value.
enum Modifier : uint8_t { modify_sat = 1, modify_ftz = 2, modify_relu = 4, modify_satfinite = 8 };

bool is_float(Type type) { return type_class(type) == 'f'; }

uint64_t load_bits(const char* rows, const Slot& slot, uint32_t lane) {
  uint64_t bits = 0;
  std::memcpy(&bits, rows + size_t{lane} * slot.bytes, slot.bytes);
  return bits;
}

double read_float(uint64_t bits, Type type, bool ftz) {
  switch (type) {
    case Type::f16:
      return to_float(Half{static_cast<uint16_t>(bits)});
    case Type::bf16:
      return to_float(Brain{static_cast<uint16_t>(bits)});
    case Type::f64:
      return std::bit_cast<double>(bits);
    default: {
      const float value = std::bit_cast<float>(static_cast<uint32_t>(bits));
      return ftz ? flush(value) : value;
    }
  }
}

double round_integral(double value, Rounding rounding) {
  switch (rounding) {
    case Rounding::zero:
      return std::trunc(value);
    case Rounding::down:
      return std::floor(value);
    case Rounding::up:
      return std::ceil(value);
    case Rounding::nearest_away:
      return std::round(value);
    default: {
      const double whole = std::floor(value), rest = value - whole;
      return rest > 0.5 || (rest == 0.5 && std::fmod(whole, 2.0) != 0) ? whole + 1 : whole;
    }
  }
}

uint64_t write_float(double value, const Instr& in) {
  const Rounding rounding = static_cast<Rounding>(in.b);
  if (in.c & modify_sat) value = value > 0 ? std::fmin(value, 1.0) : 0.0;
  if ((in.c & modify_relu) && value <= 0) value = 0.0;
  const bool saturate = in.c & modify_satfinite;
  switch (in.type) {
    case Type::f64:
      return std::bit_cast<uint64_t>(value);
    case Type::f32:
      if (rounding == Rounding::nearest_even) {
        const float narrow = static_cast<float>(value);
        return std::bit_cast<uint32_t>(in.c & modify_ftz ? flush(narrow) : narrow);
      }
      return encode(value, kF32, rounding);
    case Type::f16:
      return encode(value, kF16, rounding, saturate);
    case Type::bf16:
      return encode(value, kBf16, rounding, saturate);
    case Type::tf32:
      return uint64_t{encode(value, kTf32, rounding, saturate)} << 13;
    case Type::e4m3:
      return encode(value, kE4m3, rounding, true);
    case Type::e5m2:
      return encode(value, kE5m2, rounding, true);
    default:
      return 0;
  }
}

// Integers of floats: NaN gives 0 (PTX: for 32-bit and 64-bit sources of type f32 and f64 the ISA leaves f64
// -> NaN cases as the lowest or zero; compilers do not rely on it), what is too large is clamped.
uint64_t integer_of(double value, Type type) {
  if (std::isnan(value)) return 0;
  const int bits = static_cast<int>(8 * type_bytes(type));
  if (type_class(type) == 's') {
    const double limit = std::ldexp(1.0, bits - 1);
    if (value >= limit) return (1ull << (bits - 1)) - 1;
    if (value <= -limit) return 0 - (1ull << (bits - 1));
    return static_cast<uint64_t>(static_cast<int64_t>(value));
  }
  if (value <= 0) return 0;
  if (value >= std::ldexp(1.0, bits)) return bits == 64 ? ~0ull : (1ull << bits) - 1;
  return static_cast<uint64_t>(value);
}

int64_t extend(uint64_t bits, Type type) {
  const uint32_t unused = 64 - 8 * type_bytes(type);
  return type_class(type) == 's' ? static_cast<int64_t>(bits << unused) >> unused
                                 : static_cast<int64_t>(bits << unused >> unused);
}

uint64_t clamp_integer(uint64_t value, Type from, Type to) {
  const __int128 exact = type_class(from) == 's' ? static_cast<__int128>(static_cast<int64_t>(value)) : value;
  const int bits = static_cast<int>(8 * type_bytes(to));
  const bool is_signed = type_class(to) == 's';
  const __int128 low = is_signed ? -(static_cast<__int128>(1) << (bits - 1)) : 0;
  const __int128 high = (static_cast<__int128>(1) << (is_signed ? bits - 1 : bits)) - 1;
  return static_cast<uint64_t>(exact < low ? low : exact > high ? high : exact);
}

uint64_t convert(uint64_t bits, const Instr& in) {
  const Type from = static_cast<Type>(in.a), to = in.type;
  if (is_float(from)) {
    double value = read_float(bits, from, in.c & modify_ftz);
    if (!is_float(to)) return integer_of(round_integral(value, static_cast<Rounding>(in.b)), to);
    if (in.d) value = std::copysign(round_integral(value, static_cast<Rounding>(in.b)), value);
    return write_float(value, in);
  }
  const uint64_t source = static_cast<uint64_t>(extend(bits, from));
  if (!is_float(to)) return in.c & modify_sat ? clamp_integer(source, from, to) : source;
  if (to == Type::f32 &&
      static_cast<Rounding>(in.b) == Rounding::nearest_even) {  // 64-bit integers: one rounding
    const float value = type_class(from) == 's' ? static_cast<float>(static_cast<int64_t>(source))
                                                : static_cast<float>(source);
    return write_float(value, in);
  }
  const double value = type_class(from) == 's' ? static_cast<double>(static_cast<int64_t>(source))
                                               : static_cast<double>(source);
  return write_float(value, in);
}

void run_cvt(Warp& warp, const Instr& in) {
  const Slot& d = in.slots[0];
  const Slot& s = in.slots[1];
  char* target = row<char>(warp, d);
  const char* source = row<char>(warp, s);
  each_lane(warp.active, [&](uint32_t lane) {
    uint64_t bits = convert(load_bits(source, s, lane), in);
    if (!is_float(in.type)) bits = static_cast<uint64_t>(extend(bits, in.type));
    std::memcpy(target + size_t{lane} * d.bytes, &bits, d.bytes);
  });
}

// Pairs: d = {first source in the upper half, second in the lower}.
void run_cvt_pair(Warp& warp, const Instr& in) {
  const uint32_t half_bits = 8 * type_bytes(in.type);
  const Slot& d = in.slots[0];
  char* target = row<char>(warp, d);
  const float* high = row<float>(warp, in.slots[1]);
  const float* low = row<float>(warp, in.slots[2]);
  each_lane(warp.active, [&](uint32_t lane) {
    const uint64_t bits = write_float(high[lane], in) << half_bits | write_float(low[lane], in);
    std::memcpy(target + size_t{lane} * d.bytes, &bits, d.bytes);
  });
}
template <bool IsHalf>
uint32_t pack_nearest(float high, float low) {
  if (IsHalf) return static_cast<uint32_t>(to_half(high).bits) << 16 | to_half(low).bits;
  return static_cast<uint32_t>(to_brain(high).bits) << 16 | to_brain(low).bits;
}

// A pair of e4m3 or e5m2 to a pair of f16, or the other way round.
void run_cvt_packed(Warp& warp, const Instr& in) {
  const Type from = static_cast<Type>(in.a);
  const Slot& d = in.slots[0];
  const Slot& s = in.slots[1];
  char* target = row<char>(warp, d);
  const char* source = row<char>(warp, s);
  each_lane(warp.active, [&](uint32_t lane) {
    const uint64_t bits = load_bits(source, s, lane);
    uint64_t result = 0;
    for (uint32_t i = 0; i < 2; ++i) {
      if (from == Type::f16) {
        result |= write_float(to_float(Half{static_cast<uint16_t>(bits >> 16 * i)}), in) << 8 * i;
      } else {
        const double value =
            decode(static_cast<uint32_t>(bits >> 8 * i & 0xff), from == Type::e4m3 ? kE4m3 : kE5m2);
        result |= write_float(value, in) << 16 * i;
      }
    }
    std::memcpy(target + size_t{lane} * d.bytes, &result, d.bytes);
  });
}

Type element_of(Type pair) {
  switch (pair) {
    case Type::f16x2:
      return Type::f16;
    case Type::bf16x2:
      return Type::bf16;
    case Type::e4m3x2:
      return Type::e4m3;
    case Type::e5m2x2:
      return Type::e5m2;
    default:
      return Type::none;
  }
}

void take_modifiers(Binder& b) {
  struct Mode {
    const char* name;
    Rounding rounding;
    bool integral;
  };
  static constexpr Mode modes[] = {{"rni", Rounding::nearest_even, true},
                                   {"rzi", Rounding::zero, true},
                                   {"rmi", Rounding::down, true},
                                   {"rpi", Rounding::up, true},
                                   {"rn", Rounding::nearest_even, false},
                                   {"rna", Rounding::nearest_away, false},
                                   {"rz", Rounding::zero, false},
                                   {"rm", Rounding::down, false},
                                   {"rp", Rounding::up, false}};
  for (const Mode& mode : modes) {
    if (!b.has(mode.name)) continue;
    b.instr.b = static_cast<uint8_t>(mode.rounding);
    b.instr.d = mode.integral;
    break;
  }
  b.instr.c =
      static_cast<uint8_t>((b.has("sat") ? modify_sat : 0) | (b.has("ftz") ? modify_ftz : 0) |
                           (b.has("relu") ? modify_relu : 0) | (b.has("satfinite") ? modify_satfinite : 0));
}

}  // namespace

void bind_cvt(Binder& b) {
  if (b.has("pack")) b.fail("cvt.pack");
  take_modifiers(b);
  const Type to = b.type(), from = b.type();
  const Type to_element = element_of(to), from_element = element_of(from);
  b.instr.type = to;
  b.instr.a = static_cast<uint8_t>(from);
  if (to_element != Type::none && from == Type::f32 && b.count() == 3) {
    b.instr.type = to_element;
    const bool nearest = b.instr.b == static_cast<uint8_t>(Rounding::nearest_even) && b.instr.c == 0;
    if (to == Type::f16x2 && nearest) return b.alu<pack_nearest<true>>();
    if (to == Type::bf16x2 && nearest) return b.alu<pack_nearest<false>>();
    b.dest(b.operand(0), type_bytes(to), false);
    b.source(b.operand(1), 4, true);
    b.source(b.operand(2), 4, true);
    b.instr.run = run_cvt_pair;
    return;
  }
  if (b.count() != 2) b.fail("number of operands");
  if (to_element != Type::none && from_element != Type::none) {
    const bool widen = to == Type::f16x2 && type_bytes(from) == 2,
               narrow = from == Type::f16x2 && type_bytes(to) == 2;
    if (!widen && !narrow) b.fail("pair of types");
    b.instr.type = to_element;
    b.instr.a = static_cast<uint8_t>(from_element);
    b.dest(b.operand(0), type_bytes(to), false);
    b.source(b.operand(1), type_bytes(from), false, false);
    b.instr.run = run_cvt_packed;
    return;
  }
  if (to_element != Type::none || from_element != Type::none || type_bytes(to) * type_bytes(from) == 0)
    b.fail("pair of types");
  if (to == Type::pred || from == Type::pred || is_float(from) != (from >= Type::f16))
    b.fail("pair of types");
  if (from == Type::e4m3 || from == Type::e5m2 || to == Type::e4m3 || to == Type::e5m2)
    b.fail("single fp8 value");
  // Common forms of full registers, as loops that widen.
  if (b.instr.c == 0 && b.is_register(b.operand(0), type_bytes(to)) &&
      b.is_register(b.operand(1), type_bytes(from))) {
    if (to == Type::f32 && from == Type::f16) return b.alu<[](Half x) { return to_float(x); }>();
    if (to == Type::f32 && from == Type::bf16) return b.alu<[](Brain x) { return to_float(x); }>();
    if (b.instr.b == 0 && !b.instr.d) {
      if (to == Type::f16 && from == Type::f32) return b.alu<[](float x) { return to_half(x); }>();
      if (to == Type::bf16 && from == Type::f32) return b.alu<[](float x) { return to_brain(x); }>();
      if (to == Type::f32 && from == Type::s32)
        return b.alu<[](int32_t x) { return static_cast<float>(x); }>();
      if (to == Type::f32 && from == Type::u32)
        return b.alu<[](uint32_t x) { return static_cast<float>(x); }>();
      if (to == Type::s64 && from == Type::s32)
        return b.alu<[](int32_t x) { return static_cast<int64_t>(x); }>();
      if (to == Type::u64 && from == Type::u32)
        return b.alu<[](uint32_t x) { return static_cast<uint64_t>(x); }>();
      if (to == Type::u32 && from == Type::u64)
        return b.alu<[](uint64_t x) { return static_cast<uint32_t>(x); }>();
    }
  }
  b.dest(b.operand(0), type_bytes(to), false);
  b.source(b.operand(1), type_bytes(from), is_float(from), false);
  b.instr.run = run_cvt;
}

}  // namespace bitloom::ptx
