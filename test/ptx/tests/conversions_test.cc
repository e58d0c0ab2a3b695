// cvt: every pair of types that compilers use, every rounding, saturation, packed forms.
#include <algorithm>

#include "small_floats.h"

namespace bitloom::ptx::testing {
namespace {

using Wide = __int128;

struct Integer {
  const char* name;
  uint32_t bytes;
  bool is_signed;
  Wide low() const { return is_signed ? -(Wide{1} << (8 * bytes - 1)) : 0; }
  Wide high() const { return (Wide{1} << (8 * bytes - (is_signed ? 1 : 0))) - 1; }
  Wide value(uint64_t bits) const {
    const uint32_t unused = 64 - 8 * bytes;
    return is_signed ? static_cast<Wide>(static_cast<int64_t>(bits << unused) >> unused)
                     : static_cast<Wide>(bits << unused >> unused);
  }
};
constexpr Integer kIntegers[] = {{"u8", 1, false},  {"s8", 1, true},  {"u16", 2, false}, {"s16", 2, true},
                                 {"u32", 4, false}, {"s32", 4, true}, {"u64", 8, false}, {"s64", 8, true}};

uint32_t register_bytes(uint32_t bytes) { return std::max(bytes, 2u); }

void test_integers_to_integers() {
  for (const Integer& from : kIntegers) {
    const std::vector<Values> inputs = singles(integer_values(from.bytes, 8, 41));
    for (const Integer& to : kIntegers) {
      const std::vector<Column> d = {{register_bytes(to.bytes)}}, s = {{register_bytes(from.bytes)}};
      const std::string types = std::string(to.name) + "." + from.name + " $0, $1";
      // A narrow result is extended to its register.
      expect_rows("cvt." + types, d, s, inputs, [&](const Values& v) {
        return Values{static_cast<uint64_t>(to.value(static_cast<uint64_t>(from.value(v[0]))))};
      });
      expect_rows("cvt.sat." + types, d, s, inputs, [&](const Values& v) {
        return Values{static_cast<uint64_t>(std::clamp(from.value(v[0]), to.low(), to.high()))};
      });
    }
  }
}

double rounded(double x, const std::string& mode) {
  if (mode == "rzi") return std::trunc(x);
  if (mode == "rmi") return std::floor(x);
  if (mode == "rpi") return std::ceil(x);
  return std::nearbyint(x);
}

void test_floats_and_integers() {
  const Values floats = float_values(42, 60), doubles = double_values(43, 40), halves = half_values(44, 40);
  for (const Integer& integer : kIntegers) {
    const auto clamp = [&](double x) {
      if (std::isnan(x)) return uint64_t{0};
      if (x >= static_cast<double>(integer.high())) return static_cast<uint64_t>(integer.high());
      if (x <= static_cast<double>(integer.low())) return static_cast<uint64_t>(integer.low());
      return static_cast<uint64_t>(static_cast<Wide>(x));
    };
    const std::vector<Column> d = {{register_bytes(integer.bytes)}};
    for (const char* mode : {"rni", "rzi", "rmi", "rpi"}) {
      const std::string head = std::string("cvt.") + mode + "." + integer.name;
      expect_rows(head + ".f32 $0, $1", d, {bits32()}, singles(floats),
                  [&](const Values& v) { return Values{clamp(rounded(as_f32(v[0]), mode))}; });
      expect_rows(head + ".f64 $0, $1", d, {bits64()}, singles(doubles),
                  [&](const Values& v) { return Values{clamp(rounded(as_f64(v[0]), mode))}; });
      expect_rows(head + ".f16 $0, $1", d, {bits16()}, singles(halves),
                  [&](const Values& v) { return Values{clamp(rounded(f16_format().value(v[0]), mode))}; });
    }
    const Values values = integer_values(integer.bytes, 20, 45);
    const std::vector<Column> s = {{register_bytes(integer.bytes)}};
    const std::string tail = std::string(integer.name) + " $0, $1";
    expect_rows("cvt.rn.f32." + tail, {bits32()}, s, singles(values), [&](const Values& v) {
      const Wide x = integer.value(v[0]);
      return Values{bits_of(x < 0 ? -static_cast<float>(static_cast<uint64_t>(-x))
                                  : static_cast<float>(static_cast<uint64_t>(x)))};
    });
    expect_rows("cvt.rn.f64." + tail, {bits64()}, s, singles(values), [&](const Values& v) {
      const Wide x = integer.value(v[0]);
      return Values{bits_of(x < 0 ? -static_cast<double>(static_cast<uint64_t>(-x))
                                  : static_cast<double>(static_cast<uint64_t>(x)))};
    });
    expect_rows("cvt.rn.f16." + tail, {bits16()}, s, singles(values), [&](const Values& v) {
      return Values{f16_format().nearest(static_cast<long double>(integer.value(v[0])))};
    });
  }
}

void test_floats_to_floats() {
  const Values floats = float_values(46, 200), doubles = double_values(47, 100),
               halves = half_values(48, 100);
  const auto same_small = [](const SmallFormat& f) {
    return
        [&f](uint64_t a, uint64_t b) { return a == b || (std::isnan(f.value(a)) && std::isnan(f.value(b))); };
  };
  const struct {
    const char* name;
    const SmallFormat& format;
  } kinds[] = {{"f16", f16_format()}, {"bf16", bf16_format()}};
  for (const auto& kind : kinds) {
    const std::string name = kind.name;
    const auto same = same_small(kind.format);
    expect_rows(
        "cvt.rn." + name + ".f32 $0, $1", {bits16()}, {bits32()}, singles(floats),
        [&](const Values& v) { return Values{kind.format.nearest(as_f32(v[0]))}; }, same);
    expect_rows(
        "cvt.rz." + name + ".f32 $0, $1", {bits16()}, {bits32()}, singles(floats),
        [&](const Values& v) { return Values{kind.format.truncated(as_f32(v[0]))}; }, same);
    expect_rows(
        "cvt.rn.satfinite." + name + ".f32 $0, $1", {bits16()}, {bits32()}, singles(floats),
        [&](const Values& v) { return Values{kind.format.nearest(as_f32(v[0]), true)}; }, same);
    expect_rows(
        "cvt.rn.relu." + name + ".f32 $0, $1", {bits16()}, {bits32()}, singles(floats),
        [&](const Values& v) { return Values{as_f32(v[0]) <= 0 ? 0 : kind.format.nearest(as_f32(v[0]))}; },
        same);
    expect_rows(
        "cvt.f32." + name + " $0, $1", {bits32()}, {bits16()}, singles(halves),
        [&](const Values& v) { return Values{bits_of(static_cast<float>(kind.format.value(v[0])))}; },
        same_f32);
    expect_rows(
        "cvt.rn." + name + "x2.f32 $0, $1, $2", {bits32()}, {bits32(), bits32()},
        pairs(floats, {0x3f800000, 0xc0490fdb, 0x7f800000}),
        [&](const Values& v) {
          return Values{kind.format.nearest(as_f32(v[0])) << 16 | kind.format.nearest(as_f32(v[1]))};
        },
        [&](uint64_t a, uint64_t b) { return same(a >> 16, b >> 16) && same(a & 0xffff, b & 0xffff); });
    expect_rows(
        "cvt.rz." + name + "x2.f32 $0, $1, $2", {bits32()}, {bits32(), bits32()},
        pairs(floats, {0x3f800000, 0xc0490fdb}),
        [&](const Values& v) {
          return Values{kind.format.truncated(as_f32(v[0])) << 16 | kind.format.truncated(as_f32(v[1]))};
        },
        [&](uint64_t a, uint64_t b) { return same(a >> 16, b >> 16) && same(a & 0xffff, b & 0xffff); });
  }
  expect_rows(
      "cvt.rn.f16.f64 $0, $1", {bits16()}, {bits64()}, singles(doubles),
      [&](const Values& v) { return Values{f16_format().nearest(as_f64(v[0]))}; }, same_small(f16_format()));
  expect_rows(
      "cvt.f64.f32 $0, $1", {bits64()}, {bits32()}, singles(floats),
      [](const Values& v) { return Values{bits_of(static_cast<double>(as_f32(v[0])))}; }, same_f64);
  expect_rows(
      "cvt.rn.f32.f64 $0, $1", {bits32()}, {bits64()}, singles(doubles),
      [](const Values& v) { return Values{bits_of(static_cast<float>(as_f64(v[0])))}; }, same_f32);
  for (const char* mode : {"rni", "rzi", "rmi", "rpi"}) {
    expect_rows(
        std::string("cvt.") + mode + ".f32.f32 $0, $1", {bits32()}, {bits32()}, singles(floats),
        [&](const Values& v) { return Values{bits_of(static_cast<float>(rounded(as_f32(v[0]), mode)))}; },
        same_f32);
  }
  expect_rows("cvt.sat.f32.f32 $0, $1", {bits32()}, {bits32()}, singles(floats), [](const Values& v) {
    const float x = as_f32(v[0]);
    return Values{bits_of(std::isnan(x) || x <= 0 ? 0.0f : std::min(x, 1.0f))};
  });
  expect_rows(
      "cvt.ftz.f32.f32 $0, $1", {bits32()}, {bits32()}, singles(floats),
      [](const Values& v) { return Values{(v[0] & 0x7f800000) ? v[0] : v[0] & 0x80000000}; }, same_f32);
  // tf32: 10 bits of mantissa, ties away from zero.
  expect_rows(
      "cvt.rna.tf32.f32 $0, $1", {bits32()}, {bits32()}, singles(floats),
      [](const Values& v) {
        if (std::isnan(as_f32(v[0]))) return v;
        return Values{(v[0] & 0x7f800000) == 0x7f800000 ? v[0] : (v[0] + 0x1000) & 0xffffe000};
      },
      same_f32);
  const struct {
    const char* name;
    const SmallFormat& format;
  } bytes[] = {{"e4m3x2", e4m3_format()}, {"e5m2x2", e5m2_format()}};
  for (const auto& kind : bytes) {
    const std::string name = kind.name;
    expect_rows("cvt.rn.satfinite." + name + ".f32 $0, $1, $2", {bits16()}, {bits32(), bits32()},
                pairs(floats, {0x3f800000, 0xc3e10000}), [&](const Values& v) {
                  return Values{kind.format.nearest(as_f32(v[0]), true) << 8 |
                                kind.format.nearest(as_f32(v[1]), true)};
                });
    expect_rows("cvt.rn.satfinite." + name + ".f16x2 $0, $1", {bits16()}, {bits32()},
                singles(pairs(halves, {0x3c00})[0]), [&](const Values& v) {
                  return Values{kind.format.nearest(f16_format().value(v[0] >> 16), true) << 8 |
                                kind.format.nearest(f16_format().value(v[0] & 0xffff), true)};
                });
    Values all;
    for (uint64_t i = 0; i < 256; ++i) all.push_back(i << 8 | (255 - i));
    expect_rows(
        "cvt.rn.f16x2." + name + " $0, $1", {bits32()}, {bits16()}, singles(all),
        [&](const Values& v) {
          return Values{f16_format().nearest(kind.format.value(v[0] >> 8)) << 16 |
                        f16_format().nearest(kind.format.value(v[0] & 255))};
        },
        [&](uint64_t a, uint64_t b) {
          return same_small(f16_format())(a >> 16, b >> 16) &&
                 same_small(f16_format())(a & 0xffff, b & 0xffff);
        });
  }
}

}  // namespace

void test_conversions() {
  test_integers_to_integers();
  test_floats_and_integers();
  test_floats_to_floats();
}

}  // namespace bitloom::ptx::testing
