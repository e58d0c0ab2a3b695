// What the tests of the CUDA operators share: parts that register themselves, counting checks. `cuda_test`
// runs all parts, `cuda_test name...` the named ones; at the end come the instructions that no test has
// executed.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "../../test/ptx/interpreter/fault.h"
#include "native/include/bitloom.h"

namespace bitloom::cuda::testing {

// Counts and, on failure, prints.
void check(bool condition, const std::string& what);
// The call must succeed.
void check_ok(bl_status status, const bl_error& error, const std::string& what);

// Runs the part of this name.
void run_part(const std::string& name);

struct Part {
  Part(const char* name, void (*run)());
};

// Deterministic values.
class Random {
 public:
  explicit Random(uint64_t seed) : state_(seed * 2654435761u + 88172645463325252ull) {}
  uint64_t next() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    return state_;
  }
  float uniform() { return static_cast<float>(next() % 20001) / 10000.0f - 1.0f; }  // -1 to 1
  int64_t below(int64_t end) { return static_cast<int64_t>(next() % static_cast<uint64_t>(end)); }

 private:
  uint64_t state_;
};

}  // namespace bitloom::cuda::testing

// BITLOOM_CUDA_TEST(norm) { ... }: a part of the suite.
#define BITLOOM_CUDA_TEST(name)                                                 \
  static void test_##name();                                                    \
  static const ::bitloom::cuda::testing::Part part_##name(#name, &test_##name); \
  static void test_##name()
