// What the tests of ISA levels share: inputs from a seed, views, counted checks.
#pragma once

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <vector>

#include "bitloom.h"

inline int64_t passed = 0, failed = 0;

inline void check(bool condition, const std::string& what) {
  condition ? ++passed : ++failed;
  if (!condition && failed <= 40) std::fprintf(stderr, "FAILED: %s\n", what.c_str());
}

// splitmix64 (Steele et al. 2014).
struct Random {
  uint64_t state;

  uint64_t next() {
    uint64_t z = state += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return z ^ z >> 31;
  }
  int64_t below(int64_t n) { return static_cast<int64_t>(next() % static_cast<uint64_t>(n)); }
  template <size_t kCount>
  int64_t one_of(const int64_t (&values)[kCount]) {
    return values[below(kCount)];
  }
  // Sum of four uniform numbers: nearly Gaussian, of standard deviation 1.
  float gaussian() {
    float sum = 0;
    for (int i = 0; i < 4; ++i) sum += static_cast<float>(next() >> 40) * 0x1p-24f;
    return (sum - 2.0f) * 1.7320508f;
  }
  std::vector<float> gaussians(int64_t count) {
    std::vector<float> values(static_cast<size_t>(count));
    for (float& value : values) value = gaussian();
    return values;
  }
};

// The seed: the first argument, else the same one for everybody. Printed, so that a failure can be repeated.
inline Random random_from(int argc, char** argv) {
  const uint64_t seed = argc > 1 ? std::strtoull(argv[1], nullptr, 10) : 20240607;
  std::printf("seed %llu, best level %s, in force %s\n", static_cast<unsigned long long>(seed),
              bl_isa_name(bl_isa_available()), bl_isa_name(bl_isa_active()));
  return {seed};
}

inline int finish() {
  std::printf("%lld passed, %lld failed\n", static_cast<long long>(passed), static_cast<long long>(failed));
  return failed == 0 ? 0 : 1;
}

inline bl_tensor view_of(void* data, int32_t dtype, uint64_t bytes_each, std::vector<int64_t> shape) {
  bl_tensor view{};
  int64_t count = 1;
  view.rank = static_cast<int32_t>(shape.size());
  for (int32_t i = view.rank - 1; i >= 0; --i) {
    view.shape[i] = shape[static_cast<size_t>(i)];
    view.strides[i] = count;
    count *= view.shape[i];
  }
  view.data = data;
  view.bytes = static_cast<uint64_t>(count) * bytes_each;
  view.dtype = dtype;
  return view;
}
inline bl_tensor floats(std::vector<float>& data, std::vector<int64_t> shape) {
  return view_of(data.data(), BL_DTYPE_f32, sizeof(float), std::move(shape));
}

// As an element of the same sequence of bits; NaN is NaN whatever its bits.
inline bool same_bits(const std::vector<float>& x, const std::vector<float>& y) {
  for (size_t i = 0; i < x.size(); ++i) {
    if (std::memcmp(&x[i], &y[i], sizeof(float)) != 0 && !(std::isnan(x[i]) && std::isnan(y[i])))
      return false;
  }
  return x.size() == y.size();
}

inline bl_run run_at(int32_t isa, int32_t threads = 1) {
  bl_run run{};
  run.isa = isa;
  run.threads = threads;
  return run;
}

// Levels of this machine above scalar.
inline std::vector<int32_t> levels_here() {
  std::vector<int32_t> levels;
  for (int32_t isa = BL_ISA_scalar + 1; bl_isa_name(isa) != nullptr; ++isa) {
    if (bl_isa_supported(isa) != 0) levels.push_back(isa);
  }
  return levels;
}
