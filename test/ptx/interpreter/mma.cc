// mma.sync m16n8: d = a b + c, a 16 x K, b K x 8. PTX ISA "Matrix Fragments for mma".
//
// All shapes follow one rule. Let p = 32 / bits of an element be the elements per register, g = lane / 4 and
// t = lane % 4. Register r of a holds row g + 8 (r % 2), columns t p + i + 4 p (r / 2); register r of b holds
// column g, rows t p + i + 4 p r; element r of c and d is row g + 8 (r / 2), column 2 t + r % 2. K = 4 p
// times the registers of b.
#include "mma.h"

#include <cmath>
#include <cstring>
#include <limits>

#include "binder.h"
#include "formats.h"

namespace bitloom::ptx {
namespace {

// Instr: type = of a, a = of b, b = of d and c, c = registers of b (those of a are twice as many), d = flags.
enum MmaFlag : uint8_t { mma_saturate = 1, mma_xor = 2 };

uint32_t element_bits(Type type) {
  switch (type) {
    case Type::tf32:
      return 32;
    case Type::f16:
    case Type::bf16:
      return 16;
    case Type::e4m3:
    case Type::e5m2:
    case Type::s8:
    case Type::u8:
      return 8;
    case Type::s4:
    case Type::u4:
      return 4;
    default:
      return 1;
  }
}

// The elements of one register of all lanes, lane by lane. The type is looked at once per row, so that the
// loops are plain ones.
template <uint32_t Bits>
void decode_row(const uint32_t* row, Type type, float* values) {
  constexpr uint32_t count = 32 * (32 / Bits);
  if (type == Type::f16) {
    const Half* halves = reinterpret_cast<const Half*>(row);
    for (uint32_t i = 0; i < count; ++i) values[i] = to_float(halves[i]);
  } else if (type == Type::bf16) {
    const Brain* brains = reinterpret_cast<const Brain*>(row);
    for (uint32_t i = 0; i < count; ++i) values[i] = to_float(brains[i]);
  } else if (type == Type::tf32) {
    for (uint32_t i = 0; i < 32; ++i)
      values[i] = std::bit_cast<float>(row[i] & 0xffffe000);  // 13 bits unread
  } else {
    static const auto tables = [] {
      std::array<std::array<float, 256>, 2> all;
      for (uint32_t i = 0; i < 256; ++i) {
        all[0][i] = static_cast<float>(decode(i, kE4m3));
        all[1][i] = static_cast<float>(decode(i, kE5m2));
      }
      return all;
    }();
    const std::array<float, 256>& table = tables[type == Type::e5m2];
    const uint8_t* bytes = reinterpret_cast<const uint8_t*>(row);
    for (uint32_t i = 0; i < count; ++i) values[i] = table[bytes[i]];
  }
}

template <uint32_t Bits>
void decode_row(const uint32_t* row, Type type, int32_t* values) {
  constexpr uint32_t p = 32 / Bits, mask = (1u << Bits) - 1;
  const uint32_t sign = type == Type::s8 ? 0x80 : type == Type::s4 ? 8 : 0;
  for (uint32_t i = 0; i < 32 * p; ++i) {
    const uint32_t bits = row[i / p] >> (Bits * (i % p)) & mask;
    values[i] = static_cast<int32_t>((bits ^ sign) - sign);
  }
}

// a[row][k] and b[k][column] of the fragments.
template <typename T, uint32_t Bits>
void unpack(Warp& warp, const Instr& in, const Slot* a_slots, const Slot* b_slots, T (*a)[256], T (*b)[8]) {
  constexpr uint32_t p = 32 / Bits;
  T values[32 * p];
  for (uint32_t r = 0; r < 2u * in.c; ++r) {
    decode_row<Bits>(row<uint32_t>(warp, a_slots[r]), in.type, values);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      T* target = a[lane / 4 + 8 * (r % 2)] + lane % 4 * p + 4 * p * (r / 2);
      std::memcpy(target, values + lane * p, sizeof(T) * p);
    }
  }
  for (uint32_t r = 0; r < in.c; ++r) {
    decode_row<Bits>(row<uint32_t>(warp, b_slots[r]), static_cast<Type>(in.a), values);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const uint32_t k = lane % 4 * p + 4 * p * r;
      for (uint32_t i = 0; i < p; ++i) b[k + i][lane / 4] = values[lane * p + i];
    }
  }
}

// Slots: d, a, b, c; d and c of `results` registers. Bits fixes the type of loop, the element type is looked
// up.
template <uint32_t Bits>
void run_float(Warp& warp, const Instr& in) {
  const bool half = static_cast<Type>(in.b) == Type::f16;
  const uint32_t results = half ? 2 : 4, depth = 4 * (32 / Bits) * in.c;
  const Slot *d_slots = in.slots, *a_slots = d_slots + results, *b_slots = a_slots + 2 * in.c,
             *c_slots = b_slots + in.c;
  float a[16][256];
  float b[256][8];
  unpack<float, Bits>(warp, in, a_slots, b_slots, a, b);
  double sums[16][8];
  for (uint32_t r = 0; r < 4; ++r) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const double value = half ? to_float(row<Half>(warp, c_slots[r / 2])[lane * 2 + r % 2])
                                : row<float>(warp, c_slots[r])[lane];
      sums[lane / 4 + 8 * (r / 2)][lane % 4 * 2 + r % 2] = value;
    }
  }
  if (warp.launch->options.mma_block == 0) {
    multiply_exact(&a[0][0], 256, &b[0][0], depth, sums);
  } else {
    multiply_in_blocks(&a[0][0], 256, &b[0][0], depth, warp.launch->options.mma_block, sums);
  }
  for (uint32_t r = 0; r < 4; ++r) {
    for (uint32_t lane = 0; lane < 32; ++lane) {
      const double value = sums[lane / 4 + 8 * (r / 2)][lane % 4 * 2 + r % 2];
      if (half) {
        row<Half>(warp, d_slots[r / 2])[lane * 2 + r % 2] = {static_cast<uint16_t>(encode(value, kF16))};
      } else {
        row<float>(warp, d_slots[r])[lane] = static_cast<float>(value);
      }
    }
  }
}

