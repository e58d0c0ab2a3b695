// Encoding and decoding of small formats against search in the list of values.
#include "formats.h"
#include "small_floats.h"

namespace bitloom::ptx::testing {

void test_formats() {
  struct Pair {
    const char* name;
    const FloatFormat& fast;
    const SmallFormat& slow;
    uint32_t patterns;
  };
  const Pair formats[] = {{"f16", kF16, f16_format(), 65536},
                          {"bf16", kBf16, bf16_format(), 65536},
                          {"e4m3", kE4m3, e4m3_format(), 256},
                          {"e5m2", kE5m2, e5m2_format(), 256}};
  for (const Pair& f : formats) {
    bool decoded = true, round_trip = true, nearest = true, truncated = true;
    for (uint32_t i = 0; i < f.patterns; ++i) {
      const double value = decode(i, f.fast), wanted = f.slow.value(i);
      decoded = decoded && (value == wanted || (std::isnan(value) && std::isnan(wanted))) &&
                std::signbit(value) == std::signbit(wanted);
      if (!std::isnan(value)) round_trip = round_trip && encode(value, f.fast) == i;
    }
    Random random(5);
    const auto try_value = [&](double value) {
      nearest = nearest && encode(value, f.fast) == f.slow.nearest(value) &&
                encode(value, f.fast, Rounding::nearest_even, true) == f.slow.nearest(value, true);
      if (f.fast.has_infinity)
        truncated = truncated && encode(value, f.fast, Rounding::zero) == f.slow.truncated(value);
    };
    // Around each value: halfway to the next, and a hair to either side.
    const size_t step = f.patterns > 256 ? 37 : 1;
    for (size_t i = 0; i + 1 < f.slow.values.size(); i += step) {
      const double middle = (f.slow.values[i] + f.slow.values[i + 1]) / 2;
      for (double value :
           {f.slow.values[i], middle, std::nextafter(middle, 0), std::nextafter(middle, HUGE_VAL)}) {
        try_value(value);
        try_value(-value);
      }
    }
    for (uint64_t bits : float_values(6, 2000)) try_value(as_f32(bits));
    check(decoded, std::string(f.name) + ": decode");
    check(round_trip, std::string(f.name) + ": round trip");
    check(nearest, std::string(f.name) + ": nearest");
    check(truncated, std::string(f.name) + ": towards zero");
  }
  bool same_half = true, same_brain = true, same_from = true;
  Random random(7);
  for (int i = 0; i < 200000; ++i) {
    const float value =
        i < 65536 * 2
            ? std::bit_cast<float>(static_cast<uint32_t>(i) << 15 | (i % 3 == 0 ? 0x1000u : 0x0fffu))
            : as_f32(random.next());
    same_half = same_half && to_half(value).bits == encode(value, kF16);
    same_brain = same_brain && to_brain(value).bits == encode(value, kBf16);
  }
  for (uint32_t i = 0; i < 65536; ++i) {
    const float half = to_float(Half{static_cast<uint16_t>(i)});
    same_from = same_from && same_f32(bits_of(half), bits_of(static_cast<float>(decode(i, kF16))));
  }
  check(same_half, "f32 to f16, quick form");
  check(same_brain, "f32 to bf16, quick form");
  check(same_from, "f16 to f32, quick form");
}

}  // namespace bitloom::ptx::testing
