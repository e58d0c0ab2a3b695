// Method mse: a search for the scale, and zero point, of least squared error, by one thread per group. The CPU's grid, order and
// sums in double (native/formats/scale_search.h, grouped_encode.cc, gguf_encode.cc), so its bytes.
#pragma once

#include "encode.cuh"

namespace bitloom::cuda {

// Sum of squared errors at a scale, and the sums for the scale of least squared error at the same levels.
struct Fit {
  float scale;
  double error, value_level, level_level;
};

__device__ __forceinline__ Fit measure(const Group& group, const Levels& levels, float scale) {
  Fit fit{scale, 0, 0, 0};
#pragma unroll 1
  for (int64_t i = 0; i < group.count; ++i) {
    const float value = group[i];
    const float level = __fsub_rn(static_cast<float>(levels.code(value, scale)), levels.zero_point);
    const double difference = __dsub_rn(value, __fmul_rn(scale, level));
    fit.error = __dadd_rn(fit.error, __dmul_rn(difference, difference));
    fit.value_level = __dadd_rn(fit.value_level, __dmul_rn(value, level));
    fit.level_level = __dadd_rn(fit.level_level, __dmul_rn(level, level));
  }
  return fit;
}

// Up to three scales that searches start from. No array: it would lie in local memory.
struct Bases {
  int count;
  double first, second, third;

  __device__ __forceinline__ double operator[](int i) const { return i == 0 ? first : i == 1 ? second : third; }
};

// How scales are stored.
struct Stored {
  int32_t dtype;
  float largest_level;