template <uint32_t Bits>
void run_integer(Warp& warp, const Instr& in) {
  const uint32_t depth = 4 * (32 / Bits) * in.c;
  const Slot *d_slots = in.slots, *a_slots = d_slots + 4, *b_slots = a_slots + 2 * in.c,
             *c_slots = b_slots + in.c;
  int32_t a[16][256];
  int32_t b[256][8];
  unpack<int32_t, Bits>(warp, in, a_slots, b_slots, a, b);
  int32_t sums[16][8] = {};  // at most 256 products of 16 bits
  for (uint32_t i = 0; i < 16; ++i) {
    for (uint32_t k = 0; k < depth; ++k) {
      const int32_t x = a[i][k];
      for (uint32_t j = 0; j < 8; ++j) sums[i][j] += in.d & mma_xor ? x ^ b[k][j] : x * b[k][j];
    }
  }
  for (uint32_t r = 0; r < 4; ++r) {
    const int32_t* c = row<int32_t>(warp, c_slots[r]);
    int32_t* d = row<int32_t>(warp, d_slots[r]);
    for (uint32_t lane = 0; lane < 32; ++lane) {
      int64_t value = int64_t{sums[lane / 4 + 8 * (r / 2)][lane % 4 * 2 + r % 2]} + c[lane];
      if (in.d & mma_saturate) {
        value = std::min<int64_t>(std::max<int64_t>(value, std::numeric_limits<int32_t>::min()),
                                  std::numeric_limits<int32_t>::max());
      }
      d[lane] = static_cast<int32_t>(static_cast<uint32_t>(value));
    }
  }
}

}  // namespace

void bind_mma(Binder& b) {
  if (!b.has("sync") || !b.has("aligned")) b.fail("form");
  const std::string_view shape = b.any();
  if (!b.has("row") || !b.has("col")) b.fail("layout");
  b.has("kind::f8f6f4");
  const bool popc = b.has("popc"), is_xor = b.has("xor"), is_and = b.has("and");
  b.instr.d = static_cast<uint8_t>((b.has("satfinite") ? mma_saturate : 0) | (is_xor ? mma_xor : 0));
  const Type d = b.type(), a = b.type(), bt = b.type(), c = b.type();
  const uint32_t bits = element_bits(a), p = 32 / bits;
  if (shape.substr(0, 6) != "m16n8k") b.fail("shape");
  uint32_t depth = 0;
  for (char digit : shape.substr(6)) depth = depth * 10 + static_cast<uint32_t>(digit - '0');
  const uint32_t registers = depth / (4 * p);
  const bool is_float = type_class(a) == 'f';
  if (registers * 4 * p != depth || registers < 1 || registers > 2) b.fail("shape");
  if (d != c || (is_float ? d != Type::f32 && d != Type::f16 : d != Type::s32)) b.fail("types");
  if (element_bits(bt) != bits || (is_float != (type_class(bt) == 'f'))) b.fail("types");
  if (bits == 16 ? a != bt : false) b.fail("types");
  if (d == Type::f16 && a != Type::f16 && bits != 8) b.fail("types");
  if ((bits == 1) != popc || (popc && is_xor == is_and) || (bits == 1 && a != Type::b1)) b.fail("types");
  b.instr.type = a;
  b.instr.a = static_cast<uint8_t>(bt);
  b.instr.b = static_cast<uint8_t>(d);
  b.instr.c = static_cast<uint8_t>(registers);
  const size_t results = d == Type::f16 ? 2 : 4, counts[4] = {results, 2 * registers, registers, results};
  for (size_t i = 0; i < 4; ++i) {
    const Operand& operand = b.operand(i);
    const auto bind_one = [&](const Operand& o) {
      i == 0 ? b.dest(o, 4) : b.source(o, 4, i == 3 && d == Type::f32);
    };
    if (operand.kind != Operand::vector) {
      if (counts[i] != 1) b.fail("number of registers");
      bind_one(operand);
      continue;
    }
    if (operand.elements.size() != counts[i]) b.fail("number of registers");
    for (const Operand& element : operand.elements) bind_one(element);
  }
  b.instr.flow = Flow::collective;
  b.instr.members = kWholeWarp;
  if (is_float) {
    b.instr.run = bits == 32 ? run_float<32> : bits == 16 ? run_float<16> : run_float<8>;
  } else {
    b.instr.run = bits == 8 ? run_integer<8> : bits == 4 ? run_integer<4> : run_integer<1>;
  }
}

}  // namespace bitloom::ptx
