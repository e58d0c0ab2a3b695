// Integer arithmetic against 128-bit host arithmetic.
#include <algorithm>

#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

using Wide = __int128;

struct IntegerType {
  const char* name;
  uint32_t bytes;
  bool is_signed;
  Wide value(uint64_t bits) const {
    const uint32_t unused = 64 - 8 * bytes;
    return is_signed ? static_cast<Wide>(static_cast<int64_t>(bits << unused) >> unused)
                     : static_cast<Wide>(bits << unused >> unused);
  }
};
constexpr IntegerType kTypes[] = {{"u16", 2, false}, {"s16", 2, true},  {"u32", 4, false},
                                  {"s32", 4, true},  {"u64", 8, false}, {"s64", 8, true}};

void binary(const std::string& op, const IntegerType& type, Wide (*function)(Wide, Wide),
            bool nonzero = false) {
  Values second = integer_values(type.bytes, 6, 2);
  if (nonzero) std::erase(second, 0);
  expect_rows(op + "." + type.name + " $0, $1, $2", {{type.bytes}}, {{type.bytes}, {type.bytes}},
              pairs(integer_values(type.bytes, 6, 1), second), [&](const Values& v) {
                return Values{static_cast<uint64_t>(function(type.value(v[0]), type.value(v[1])))};
              });
}

Wide saturate(Wide x) { return x > 0x7fffffff ? 0x7fffffff : x < -Wide{0x80000000} ? -Wide{0x80000000} : x; }

void test_plain() {
  for (const IntegerType& type : kTypes) {
    binary("add", type, [](Wide x, Wide y) { return x + y; });
    binary("sub", type, [](Wide x, Wide y) { return x - y; });
    binary("mul.lo", type, [](Wide x, Wide y) {
      return static_cast<Wide>(static_cast<unsigned __int128>(x) * static_cast<unsigned __int128>(y));
    });
    binary("div", type, [](Wide x, Wide y) { return x / y; }, true);
    binary("rem", type, [](Wide x, Wide y) { return x % y; }, true);
    binary("min", type, [](Wide x, Wide y) { return x < y ? x : y; });
    binary("max", type, [](Wide x, Wide y) { return x > y ? x : y; });
    const std::string name = type.name;
    const Values values = integer_values(type.bytes, 6, 3), others = integer_values(type.bytes, 4, 4);
    const auto product = [&](const Values& v) { return type.value(v[0]) * type.value(v[1]); };
    expect_rows("mul.hi." + name + " $0, $1, $2", {{type.bytes}}, {{type.bytes}, {type.bytes}},
                pairs(values, others), [&](const Values& v) {
                  const auto p = static_cast<unsigned __int128>(type.value(v[0])) *
                                 static_cast<unsigned __int128>(type.value(v[1]));
                  if (!type.is_signed || type.bytes < 8)
                    return Values{static_cast<uint64_t>(
                        (type.is_signed ? static_cast<unsigned __int128>(product(v) >> (8 * type.bytes))
                                        : p >> (8 * type.bytes)))};
                  return Values{static_cast<uint64_t>(product(v) >> 64)};
                });
    expect_rows("mad.lo." + name + " $0, $1, $2, $3", {{type.bytes}},
                {{type.bytes}, {type.bytes}, {type.bytes}}, triples(values, others, values),
                [&](const Values& v) { return Values{v[0] * v[1] + v[2]}; });
    expect_rows(
        "mad.hi." + name + " $0, $1, $2, $3", {{type.bytes}}, {{type.bytes}, {type.bytes}, {type.bytes}},
        triples(values, others, values), [&](const Values& v) {
          const auto high =
              type.is_signed
                  ? static_cast<uint64_t>(product(v) >> (8 * type.bytes))
                  : static_cast<uint64_t>(static_cast<unsigned __int128>(v[0]) * v[1] >> (8 * type.bytes));
          return Values{high + v[2]};
        });
    expect_rows("sad." + name + " $0, $1, $2, $3", {{type.bytes}}, {{type.bytes}, {type.bytes}, {type.bytes}},
                triples(values, others, values), [&](const Values& v) {
                  const Wide x = type.value(v[0]), y = type.value(v[1]);
                  return Values{static_cast<uint64_t>((x < y ? y - x : x - y)) + v[2]};
                });
    if (type.bytes < 8) {
      const uint32_t wide = 2 * type.bytes;
      expect_rows("mul.wide." + name + " $0, $1, $2", {{wide}}, {{type.bytes}, {type.bytes}},
                  pairs(values, others),
                  [&](const Values& v) { return Values{static_cast<uint64_t>(product(v))}; });
      expect_rows("mad.wide." + name + " $0, $1, $2, $3", {{wide}}, {{type.bytes}, {type.bytes}, {wide}},
                  triples(values, others, integer_values(wide, 3, 5)),
                  [&](const Values& v) { return Values{static_cast<uint64_t>(product(v)) + v[2]}; });
    }
    if (type.is_signed) {
      expect_rows("abs." + name + " $0, $1", {{type.bytes}}, {{type.bytes}}, singles(values),
                  [&](const Values& v) {
                    const Wide x = type.value(v[0]);
                    return Values{static_cast<uint64_t>(x < 0 ? -x : x)};
                  });
      expect_rows("neg." + name + " $0, $1", {{type.bytes}}, {{type.bytes}}, singles(values),
                  [](const Values& v) { return Values{0 - v[0]}; });
    }
  }
}

