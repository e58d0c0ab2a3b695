// Logic, shifts and bit fields, bit by bit on the host.
#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

const std::vector<Column> one = {bits32()}, two = {bits32(), bits32()},
                          three = {bits32(), bits32(), bits32()};

void test_logic() {
  for (uint32_t bytes : {2u, 4u, 8u}) {
    const std::string bits = std::to_string(8 * bytes);
    const Values values = integer_values(bytes, 6, 11);
    expect_rows("and.b" + bits + " $0, $1, $2", {{bytes}}, {{bytes}, {bytes}}, pairs(values, values),
                [](const Values& v) { return Values{v[0] & v[1]}; });
    expect_rows("or.b" + bits + " $0, $1, $2", {{bytes}}, {{bytes}, {bytes}}, pairs(values, values),
                [](const Values& v) { return Values{v[0] | v[1]}; });
    expect_rows("xor.b" + bits + " $0, $1, $2", {{bytes}}, {{bytes}, {bytes}}, pairs(values, values),
                [](const Values& v) { return Values{v[0] ^ v[1]}; });
    expect_rows("not.b" + bits + " $0, $1", {{bytes}}, {{bytes}}, singles(values),
                [](const Values& v) { return Values{~v[0]}; });
    const Values amounts = {0, 1, 7, 15, 16, 17, 31, 32, 33, 63, 64, 200, 0xffffffff};
    const uint32_t width = 8 * bytes;
    expect_rows("shl.b" + bits + " $0, $1, $2", {{bytes}}, {{bytes}, bits32()}, pairs(values, amounts),
                [&](const Values& v) { return Values{v[1] >= width ? 0 : v[0] << v[1]}; });
    expect_rows("shr.u" + bits + " $0, $1, $2", {{bytes}}, {{bytes}, bits32()}, pairs(values, amounts),
                [&](const Values& v) { return Values{v[1] >= width ? 0 : v[0] >> v[1]}; });
    expect_rows("shr.s" + bits + " $0, $1, $2", {{bytes}}, {{bytes}, bits32()}, pairs(values, amounts),
                [&](const Values& v) {
                  const int64_t x = static_cast<int64_t>(v[0] << (64 - width)) >> (64 - width);
                  return Values{static_cast<uint64_t>(x >> std::min<uint64_t>(v[1], 63))};
                });
  }
  const std::vector<Values> truth = pairs({0, 1}, {0, 1});
  const std::vector<Column> p = {predicate_column()}, pq = {predicate_column(), predicate_column()};
  expect_rows("and.pred $0, $1, $2", p, pq, truth, [](const Values& v) { return Values{v[0] & v[1]}; });
  expect_rows("or.pred $0, $1, !$2", p, pq, truth, [](const Values& v) { return Values{v[0] | (v[1] ^ 1)}; });
  expect_rows("xor.pred $0, $1, $2", p, pq, truth, [](const Values& v) { return Values{v[0] ^ v[1]}; });
  expect_rows("not.pred $0, $1", p, p, singles({0, 1}), [](const Values& v) { return Values{v[0] ^ 1}; });
  const Values words = integer_values(4, 6, 12);
  for (uint32_t table : {0x00u, 0xe2u, 0xcau, 0x96u, 0xeau, 0x1bu, 0xffu}) {
    expect_rows("lop3.b32 $0, $1, $2, $3, " + std::to_string(table), one, three, triples(words, words, words),
                [&](const Values& v) {
                  uint64_t result = 0;
                  for (int i = 0; i < 32; ++i)
                    result |= static_cast<uint64_t>(
                                  table >> ((v[0] >> i & 1) * 4 + (v[1] >> i & 1) * 2 + (v[2] >> i & 1)) & 1)
                              << i;
                  return Values{result};
                });
  }
  const Values amounts = {0, 1, 5, 31, 32, 33, 40, 63};
  for (bool wrap : {false, true}) {
    const std::string mode = wrap ? "wrap" : "clamp";
    const auto amount = [&](uint64_t n) { return wrap ? n & 31 : std::min<uint64_t>(n, 32); };
    expect_rows("shf.l." + mode + ".b32 $0, $1, $2, $3", one, three, triples(words, words, amounts),
                [&](const Values& v) {
                  const uint64_t n = amount(v[2]);
                  return Values{n == 0 ? v[1] : n == 32 ? v[0] : (v[1] << n) | (v[0] >> (32 - n))};
                });
    expect_rows("shf.r." + mode + ".b32 $0, $1, $2, $3", one, three, triples(words, words, amounts),
                [&](const Values& v) {
                  const uint64_t n = amount(v[2]);
                  return Values{n == 0 ? v[0] : n == 32 ? v[1] : (v[1] << (32 - n)) | (v[0] >> n)};
                });
  }
}

