// f32 and f64 arithmetic against the host's, with .ftz, .sat and directed rounding.
#include <cfenv>

#include "small_floats.h"

namespace bitloom::ptx::testing {
namespace {

float flushed(float x) { return std::fpclassify(x) == FP_SUBNORMAL ? std::copysign(0.0f, x) : x; }
// To [0, 1], NaN to 0; of -0 the ISA says nothing, here it becomes 0.
float saturated(float x) { return x > 0 ? (x > 1 ? 1.0f : x) : 0.0f; }

// Rounds what `function` computes in long double (64 bits of mantissa: sums and products of two f32 are exact
// or round once more far below f32; the fma of the host is asked where that is not enough).
void f32_operation(const std::string& op, size_t sources, float (*function)(float, float, float)) {
  const Values values = float_values(21, 12);
  std::vector<Values> inputs = sources == 1   ? singles(values)
                               : sources == 2 ? pairs(values, values)
                                              : triples(values, values, values);
  std::string operands = "$0";
  for (size_t i = 1; i <= sources; ++i) operands += ", $" + std::to_string(i);
  const std::vector<Column> columns(sources, bits32());
  for (bool ftz : {false, true}) {
    for (bool sat : {false, true}) {
      if (sat && (op == "div.rn" || op == "sqrt.rn" || op == "rcp.rn")) continue;
      expect_rows(
          op + (ftz ? ".ftz" : "") + (sat ? ".sat" : "") + ".f32 " + operands, {bits32()}, columns, inputs,
          [&](const Values& v) {
            float x = as_f32(v[0]), y = sources > 1 ? as_f32(v[1]) : 0, z = sources > 2 ? as_f32(v[2]) : 0;
            if (ftz) x = flushed(x), y = flushed(y), z = flushed(z);
            float result = function(x, y, z);
            if (sat) result = saturated(result);
            if (ftz) result = flushed(result);
            return Values{bits_of(result)};
          },
          same_f32);
    }
  }
  static constexpr struct {
    const char* name;
    int mode;
  } modes[] = {{"rz", FE_TOWARDZERO}, {"rm", FE_DOWNWARD}, {"rp", FE_UPWARD}};
  for (const auto& mode : modes) {
    std::string directed = op.substr(0, op.find('.')) + "." + mode.name;
    expect_rows(
        directed + ".f32 " + operands, {bits32()}, columns, inputs,
        [&](const Values& v) {
          std::fesetround(mode.mode);
          volatile float x = as_f32(v[0]), y = sources > 1 ? as_f32(v[1]) : 0,
                         z = sources > 2 ? as_f32(v[2]) : 0;
          volatile float result = function(x, y, z);
          std::fesetround(FE_TONEAREST);
          return Values{bits_of(float{result})};
        },
        same_f32);
  }
}

void f64_operation(const std::string& op, size_t sources, double (*function)(double, double, double)) {
  const Values values = double_values(22, 8);
  std::vector<Values> inputs = sources == 1   ? singles(values)
                               : sources == 2 ? pairs(values, values)
                                              : triples(values, values, values);
  std::string operands = "$0";
  for (size_t i = 1; i <= sources; ++i) operands += ", $" + std::to_string(i);
  expect_rows(
      op + ".f64 " + operands, {bits64()}, std::vector<Column>(sources, bits64()), inputs,
      [&](const Values& v) {
        return Values{
            bits_of(function(as_f64(v[0]), sources > 1 ? as_f64(v[1]) : 0, sources > 2 ? as_f64(v[2]) : 0))};
      },
      same_f64);
}

// Within `ulps` of the double result; the ISA's own bounds for hardware are wider.
void approximate(const std::string& instruction, double (*function)(double), const Values& values, bool ftz) {
  expect_rows(
      instruction + " $0, $1", {bits32()}, {bits32()}, singles(values),
      [&](const Values& v) {
        float result = static_cast<float>(function(ftz ? flushed(as_f32(v[0])) : as_f32(v[0])));
        return Values{bits_of(ftz ? flushed(result) : result)};
      },
      [](uint64_t a, uint64_t b) {
        return same_f32(a, b) || std::llabs(static_cast<int64_t>(a) - static_cast<int64_t>(b)) <= 1;
      });
}

void test_selection() {
  const Values values = float_values(23, 6), doubles = double_values(24, 4);
  for (bool smaller : {true, false}) {
    const std::string name = smaller ? "min" : "max";
    const auto pick = [=](double x, double y) {
      if (std::isnan(x)) return y;
      if (std::isnan(y)) return x;
      if (x == y) return std::signbit(x) == smaller ? x : y;
      return (x < y) == smaller ? x : y;
    };
    expect_rows(
        name + ".f32 $0, $1, $2", {bits32()}, {bits32(), bits32()}, pairs(values, values),
        [&](const Values& v) {
          return Values{bits_of(static_cast<float>(pick(as_f32(v[0]), as_f32(v[1]))))};
        },
        same_f32);
    expect_rows(name + ".NaN.f32 $0, $1, $2", {bits32()}, {bits32(), bits32()}, pairs(values, values),
                [&](const Values& v) {
                  const float x = as_f32(v[0]), y = as_f32(v[1]);
                  return Values{std::isnan(x) || std::isnan(y) ? 0x7fffffff
                                                               : bits_of(static_cast<float>(pick(x, y)))};
                });
    expect_rows(
        name + ".ftz.f32 $0, $1, $2", {bits32()}, {bits32(), bits32()}, pairs(values, values),
        [&](const Values& v) {
          return Values{bits_of(static_cast<float>(pick(flushed(as_f32(v[0])), flushed(as_f32(v[1])))))};
        },
        same_f32);
    expect_rows(
        name + ".f32 $0, $1, $2, $3", {bits32()}, {bits32(), bits32(), bits32()},
        triples(values, values, values),
        [&](const Values& v) {
          return Values{bits_of(static_cast<float>(pick(pick(as_f32(v[0]), as_f32(v[1])), as_f32(v[2]))))};
        },
        same_f32);
    expect_rows(
        name + ".f64 $0, $1, $2", {bits64()}, {bits64(), bits64()}, pairs(doubles, doubles),
        [&](const Values& v) { return Values{bits_of(pick(as_f64(v[0]), as_f64(v[1])))}; }, same_f64);
  }
}

}  // namespace

void test_floats() {
  f32_operation("add.rn", 2, [](float x, float y, float) { return x + y; });
  f32_operation("sub.rn", 2, [](float x, float y, float) { return x - y; });
  f32_operation("mul.rn", 2, [](float x, float y, float) { return x * y; });
  f32_operation("fma.rn", 3, [](float x, float y, float z) { return std::fma(x, y, z); });
  f32_operation("mad.rn", 3, [](float x, float y, float z) { return std::fma(x, y, z); });
  f32_operation("div.rn", 2, [](float x, float y, float) { return x / y; });
  f32_operation("sqrt.rn", 1, [](float x, float, float) { return std::sqrt(x); });
  f32_operation("rcp.rn", 1, [](float x, float, float) { return 1.0f / x; });
  f64_operation("add.rn", 2, [](double x, double y, double) { return x + y; });
  f64_operation("sub", 2, [](double x, double y, double) { return x - y; });
  f64_operation("mul.rn", 2, [](double x, double y, double) { return x * y; });
  f64_operation("fma.rn", 3, [](double x, double y, double z) { return std::fma(x, y, z); });
  f64_operation("div.rn", 2, [](double x, double y, double) { return x / y; });
  f64_operation("sqrt.rn", 1, [](double x, double, double) { return std::sqrt(x); });
  f64_operation("rcp.rn", 1, [](double x, double, double) { return 1.0 / x; });
  f64_operation("abs", 1, [](double x, double, double) { return std::fabs(x); });
  f64_operation("neg", 1, [](double x, double, double) { return -x; });
  const Values values = float_values(25, 60);
  for (bool ftz : {false, true}) {
    const std::string suffix = ftz ? ".ftz.f32" : ".f32";
    approximate("ex2.approx" + suffix, [](double x) { return std::exp2(x); }, values, ftz);
    approximate("lg2.approx" + suffix, [](double x) { return std::log2(x); }, values, ftz);
    approximate("sin.approx" + suffix, [](double x) { return std::sin(x); }, values, ftz);
    approximate("cos.approx" + suffix, [](double x) { return std::cos(x); }, values, ftz);
    approximate("rsqrt.approx" + suffix, [](double x) { return 1.0 / std::sqrt(x); }, values, ftz);
    approximate("rcp.approx" + suffix, [](double x) { return 1.0 / x; }, values, ftz);
    approximate("sqrt.approx" + suffix, [](double x) { return std::sqrt(x); }, values, ftz);
    expect_rows(
        "abs" + suffix + " $0, $1", {bits32()}, {bits32()}, singles(values),
        [&](const Values& v) {
          return Values{bits_of(std::fabs(ftz ? flushed(as_f32(v[0])) : as_f32(v[0])))};
        },
        same_f32);
    expect_rows(
        "neg" + suffix + " $0, $1", {bits32()}, {bits32()}, singles(values),
        [&](const Values& v) { return Values{bits_of(-(ftz ? flushed(as_f32(v[0])) : as_f32(v[0])))}; },
        same_f32);
    for (const char* form : {"div.approx", "div.full"}) {
      expect_rows(
          form + suffix + " $0, $1, $2", {bits32()}, {bits32(), bits32()},
          pairs(values, {0x40400000, 0xbf000000, 0x3f800000}),
          [&](const Values& v) {
            const float result = (ftz ? flushed(as_f32(v[0])) : as_f32(v[0])) / as_f32(v[1]);
            return Values{bits_of(ftz ? flushed(result) : result)};
          },
          same_f32);
    }
  }
  approximate("tanh.approx.f32", [](double x) { return std::tanh(x); }, values, false);
  expect_rows("copysign.f32 $0, $1, $2", {bits32()}, {bits32(), bits32()}, pairs(values, {0, 0x80000000}),
              [](const Values& v) { return Values{(v[1] & 0x7fffffff) | (v[0] & 0x80000000)}; });
  expect_rows("copysign.f64 $0, $1, $2", {bits64()}, {bits64(), bits64()},
              pairs({bits_of(-1.5), bits_of(2.0)}, {bits_of(3.0), bits_of(-4.0)}),
              [](const Values& v) { return Values{(v[1] & ~(1ull << 63)) | (v[0] & 1ull << 63)}; });
  test_selection();
}

}  // namespace bitloom::ptx::testing