void test_special() {
  const Values values = integer_values(4, 8, 6);
  const IntegerType s32{"s32", 4, true}, u32{"u32", 4, false};
  const std::vector<Column> one = {bits32()}, two = {bits32(), bits32()},
                            three = {bits32(), bits32(), bits32()};
  expect_rows("add.sat.s32 $0, $1, $2", one, two, pairs(values, values), [&](const Values& v) {
    return Values{static_cast<uint64_t>(saturate(s32.value(v[0]) + s32.value(v[1])))};
  });
  expect_rows("sub.sat.s32 $0, $1, $2", one, two, pairs(values, values), [&](const Values& v) {
    return Values{static_cast<uint64_t>(saturate(s32.value(v[0]) - s32.value(v[1])))};
  });
  expect_rows(
      "mad.hi.sat.s32 $0, $1, $2, $3", one, three, triples(values, values, values), [&](const Values& v) {
        return Values{
            static_cast<uint64_t>(saturate((s32.value(v[0]) * s32.value(v[1]) >> 32) + s32.value(v[2])))};
      });
  const auto low24 = [](const IntegerType& type, uint64_t bits) {
    return type.is_signed ? static_cast<Wide>(static_cast<int64_t>(bits << 40) >> 40)
                          : static_cast<Wide>(bits & 0xffffff);
  };
  for (const IntegerType& type : {u32, s32}) {
    const std::string name = type.name;
    expect_rows("mul24.lo." + name + " $0, $1, $2", one, two, pairs(values, values), [&](const Values& v) {
      return Values{static_cast<uint64_t>(low24(type, v[0]) * low24(type, v[1]))};
    });
    expect_rows("mul24.hi." + name + " $0, $1, $2", one, two, pairs(values, values), [&](const Values& v) {
      return Values{static_cast<uint64_t>(low24(type, v[0]) * low24(type, v[1]) >> 16)};
    });
    expect_rows("mad24.lo." + name + " $0, $1, $2, $3", one, three, triples(values, values, values),
                [&](const Values& v) {
                  return Values{static_cast<uint64_t>(low24(type, v[0]) * low24(type, v[1])) + v[2]};
                });
  }
  for (bool smaller : {true, false}) {
    for (bool is_signed : {true, false}) {
      expect_rows(std::string(smaller ? "min." : "max.") + (is_signed ? "s16x2" : "u16x2") + " $0, $1, $2",
                  one, two, pairs(values, values), [&](const Values& v) {
                    uint64_t result = 0;
                    for (int i = 0; i < 2; ++i) {
                      const IntegerType half{"", 2, is_signed};
                      const Wide x = half.value(v[0] >> 16 * i), y = half.value(v[1] >> 16 * i);
                      result |= (static_cast<uint64_t>(smaller == (x < y) ? x : y) & 0xffff) << 16 * i;
                    }
                    return Values{result};
                  });
    }
  }
  expect_rows("add.u16x2 $0, $1, $2", one, two, pairs(values, values), [](const Values& v) {
    return Values{((v[0] + v[1]) & 0xffff) | (((v[0] >> 16) + (v[1] >> 16)) & 0xffff) << 16};
  });
  expect_rows("max.s32.relu $0, $1, $2", one, two, pairs(values, values), [&](const Values& v) {
    return Values{static_cast<uint64_t>(std::max({s32.value(v[0]), s32.value(v[1]), Wide{0}}))};
  });
}

// Long addition, subtraction and multiplication through the carry flag.
void test_carry() {
  const Values values = integer_values(8, 8, 7);
  const std::vector<Column> two = {bits64(), bits64()};
  const std::string split = "mov.b64 {%r1, %r2}, $1; mov.b64 {%r3, %r4}, $2; ",
                    join = "; mov.b64 $0, {%r5, %r6}";
  expect_rows(split + "add.cc.u32 %r5, %r1, %r3; addc.u32 %r6, %r2, %r4" + join, {bits64()}, two,
              pairs(values, values), [](const Values& v) { return Values{v[0] + v[1]}; });
  expect_rows(split + "sub.cc.u32 %r5, %r1, %r3; subc.u32 %r6, %r2, %r4" + join, {bits64()}, two,
              pairs(values, values), [](const Values& v) { return Values{v[0] - v[1]}; });
  expect_rows(
      "add.cc.u64 $0, $1, $2; addc.u64 %d1, 0, 0; add.cc.u32 %r1, 1, 1; addc.cc.u32 %r2, 0xffffffff, 0; "
      "add.u64 $0, %d1, 0",
      {bits64()}, two, pairs(values, values), [](const Values& v) {
        return Values{static_cast<uint64_t>((static_cast<unsigned __int128>(v[0]) + v[1]) >> 64)};
      });
  // The product of two 32-bit values from 16-bit thoughts: low and high halves with a carry between them.
  expect_rows(split + "mad.lo.cc.u32 %r5, %r1, %r3, %r2; madc.hi.u32 %r6, %r1, %r3, %r4" + join, {bits64()},
              two, pairs(values, values), [](const Values& v) {
                const uint64_t a = v[0] & 0xffffffff, b = v[0] >> 32, c = v[1] & 0xffffffff, d = v[1] >> 32;
                return Values{a * c + b + (d << 32)};
              });
}

}  // namespace

void test_integers() {
  test_plain();
  test_special();
  test_carry();
}

}  // namespace bitloom::ptx::testing