// PTX ISA, bfe: f = position, n = length, the sign bit is source bit min(f + n - 1, msb), or 0 if n = 0 or
// unsigned.
uint64_t extract(uint64_t source, uint64_t position, uint64_t length, int bits, bool is_signed) {
  const int p = static_cast<int>(position & 255), n = static_cast<int>(length & 255), top = bits - 1;
  const bool sign = is_signed && n > 0 && (source >> std::min(p + n - 1, top) & 1);
  uint64_t result = 0;
  for (int i = 0; i <= top; ++i) {
    const bool bit = i < n && p + i <= top ? source >> (p + i) & 1 : sign;
    result |= static_cast<uint64_t>(bit) << i;
  }
  return result;
}

void test_fields() {
  const Values places = {0, 1, 5, 8, 16, 24, 31, 32, 40, 63, 64, 255, 256};
  for (uint32_t bytes : {4u, 8u}) {
    const Values values = integer_values(bytes, 4, 13);
    const int bits = static_cast<int>(8 * bytes);
    const std::string width = std::to_string(bits);
    for (bool is_signed : {false, true}) {
      expect_rows(std::string("bfe.") + (is_signed ? "s" : "u") + width + " $0, $1, $2, $3", {{bytes}},
                  {{bytes}, bits32(), bits32()}, triples(values, places, places),
                  [&](const Values& v) { return Values{extract(v[0], v[1], v[2], bits, is_signed)}; });
      expect_rows(std::string("bfind.") + (is_signed ? "s" : "u") + width + " $0, $1", one, {{bytes}},
                  singles(values), [&](const Values& v) {
                    uint64_t x = v[0];
                    if (is_signed && (x >> (bits - 1) & 1))
                      x = ~x & (bits == 64 ? ~0ull : (1ull << bits) - 1);
                    for (int i = bits - 1; i >= 0; --i) {
                      if (x >> i & 1) return Values{static_cast<uint64_t>(i)};
                    }
                    return Values{0xffffffff};
                  });
    }
    expect_rows("bfind.shiftamt.u" + width + " $0, $1", one, {{bytes}}, singles(values),
                [&](const Values& v) {
                  for (int i = bits - 1; i >= 0; --i) {
                    if (v[0] >> i & 1) return Values{static_cast<uint64_t>(bits - 1 - i)};
                  }
                  return Values{0xffffffff};
                });
    expect_rows("bfi.b" + width + " $0, $1, $2, $3, 7", {{bytes}}, {{bytes}, {bytes}, bits32()},
                triples(values, values, places), [&](const Values& v) {
                  uint64_t result = v[1];
                  const int p = static_cast<int>(v[2] & 255);
                  for (int i = 0; i < 7 && p + i < bits; ++i)
                    result = (result & ~(1ull << (p + i))) | (v[0] >> i & 1) << (p + i);
                  return Values{result};
                });
    expect_rows("brev.b" + width + " $0, $1", {{bytes}}, {{bytes}}, singles(values), [&](const Values& v) {
      uint64_t result = 0;
      for (int i = 0; i < bits; ++i) result |= (v[0] >> i & 1) << (bits - 1 - i);
      return Values{result};
    });
    expect_rows("popc.b" + width + " $0, $1", one, {{bytes}}, singles(values),
                [](const Values& v) { return Values{static_cast<uint64_t>(std::popcount(v[0]))}; });
    expect_rows("clz.b" + width + " $0, $1", one, {{bytes}}, singles(values), [&](const Values& v) {
      return Values{static_cast<uint64_t>(std::countl_zero(v[0]) - (64 - bits))};
    });
  }
  const Values values = integer_values(4, 4, 14);
  expect_rows("bmsk.clamp.b32 $0, $1, $2", one, two, pairs(places, places), [](const Values& v) {
    uint64_t result = 0;
    for (uint64_t i = v[0]; i < v[0] + v[1] && i < 32; ++i) result |= 1ull << i;
    return Values{result};
  });
  expect_rows("bmsk.wrap.b32 $0, $1, $2", one, two, pairs(places, places),
              [](const Values& v) { return Values{((1ull << (v[1] & 31)) - 1) << (v[0] & 31)}; });
  for (bool wrap : {false, true}) {
    const std::string mode = wrap ? "wrap" : "clamp";
    for (bool is_signed : {false, true}) {
      expect_rows("szext." + mode + (is_signed ? ".s32" : ".u32") + " $0, $1, $2", one, two,
                  pairs(values, places), [&](const Values& v) {
                    const uint64_t n = wrap ? v[1] & 31 : std::min<uint64_t>(v[1], 32);
                    if (n == 0) return Values{0};
                    const uint64_t low = v[0] & ((1ull << n) - 1);
                    return Values{is_signed && (low >> (n - 1) & 1) ? low | ~0ull << n : low};
                  });
    }
  }
  expect_rows("fns.b32 $0, $1, $2, $3", one, three,
              triples(values, {0, 5, 31}, {0, 1, 3, 0xffffffff, 0xfffffffe}), [](const Values& v) {
                const int32_t n = static_cast<int32_t>(v[2]);
                if (n == 0) return Values{v[0] >> v[1] & 1 ? v[1] : 0xffffffff};
                int32_t found = 0;
                for (int64_t i = static_cast<int64_t>(v[1]); i >= 0 && i < 32; i += n > 0 ? 1 : -1) {
                  if (v[0] >> i & 1) found += n > 0 ? 1 : -1;
                  if (found == n) return Values{static_cast<uint64_t>(i)};
                }
                return Values{0xffffffff};
              });
}

