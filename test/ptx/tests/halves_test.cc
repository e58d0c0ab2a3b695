// f16, bf16 and pairs: the exact result in 113 bits, rounded by search in the list of values.
#include "small_floats.h"

namespace bitloom::ptx::testing {
namespace {

using Exact = __float128;

struct Kind {
  const char* name;
  const SmallFormat& format;
};

// A __float128 holds every sum of a product and an addend of f16 exactly, and of bf16 up to rounding far
// below bf16; its conversion to long double is made sticky, so that the search sees on which side of a tie it
// lies.
long double sticky(Exact value) {
  const long double narrow = static_cast<long double>(value);
  const Exact rest = value - static_cast<Exact>(narrow);
  if (rest == 0 || !std::isfinite(narrow)) return narrow;
  return std::nextafter(narrow, rest > 0 ? HUGE_VALL : -HUGE_VALL);
}

using Operation = Exact (*)(Exact, Exact, Exact);

void operation(const Kind& kind, const std::string& op, size_t sources, Operation function) {
  const Values values = half_values(31, 10), few = half_values(32, 2);
  const std::vector<Values> inputs = sources == 1   ? singles(values)
                                     : sources == 2 ? pairs(values, values)
                                                    : triples(values, few, values);
  std::string operands = "$0";
  for (size_t i = 1; i <= sources; ++i) operands += ", $" + std::to_string(i);
  const auto compute = [&](const Values& v) {
    Exact s[3] = {};
    for (size_t i = 0; i < sources; ++i) s[i] = kind.format.value(v[i]);
    return kind.format.nearest(sticky(function(s[0], s[1], s[2])));
  };
  const auto same = [&](uint64_t a, uint64_t b) {
    return a == b || (std::isnan(kind.format.value(a)) && std::isnan(kind.format.value(b)));
  };
  expect_rows(
      op + "." + kind.name + " " + operands, {bits16()}, std::vector<Column>(sources, bits16()), inputs,
      [&](const Values& v) { return Values{compute(v)}; }, same);
  // Pairs: this row below, a fixed row above.
  std::vector<Values> doubled = inputs;
  for (Values& row : doubled) {
    for (uint64_t& value : row) value |= 0x3e00ull << 16;
  }
  expect_rows(
      op + "." + kind.name + "x2 " + operands, {bits32()}, std::vector<Column>(sources, bits32()), doubled,
      [&](const Values& v) {
        Values low = v, high = v;
        for (uint64_t& value : low) value &= 0xffff;
        for (uint64_t& value : high) value >>= 16;
        return Values{compute(low) | compute(high) << 16};
      },
      [&](uint64_t a, uint64_t b) { return same(a & 0xffff, b & 0xffff) && same(a >> 16, b >> 16); });
}

void selection(const Kind& kind) {
  const Values values = half_values(33, 8);
  for (bool smaller : {true, false}) {
    const auto pick = [&](uint64_t x, uint64_t y) {
      const double p = kind.format.value(x), q = kind.format.value(y);
      if (std::isnan(p) && std::isnan(q)) return kind.format.nan;
      if (std::isnan(p)) return y;
      if (std::isnan(q)) return x;
      if (p == q) return std::signbit(p) == smaller ? x : y;
      return (p < q) == smaller ? x : y;
    };
    const std::string name = std::string(smaller ? "min" : "max");
    expect_rows(name + "." + kind.name + " $0, $1, $2", {bits16()}, {bits16(), bits16()},
                pairs(values, values), [&](const Values& v) { return Values{pick(v[0], v[1])}; });
    expect_rows(name + ".NaN." + kind.name + " $0, $1, $2", {bits16()}, {bits16(), bits16()},
                pairs(values, values), [&](const Values& v) {
                  return Values{std::isnan(kind.format.value(v[0])) || std::isnan(kind.format.value(v[1]))
                                    ? kind.format.nan
                                    : pick(v[0], v[1])};
                });
  }
}

}  // namespace

void test_halves() {
  const Kind kinds[] = {{"f16", f16_format()}, {"bf16", bf16_format()}};
  for (const Kind& kind : kinds) {
    operation(kind, "add", 2, [](Exact x, Exact y, Exact) { return x + y; });
    operation(kind, "sub", 2, [](Exact x, Exact y, Exact) { return x - y; });
    operation(kind, "mul", 2, [](Exact x, Exact y, Exact) { return x * y; });
    operation(kind, "fma.rn", 3, [](Exact x, Exact y, Exact z) { return x * y + z; });
    operation(kind, "abs", 1, [](Exact x, Exact, Exact) {
      return x < 0 || (x == 0 && std::signbit(static_cast<double>(x))) ? -x : x;
    });
    operation(kind, "neg", 1, [](Exact x, Exact, Exact) { return -x; });
    selection(kind);
    const auto function = [&](const std::string& instruction, double (*host)(double)) {
      expect_rows(
          instruction + " $0, $1", {bits16()}, {bits16()}, singles(half_values(34, 40)),
          [&](const Values& v) { return Values{kind.format.nearest(host(kind.format.value(v[0])))}; },
          [&](uint64_t a, uint64_t b) {
            return a == b || (std::isnan(kind.format.value(a)) && std::isnan(kind.format.value(b)));
          });
    };
    function(std::string("tanh.approx.") + kind.name, [](double x) { return std::tanh(x); });
    function(std::string("ex2.approx.") + (kind.name[0] == 'b' ? "ftz." : "") + kind.name,
             [](double x) { return std::exp2(x); });
  }
  const Values values = half_values(35, 20), others = half_values(36, 10);
  const auto f16 = [](uint64_t bits) { return f16_format().value(bits); };
  expect_rows(
      "add.sat.f16 $0, $1, $2", {bits16()}, {bits16(), bits16()}, pairs(values, others),
      [&](const Values& v) {
        const double sum = f16(v[0]) + f16(v[1]);
        return Values{f16_format().nearest(std::isnan(sum) || sum < 0 ? 0.0 : std::min(sum, 1.0)) & 0x7fff};
      });
  expect_rows(
      "fma.rn.relu.f16 $0, $1, $2, $3", {bits16()}, {bits16(), bits16(), bits16()},
      triples(values, others, values),
      [&](const Values& v) {
        const double sum = f16(v[0]) * f16(v[1]) + f16(v[2]);
        return Values{
            sum < 0 ? 0
                    : f16_format().nearest(sticky(static_cast<Exact>(f16(v[0])) * f16(v[1]) + f16(v[2])))};
      },
      [&](uint64_t a, uint64_t b) {
        return a == b || (f16(a) == 0 && f16(b) == 0) || (std::isnan(f16(a)) && std::isnan(f16(b)));
      });
  expect_rows(
      "mul.ftz.f16 $0, $1, $2", {bits16()}, {bits16(), bits16()}, pairs(values, others),
      [&](const Values& v) {
        const auto flush = [](uint64_t x) { return (x & 0x7c00) == 0 ? x & 0x8000 : x; };
        return Values{flush(f16_format().nearest(f16(flush(v[0])) * f16(flush(v[1]))))};
      },
      [&](uint64_t a, uint64_t b) { return a == b || (std::isnan(f16(a)) && std::isnan(f16(b))); });
}

}  // namespace bitloom::ptx::testing