  __device__ __forceinline__ float operator()(double scale) const { return stored_scale(dtype, largest_level, scale); }
};

// Fractions of a base that are tried: 11/32 to 35/32.
constexpr int kFirstFraction = 11, kLastFraction = 35, kRefinements = 6;

// The best of the first `starts` bases themselves and of the grid over all of them, then least squares and nearest levels in
// turns while that helps.
__device__ __forceinline__ Fit searched_scale(const Group& group, const Levels& levels, const Stored& round, int starts,
                                                const Bases& bases) {
  Fit best{0, 1.0 / 0.0, 0, 0};
#pragma unroll 1
  for (int i = 0; i < starts; ++i) {
    const Fit fit = measure(group, levels, round(bases[i]));
    if (fit.error < best.error) best = fit;
  }
#pragma unroll 1
  for (int i = 0; i < bases.count; ++i) {
    float previous = best.scale;
#pragma unroll 1
    for (int step = kFirstFraction; step <= kLastFraction; ++step) {
      const float scale = round(__dmul_rn(bases[i], step) / 32);
      if (scale == previous) continue;
      previous = scale;
      const Fit fit = measure(group, levels, scale);
      if (fit.error < best.error) best = fit;
    }
  }
#pragma unroll 1
  for (int i = 0; i < kRefinements && best.level_level > 0; ++i) {
    const float scale = round(best.value_level / best.level_level);
    if (scale == best.scale) break;
    const Fit fit = measure(group, levels, scale);
    if (!(fit.error < best.error)) break;
    best = fit;
  }
  return best;
}

// Integers with a zero point, from that of minmax on. `levels` and the result are of the best.
__device__ __forceinline__ float searched_offsets(const Group& group, Levels& levels, const Stored& round, float scale,
                                                  double min, double max) {
  Fit best = measure(group, levels, scale);
  const auto offer = [&](float zero_point, float scale) {
    const Levels other{levels.low, levels.high, zero_point};
    const Fit fit = measure(group, other, scale);
    if (!(fit.error < best.error)) return false;
    best = fit;
    levels.zero_point = zero_point;
    return true;
  };
  const double base = (max - min) / (levels.high - levels.low);
#pragma unroll 1
  for (int step = kFirstFraction; step <= kLastFraction; ++step) {
    const float scale = round(__dmul_rn(base, step) / 32);
    if (scale == 0) continue;
    // Where minmax has the lower end, the middle or the upper end.
    const double at_low = __dsub_rn(levels.low, min / scale), at_high = __dsub_rn(levels.high, max / scale);
#pragma unroll 1
    for (int i = 0; i < 3; ++i) {
      const double zero_point = i == 0 ? at_low : i == 1 ? __dadd_rn(at_low, at_high) / 2 : at_high;
      offer(static_cast<float>(rint(clamped(zero_point, levels.low, levels.high)) + 0.0), scale);
    }
  }
#pragma unroll 1
  for (int iteration = 0; iteration < kRefinements; ++iteration) {
    bool better = false;
    const float zero_point = levels.zero_point;
    // Least squares, then the zero points beside.
#pragma unroll 1
    for (int i = 0; i < 3; ++i) {
      const float next = i == 0 ? zero_point : i == 1 ? zero_point - 1 : zero_point + 1;
      if (i == 0 ? !(best.level_level > 0) : next < levels.low || next > levels.high) continue;
      better |= offer(next, i == 0 ? round(best.value_level / best.level_level) : best.scale);
    }
    if (!better) break;
  }
  return best.scale;
}

// u<b>, i<b>, t2, u<b>z, i<b>z.
__device__ __forceinline__ void encode_grouped_mse(const WeightsParams& w, const Group& group, uint8_t* bytes) {
  const Extent extent = extent_of(group);
  const bool ternary = w.kind == BL_KIND_ternary;
  const int half = 1 << (w.bits - 1);
  Levels levels{ternary ? -1 : -half, ternary ? 1 : half - 1, 0.0f};
  int offset = ternary ? 1 : w.kind == BL_KIND_unsigned_int ? half : 0;
  float scale;
  if (w.has_zero_point != 0) {
    if (w.kind == BL_KIND_unsigned_int) levels.low = 0, levels.high = 2 * half - 1;
    offset = 0;
    const double min = fminf(0.0f, extent.min), max = fmaxf(0.0f, extent.max);
    const Stored round{w.scale_dtype, static_cast<float>(levels.high - levels.low)};
    scale = round((max - min) / (levels.high - levels.low));
    if (scale != 0.0f) {
      const double exact = clamped(__dsub_rn(levels.low, min / scale), levels.low, levels.high);
      levels.zero_point = static_cast<float>(rint(exact) + 0.0);
      scale = searched_offsets(group, levels, round, scale, min, max);
    }
    store_scalar(bytes + 2, w.scale_dtype, levels.zero_point);
  } else {
    const double largest = fabs(static_cast<double>(extent.signed_max)), mean = extent.mean_magnitude;
    const double onto_low = static_cast<double>(extent.signed_max) / levels.low, onto_high = largest / levels.high;
    const Stored round{w.scale_dtype, ternary ? 1.0f : static_cast<float>(half)};
    // A Gaussian's best ternary scale is 1.53 times its mean magnitude.
    const Bases bases = ternary ? Bases{3, mean, 1.5 * mean, onto_high} : Bases{2, onto_low, onto_high, 0};
    scale = searched_scale(group, levels, round, ternary ? 1 : 2, bases).scale;
  }
  store_scalar(bytes, w.scale_dtype, scale);
  CodeWriter codes(bytes + w.header_bytes, w.bits);
#pragma unroll 1
  for (int64_t i = 0; i < group.count; ++i) codes.put(static_cast<int>(levels.code(group[i], scale)) + offset);
  codes.finish(bytes + w.block_bytes);
}

// Of the block that was written to `bytes`.
__device__ __forceinline__ double legacy_error(const Group& group, bool is_q8, const uint8_t* bytes) {
  const float scale = ptx::cvt_f32_f16(static_cast<uint16_t>(bytes[0] | bytes[1] << 8));
  double error = 0;
#pragma unroll 1
  for (int i = 0; i < 32; ++i) {
    const int code = is_q8 ? static_cast<int8_t>(bytes[2 + i]) : (bytes[2 + i % 16] >> (i < 16 ? 0 : 4) & 15) - 8;
    const double difference = __dsub_rn(group[i], __fmul_rn(scale, static_cast<float>(code)));
    error = __dadd_rn(error, __dmul_rn(difference, difference));
  }
  return error;
}

// q8_0 and q4_0: minmax's block, which rounds in another way, unless the searched one is better.
__device__ __forceinline__ void encode_legacy_mse(const WeightsParams& w, const Group& group, uint8_t* bytes) {
  encode_legacy(w, group, bytes);
  const bool is_q8 = w.format == BL_FORMAT_q8_0;
  const float signed_max = extent_of(group).signed_max;
  const double largest = fabs(static_cast<double>(signed_max));
  const Levels levels{is_q8 ? -127 : -8, is_q8 ? 127 : 7, 0.0f};
  const Bases bases = is_q8 ? Bases{1, largest / 127, 0, 0}
                            : Bases{2, static_cast<double>(signed_max) / -8, largest / 7, 0};
  const Fit best = searched_scale(group, levels, Stored{BL_SCALE_f16, 128.0f}, bases.count, bases);
  if (!(best.error < legacy_error(group, is_q8, bytes))) return;
  store_scalar(bytes, BL_SCALE_f16, best.scale);
  const auto code = [&](int i) { return static_cast<int>(levels.code(group[i], best.scale)); };
#pragma unroll 1
  for (int i = 0; i < (is_q8 ? 32 : 16); ++i) {
    bytes[2 + i] = static_cast<uint8_t>(is_q8 ? code(i) : (code(i) + 8) | (code(i + 16) + 8) << 4);
  }
}

}  // namespace bitloom::cuda