void test_bytes() {
  const Values words = integer_values(4, 8, 15);
  const Values selectors = {0x3210, 0x7654, 0x5410, 0x7632, 0xba98, 0xfedc,
                            0x0123, 0x0000, 0x8888, 0x1234, 0x6420};
  const auto byte = [](const Values& v, uint64_t choice) {
    const uint64_t all = v[1] << 32 | v[0], value = all >> 8 * (choice & 7) & 255;
    return choice & 8 ? (value & 0x80 ? 0xffull : 0ull) : value;
  };
  expect_rows("prmt.b32 $0, $1, $2, $3", one, three, triples(words, words, selectors), [&](const Values& v) {
    uint64_t result = 0;
    for (int i = 0; i < 4; ++i) result |= byte(v, v[2] >> 4 * i & 15) << 8 * i;
    return Values{result};
  });
  // The table of modes in the ISA: selected bytes, highest first.
  struct Mode {
    const char* name;
    int bytes[4][4];
  };
  static constexpr Mode modes[] = {{"f4e", {{3, 2, 1, 0}, {4, 3, 2, 1}, {5, 4, 3, 2}, {6, 5, 4, 3}}},
                                   {"b4e", {{5, 6, 7, 0}, {6, 7, 0, 1}, {7, 0, 1, 2}, {0, 1, 2, 3}}},
                                   {"rc8", {{0, 0, 0, 0}, {1, 1, 1, 1}, {2, 2, 2, 2}, {3, 3, 3, 3}}},
                                   {"ecl", {{3, 2, 1, 0}, {3, 2, 1, 1}, {3, 2, 2, 2}, {3, 3, 3, 3}}},
                                   {"ecr", {{0, 0, 0, 0}, {1, 1, 1, 0}, {2, 2, 1, 0}, {3, 2, 1, 0}}},
                                   {"rc16", {{1, 0, 1, 0}, {3, 2, 3, 2}, {1, 0, 1, 0}, {3, 2, 3, 2}}}};
  for (const Mode& mode : modes) {
    expect_rows(std::string("prmt.b32.") + mode.name + " $0, $1, $2, $3", one, three,
                triples(words, words, {0, 1, 2, 3, 5}), [&](const Values& v) {
                  uint64_t result = 0;
                  for (int i = 0; i < 4; ++i)
                    result |= byte(v, static_cast<uint64_t>(mode.bytes[v[2] & 3][3 - i])) << 8 * i;
                  return Values{result};
                });
  }
  expect_rows("vabsdiff4.u32.u32.u32 $0, $1, $2, $3", one, three, triples(words, words, {0, 0xffffffff}),
              [](const Values& v) {
                uint64_t result = 0;
                for (int i = 0; i < 4; ++i) {
                  const int64_t p = v[0] >> 8 * i & 255, q = v[1] >> 8 * i & 255;
                  result |= static_cast<uint64_t>(std::abs(p - q)) << 8 * i;
                }
                return Values{result};
              });
  for (bool x_signed : {false, true}) {
    for (bool y_signed : {false, true}) {
      const std::string types = std::string(x_signed ? ".s32" : ".u32") + (y_signed ? ".s32" : ".u32");
      const auto value = [](uint64_t bits, int width, bool is_signed) {
        return is_signed ? static_cast<int64_t>(bits << (64 - width)) >> (64 - width)
                         : static_cast<int64_t>(bits << (64 - width) >> (64 - width));
      };
      expect_rows("dp4a" + types + " $0, $1, $2, $3", one, three, triples(words, words, words),
                  [&](const Values& v) {
                    int64_t sum = static_cast<int64_t>(v[2]);
                    for (int i = 0; i < 4; ++i)
                      sum += value(v[0] >> 8 * i, 8, x_signed) * value(v[1] >> 8 * i, 8, y_signed);
                    return Values{static_cast<uint64_t>(sum)};
                  });
      for (bool high : {false, true}) {
        expect_rows(std::string("dp2a.") + (high ? "hi" : "lo") + types + " $0, $1, $2, $3", one, three,
                    triples(words, words, words), [&](const Values& v) {
                      int64_t sum = static_cast<int64_t>(v[2]);
                      for (int i = 0; i < 2; ++i)
                        sum += value(v[0] >> 16 * i, 16, x_signed) *
                               value(v[1] >> (8 * i + (high ? 16 : 0)), 8, y_signed);
                      return Values{static_cast<uint64_t>(sum)};
                    });
      }
    }
  }
}

}  // namespace

void test_bits() {
  test_logic();
  test_fields();
  test_bytes();
}

}  // namespace bitloom::ptx::testing
