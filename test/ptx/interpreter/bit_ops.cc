// Bit fields, bytes and their dot products: PTX ISA "Integer Arithmetic Instructions", prmt.
#include <algorithm>
#include <bit>

#include "by_type.h"

namespace bitloom::ptx {
namespace {

template <typename T>
T op_bfe(T x, uint32_t position, uint32_t length) {
  constexpr uint32_t bits = 8 * sizeof(T);
  const uint32_t at = position & 0xff, count = length & 0xff;
  const uint64_t source = static_cast<uint64_t>(x);  // sign extended for signed types
  const uint32_t top = std::min(at + count - 1, bits - 1);
  const bool sign = std::is_signed_v<T> && count > 0 && (source >> top & 1);
  uint64_t field = at >= bits ? 0 : static_cast<uint64_t>(static_cast<std::make_unsigned_t<T>>(x)) >> at;
  if (count < 64) field &= (1ull << count) - 1;
  if (!sign) return static_cast<T>(field);
  const uint32_t have = at >= bits ? 0 : std::min(count, bits - at);
  return static_cast<T>(have >= 64 ? field : field | ~0ull << have);
}

template <typename T>
T op_bfi(T x, T y, uint32_t position, uint32_t length) {
  const uint32_t at = position & 0xff, count = length & 0xff;
  if (at >= 8 * sizeof(T) || count == 0) return y;
  const uint64_t mask = (count >= 64 ? ~0ull : (1ull << count) - 1) << at;
  return static_cast<T>((static_cast<uint64_t>(y) & ~mask) | (static_cast<uint64_t>(x) << at & mask));
}

template <typename T>
uint32_t op_bfind(T x) {
  const std::make_unsigned_t<T> bits = std::is_signed_v<T> && x < 0 ? ~x : x;
  return bits == 0 ? ~0u
                   : static_cast<uint32_t>(8 * sizeof(T) - 1) - static_cast<uint32_t>(std::countl_zero(bits));
}
template <typename T>
uint32_t op_bfind_shift(T x) {
  const uint32_t found = op_bfind(x);
  return found == ~0u ? found : static_cast<uint32_t>(8 * sizeof(T) - 1) - found;
}

template <typename T>
T op_brev(T x) {
  T result = 0;
  for (uint32_t i = 0; i < 8 * sizeof(T); ++i) result |= (x >> i & 1) << (8 * sizeof(T) - 1 - i);
  return result;
}

uint32_t op_prmt(uint32_t x, uint32_t y, uint32_t selector) {
  const uint64_t bytes = static_cast<uint64_t>(y) << 32 | x;
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const uint32_t choice = selector >> (4 * i);
    uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (choice & 7))) & 0xff;
    if (choice & 8) byte = byte & 0x80 ? 0xff : 0;
    result |= byte << (8 * i);
  }
  return result;
}

// Modes other than the general one: PTX ISA table "prmt", selector from the low two bits.
template <int Mode>
uint32_t op_prmt_mode(uint32_t x, uint32_t y, uint32_t selector) {
  static constexpr uint32_t selectors[6][4] = {
      {0x3210, 0x4321, 0x5432, 0x6543}, {0x5670, 0x6701, 0x7012, 0x0123}, {0x0000, 0x1111, 0x2222, 0x3333},
      {0x3210, 0x3211, 0x3222, 0x3333}, {0x0000, 0x1110, 0x2210, 0x3210}, {0x1010, 0x3232, 0x1010, 0x3232}};
  return op_prmt(x, y, selectors[Mode][selector & 3]);
}

// Without masks, selectors and additions: c is where bytes that are not written come from.
uint32_t op_vabsdiff4(uint32_t x, uint32_t y, uint32_t) {
  uint32_t result = 0;
  for (int i = 0; i < 4; ++i) {
    const int32_t p = static_cast<uint8_t>(x >> 8 * i), q = static_cast<uint8_t>(y >> 8 * i);
    result |= static_cast<uint32_t>(p < q ? q - p : p - q) << 8 * i;
  }
  return result;
}

