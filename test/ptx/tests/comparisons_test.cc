// setp, set, selp, slct, testp.
#include "small_floats.h"

namespace bitloom::ptx::testing {
namespace {

template <typename T>
bool holds(const std::string& op, T x, T y) {
  const bool unordered = x != x || y != y;
  if (op == "num") return !unordered;
  if (op == "nan") return unordered;
  if (op.size() == 3) return unordered || holds(op.substr(0, 2), x, y);
  if (unordered) return false;
  if (op == "eq") return x == y;
  if (op == "ne") return x != y;
  if (op == "lt" || op == "lo") return x < y;
  if (op == "le" || op == "ls") return x <= y;
  if (op == "gt" || op == "hi") return x > y;
  return x >= y;
}

const std::vector<Column> kPredicate = {predicate_column()};
const char* const kOrdered[] = {"eq", "ne", "lt", "le", "gt", "ge"};
const char* const kUnordered[] = {"eq",  "ne",  "lt",  "le",  "gt",  "ge",  "equ",
                                  "neu", "ltu", "leu", "gtu", "geu", "num", "nan"};

template <typename T>
void integers(const std::string& type) {
  const Values values = integer_values(sizeof(T), 4, 51);
  for (const char* op : kOrdered) {
    expect_rows(std::string("setp.") + op + "." + type + " $0, $1, $2", kPredicate,
                {{sizeof(T)}, {sizeof(T)}}, pairs(values, values), [&](const Values& v) {
                  return Values{holds(op, static_cast<T>(v[0]), static_cast<T>(v[1]))};
                });
  }
}

}  // namespace

void test_comparisons() {
  integers<uint16_t>("u16");
  integers<int16_t>("s16");
  integers<uint32_t>("u32");
  integers<int32_t>("s32");
  integers<uint64_t>("u64");
  integers<int64_t>("s64");
  const Values words = integer_values(4, 4, 52), floats = float_values(53, 6), doubles = double_values(54, 4),
               halves = half_values(55, 6);
  const std::vector<Column> two = {bits32(), bits32()}, three = {bits32(), bits32(), bits32()};
  for (const char* op : {"lo", "ls", "hi", "hs"}) {
    expect_rows(std::string("setp.") + op + ".u32 $0, $1, $2", kPredicate, two, pairs(words, words),
                [&](const Values& v) { return Values{holds(op, v[0], v[1])}; });
  }
  for (const char* op : kUnordered) {
    const std::string name = op;
    expect_rows("setp." + name + ".f32 $0, $1, $2", kPredicate, two, pairs(floats, floats),
                [&](const Values& v) { return Values{holds(name, as_f32(v[0]), as_f32(v[1]))}; });
    expect_rows("setp." + name + ".f64 $0, $1, $2", kPredicate, {bits64(), bits64()}, pairs(doubles, doubles),
                [&](const Values& v) { return Values{holds(name, as_f64(v[0]), as_f64(v[1]))}; });
    expect_rows("setp." + name + ".f16 $0, $1, $2", kPredicate, {bits16(), bits16()}, pairs(halves, halves),
                [&](const Values& v) {
                  return Values{holds(name, f16_format().value(v[0]), f16_format().value(v[1]))};
                });
    expect_rows("setp." + name + ".bf16 $0, $1, $2", kPredicate, {bits16(), bits16()}, pairs(halves, halves),
                [&](const Values& v) {
                  return Values{holds(name, bf16_format().value(v[0]), bf16_format().value(v[1]))};
                });
  }
  expect_rows("setp.eq.ftz.f32 $0, $1, $2", kPredicate, two, pairs(floats, floats), [](const Values& v) {
    const auto flush = [](uint64_t x) { return (x & 0x7f800000) ? as_f32(x) : 0.0f; };
    return Values{flush(v[0]) == flush(v[1])};
  });
  const std::vector<Values> pair_rows =
      pairs({0x3c004000, 0x7e003c00, 0xc0000001}, {0x3c003c00, 0x40004000, 0x80000000});
  expect_rows("setp.lt.f16x2 $0|$1, $2, $3", {predicate_column(), predicate_column()}, two, pair_rows,
              [](const Values& v) {
                return Values{f16_format().value(v[0] & 0xffff) < f16_format().value(v[1] & 0xffff),
                              f16_format().value(v[0] >> 16) < f16_format().value(v[1] >> 16)};
              });
  expect_rows("set.ge.f16x2.f16x2 $0, $1, $2", {bits32()}, two, pair_rows, [](const Values& v) {
    return Values{(f16_format().value(v[0] & 0xffff) >= f16_format().value(v[1] & 0xffff) ? 0x3c00u : 0u) |
                  (f16_format().value(v[0] >> 16) >= f16_format().value(v[1] >> 16) ? 0x3c000000u : 0u)};
  });
  // Both results, combined with a predicate.
  const auto joined = [](const std::string& op, bool x, bool c) {
    return op == "and" ? x && c : op == "or" ? x || c : x != c;
  };
  for (const char* op : {"and", "or", "xor"}) {
    expect_rows(std::string("setp.lt.") + op + ".s32 $0|$1, $2, $3, $4",
                {predicate_column(), predicate_column()}, {bits32(), bits32(), predicate_column()},
                triples(words, words, {0, 1}), [&](const Values& v) {
                  const bool less = static_cast<int32_t>(v[0]) < static_cast<int32_t>(v[1]);
                  return Values{joined(op, less, v[2]), joined(op, !less, v[2])};
                });
    expect_rows(
        std::string("set.lt.") + op + ".u32.s32 $0, $1, $2, !$3", {bits32()},
        {bits32(), bits32(), predicate_column()}, triples(words, words, {0, 1}), [&](const Values& v) {
          return Values{
              joined(op, static_cast<int32_t>(v[0]) < static_cast<int32_t>(v[1]), !v[2]) ? 0xffffffff : 0};
        });
  }
  expect_rows("set.gtu.f32.f32 $0, $1, $2", {bits32()}, two, pairs(floats, floats), [](const Values& v) {
    return Values{holds("gtu", as_f32(v[0]), as_f32(v[1])) ? 0x3f800000u : 0u};
  });
  for (uint32_t bytes : {2u, 4u, 8u}) {
    expect_rows("selp.b" + std::to_string(8 * bytes) + " $0, $1, $2, $3", {{bytes}},
                {{bytes}, {bytes}, predicate_column()},
                triples(integer_values(bytes, 2, 56), integer_values(bytes, 2, 57), {0, 1}),
                [](const Values& v) { return Values{v[2] ? v[0] : v[1]}; });
  }
  expect_rows("slct.u32.s32 $0, $1, $2, $3", {bits32()}, three, triples(words, words, words),
              [](const Values& v) { return Values{static_cast<int32_t>(v[2]) >= 0 ? v[0] : v[1]}; });
  expect_rows("slct.f32.f32 $0, $1, $2, $3", {bits32()}, three, triples(words, words, floats),
              [](const Values& v) { return Values{as_f32(v[2]) >= 0 ? v[0] : v[1]}; });
  static constexpr struct {
    const char* name;
    bool (*host)(float);
  } properties[] = {{"finite", [](float x) { return static_cast<bool>(std::isfinite(x)); }},
                    {"infinite", [](float x) { return static_cast<bool>(std::isinf(x)); }},
                    {"number", [](float x) { return !std::isnan(x); }},
                    {"notanumber", [](float x) { return static_cast<bool>(std::isnan(x)); }},
                    {"normal", [](float x) { return static_cast<bool>(std::isnormal(x)); }},
                    {"subnormal", [](float x) { return std::fpclassify(x) == FP_SUBNORMAL; }}};
  for (const auto& property : properties) {
    expect_rows(std::string("testp.") + property.name + ".f32 $0, $1", kPredicate, {bits32()},
                singles(floats), [&](const Values& v) { return Values{property.host(as_f32(v[0]))}; });
  }
}

}  // namespace bitloom::ptx::testing
