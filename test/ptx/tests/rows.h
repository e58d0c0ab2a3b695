// Comparing an instruction with a host function over many inputs.
#pragma once

#include <bit>
#include <cstdio>
#include <cstring>

#include "harness.h"

namespace bitloom::ptx::testing {

inline Column bits8() { return {1}; }
inline Column bits16() { return {2}; }
inline Column bits32() { return {4}; }
inline Column bits64() { return {8}; }
inline Column predicate_column() { return {4, true}; }

// Edge values of integers of `bytes` bytes, then random ones.
inline Values integer_values(uint32_t bytes, uint32_t random_count, uint64_t seed) {
  const uint64_t mask = bytes == 8 ? ~0ull : (1ull << 8 * bytes) - 1, top = 1ull << (8 * bytes - 1);
  Values values = {0,   1,       2,       3,    31,       32,         33,
                   top, top - 1, top + 1, mask, mask - 1, 0x55555555, 0xdeadbeefcafef00d};
  Random random(seed);
  for (uint32_t i = 0; i < random_count; ++i) values.push_back(random.next() >> random.next() % 60);
  for (uint64_t& value : values) value &= mask;
  return values;
}

// All pairs of two lists; triples take the third from `third` in turn.
inline std::vector<Values> pairs(const Values& first, const Values& second) {
  std::vector<Values> rows;
  for (uint64_t x : first) {
    for (uint64_t y : second) rows.push_back({x, y});
  }
  return rows;
}
inline std::vector<Values> triples(const Values& first, const Values& second, const Values& third) {
  std::vector<Values> rows = pairs(first, second);
  size_t i = 0;
  for (Values& row : rows) {
    row.push_back(third[(i * 7 + i / third.size()) % third.size()]);
    ++i;
  }
  return rows;
}
inline std::vector<Values> singles(const Values& values) {
  std::vector<Values> rows;
  for (uint64_t x : values) rows.push_back({x});
  return rows;
}

// `expected` gives one value per result. `same` compares a result with what is expected; the default is equal
// bits.
template <typename Expected, typename Same>
void expect_rows(const std::string& instruction, const std::vector<Column>& results,
                 const std::vector<Column>& sources, const std::vector<Values>& inputs, Expected&& expected,
                 Same&& same) {
  std::vector<Values> actual;
  try {
    actual = run_rows(instruction, results, sources, inputs);
  } catch (const Fault& fault) {
    check(false, instruction + ": " + fault.what());
    return;
  }
  for (size_t i = 0; i < inputs.size(); ++i) {
    const Values wanted = expected(inputs[i]);
    for (size_t j = 0; j < results.size(); ++j) {
      const uint64_t mask = results[j].bytes == 8 ? ~0ull : (1ull << 8 * results[j].bytes) - 1;
      if (same(actual[i][j] & mask, wanted[j] & mask)) continue;
      char text[256];
      std::snprintf(text, sizeof text, ": result %zu of (%llx, %llx, %llx) is %llx, expected %llx", j,
                    static_cast<unsigned long long>(inputs[i][0]),
                    static_cast<unsigned long long>(inputs[i].size() > 1 ? inputs[i][1] : 0),
                    static_cast<unsigned long long>(inputs[i].size() > 2 ? inputs[i][2] : 0),
                    static_cast<unsigned long long>(actual[i][j] & mask),
                    static_cast<unsigned long long>(wanted[j] & mask));
      check(false, instruction + text);
      return;
    }
  }
  check(true, instruction);
}
template <typename Expected>
void expect_rows(const std::string& instruction, const std::vector<Column>& results,
                 const std::vector<Column>& sources, const std::vector<Values>& inputs, Expected&& expected) {
  expect_rows(instruction, results, sources, inputs, expected, [](uint64_t a, uint64_t b) { return a == b; });
}

inline float as_f32(uint64_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits)); }
inline uint64_t bits_of(float value) { return std::bit_cast<uint32_t>(value); }
inline double as_f64(uint64_t bits) { return std::bit_cast<double>(bits); }
inline uint64_t bits_of(double value) { return std::bit_cast<uint64_t>(value); }
// Equal bits, or both NaN.
inline bool same_f32(uint64_t a, uint64_t b) {
  return a == b || (as_f32(a) != as_f32(a) && as_f32(b) != as_f32(b));
}
inline bool same_f64(uint64_t a, uint64_t b) {
  return a == b || (as_f64(a) != as_f64(a) && as_f64(b) != as_f64(b));
}

}  // namespace bitloom::ptx::testing