int32_t dot_bytes(uint32_t x, uint32_t y, int32_t sum, bool x_signed, bool y_signed) {
  for (int i = 0; i < 4; ++i) {
    const int32_t p = x_signed ? static_cast<int8_t>(x >> 8 * i) : static_cast<uint8_t>(x >> 8 * i);
    const int32_t q = y_signed ? static_cast<int8_t>(y >> 8 * i) : static_cast<uint8_t>(y >> 8 * i);
    sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(p * q));
  }
  return sum;
}
// Two 16-bit values of x with two bytes of y, the low or the high pair.
int32_t dot_words(uint32_t x, uint32_t y, int32_t sum, bool x_signed, bool y_signed, bool high) {
  for (int i = 0; i < 2; ++i) {
    const uint32_t byte = y >> (8 * i + (high ? 16 : 0));
    const int32_t p = x_signed ? static_cast<int16_t>(x >> 16 * i) : static_cast<uint16_t>(x >> 16 * i);
    const int32_t q = y_signed ? static_cast<int8_t>(byte) : static_cast<uint8_t>(byte);
    sum = static_cast<int32_t>(static_cast<uint32_t>(sum) + static_cast<uint32_t>(p * q));
  }
  return sum;
}
int32_t op_sign_extend(int32_t x, uint32_t n) {
  if (n == 0 || n >= 32) return n == 0 ? 0 : x;
  return static_cast<int32_t>(static_cast<uint32_t>(x) << (32 - n)) >> (32 - n);
}
int32_t op_sign_extend_wrapped(int32_t x, uint32_t n) { return op_sign_extend(x, n & 31); }

// The position of the n-th set bit from `base` upwards (n > 0) or downwards (n < 0); n = 0: base if set.
uint32_t op_fns(uint32_t mask, uint32_t base, int32_t n) {
  if (n == 0) return mask >> (base & 31) & 1 ? base : ~0u;
  const int32_t step = n > 0 ? 1 : -1;
  int32_t left = n > 0 ? n : -n;
  for (int32_t at = static_cast<int32_t>(base); at >= 0 && at < 32; at += step) {
    if ((mask >> at & 1) && --left == 0) return static_cast<uint32_t>(at);
  }
  return ~0u;
}

template <bool X, bool Y>
int32_t op_dp4a(uint32_t x, uint32_t y, int32_t z) {
  return dot_bytes(x, y, z, X, Y);
}
template <bool X, bool Y, bool High>
int32_t op_dp2a(uint32_t x, uint32_t y, int32_t z) {
  return dot_words(x, y, z, X, Y, High);
}

}  // namespace

void bind_prmt(Binder& b) {
  if (b.type() != Type::b32) b.fail("type");
  if (b.has("f4e")) return b.alu<op_prmt_mode<0>>();
  if (b.has("b4e")) return b.alu<op_prmt_mode<1>>();
  if (b.has("rc8")) return b.alu<op_prmt_mode<2>>();
  if (b.has("ecl")) return b.alu<op_prmt_mode<3>>();
  if (b.has("ecr")) return b.alu<op_prmt_mode<4>>();
  if (b.has("rc16")) return b.alu<op_prmt_mode<5>>();
  b.alu<op_prmt>();
}

void bind_bfe(Binder& b) {
  switch (b.type()) {
    case Type::u32:
      return b.alu<op_bfe<uint32_t>>();
    case Type::s32:
      return b.alu<op_bfe<int32_t>>();
    case Type::u64:
      return b.alu<op_bfe<uint64_t>>();
    case Type::s64:
      return b.alu<op_bfe<int64_t>>();
    default:
      b.fail("type");
  }
}

void bind_bfi(Binder& b) {
  switch (b.type()) {
    case Type::b32:
      return b.alu<op_bfi<uint32_t>>();
    case Type::b64:
      return b.alu<op_bfi<uint64_t>>();
    default:
      b.fail("type");
  }
}

void bind_bfind(Binder& b) {
  const bool shift = b.has("shiftamt");
  switch (b.type()) {
    case Type::u32:
      return shift ? b.alu<op_bfind_shift<uint32_t>>() : b.alu<op_bfind<uint32_t>>();
    case Type::s32:
      return shift ? b.alu<op_bfind_shift<int32_t>>() : b.alu<op_bfind<int32_t>>();
    case Type::u64:
      return shift ? b.alu<op_bfind_shift<uint64_t>>() : b.alu<op_bfind<uint64_t>>();
    case Type::s64:
      return shift ? b.alu<op_bfind_shift<int64_t>>() : b.alu<op_bfind<int64_t>>();
    default:
      b.fail("type");
  }
}

void bind_brev(Binder& b) {
  if (b.type() == Type::b32) return b.alu<op_brev<uint32_t>>();
  b.alu<op_brev<uint64_t>>();
}

void bind_popc(Binder& b) {
  if (b.type() == Type::b32)
    return b.alu<[](uint32_t x) { return static_cast<uint32_t>(std::popcount(x)); }>();
  b.alu<[](uint64_t x) { return static_cast<uint32_t>(std::popcount(x)); }>();
}

void bind_clz(Binder& b) {
  if (b.type() == Type::b32)
    return b.alu<[](uint32_t x) { return static_cast<uint32_t>(std::countl_zero(x)); }>();
  b.alu<[](uint64_t x) { return static_cast<uint32_t>(std::countl_zero(x)); }>();
}

void bind_bmsk(Binder& b) {
  const bool clamp = b.has("clamp");
  if (!clamp && !b.has("wrap")) b.fail("bmsk without .clamp or .wrap");
  if (b.type() != Type::b32) b.fail("type");
  if (clamp) {
    return b.alu<[](uint32_t at, uint32_t n) {
      const uint64_t ones = n >= 32 ? 0xffffffffull : (1ull << n) - 1;
      return at >= 32 ? 0u : static_cast<uint32_t>(ones << at);
    }>();
  }
  return b.alu<[](uint32_t at, uint32_t n) { return ((1u << (n & 31)) - 1) << (at & 31); }>();
}

void bind_szext(Binder& b) {
  const bool clamp = b.has("clamp");
  if (!clamp && !b.has("wrap")) b.fail("szext without .clamp or .wrap");
  const Type type = b.type();
  if (type == Type::u32) {
    return clamp ? b.alu<[](uint32_t x, uint32_t n) { return n >= 32 ? x : x & ((1u << n) - 1); }>()
                 : b.alu<[](uint32_t x, uint32_t n) { return x & ((1u << (n & 31)) - 1); }>();
  }
  if (type != Type::s32) b.fail("type");
  return clamp ? b.alu<op_sign_extend>() : b.alu<op_sign_extend_wrapped>();
}

void bind_fns(Binder& b) {
  if (b.type() != Type::b32) b.fail("type");
  b.alu<op_fns>();
}

// Unsigned bytes alone; other forms are unknown.
void bind_vabsdiff4(Binder& b) {
  for (int i = 0; i < 3; ++i) {
    if (b.type() != Type::u32) b.fail("type");
  }
  b.alu<op_vabsdiff4>();
}

void bind_dp4a(Binder& b) {
  const bool x = type_class(b.type()) == 's', y = type_class(b.type()) == 's';
  if (x && y) return b.alu<op_dp4a<true, true>>();
  if (x) return b.alu<op_dp4a<true, false>>();
  if (y) return b.alu<op_dp4a<false, true>>();
  b.alu<op_dp4a<false, false>>();
}

void bind_dp2a(Binder& b) {
  const bool high = b.has("hi");
  if (!high && !b.has("lo")) b.fail("dp2a without .lo or .hi");
  const bool x = type_class(b.type()) == 's', y = type_class(b.type()) == 's';
  if (x && y) return high ? b.alu<op_dp2a<true, true, true>>() : b.alu<op_dp2a<true, true, false>>();
  if (x) return high ? b.alu<op_dp2a<true, false, true>>() : b.alu<op_dp2a<true, false, false>>();
  if (y) return high ? b.alu<op_dp2a<false, true, true>>() : b.alu<op_dp2a<false, true, false>>();
  return high ? b.alu<op_dp2a<false, false, true>>() : b.alu<op_dp2a<false, false, false>>();
}

}  // namespace bitloom::ptx
