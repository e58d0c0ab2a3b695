// f[j] = theta^(-2j / rotary_dim), then one of
//   linear  f / factor
//   llama3  by wavelength w = 2 pi / f, with L = original_context (Llama 3.1's release code):
//             w < L / high_freq_factor: f;  w > L / low_freq_factor: f / factor;  between, with
//             s = (L / w - low) / (high - low): (1 - s) * f / factor + s * f
//   yarn    Peng et al. 2023, "NTK-by-parts": pairs that turn more than beta_fast times within L keep f,
//             pairs that turn less than beta_slow times get f / factor, a linear ramp over the pair index
//             between; cos and sin are multiplied by attention_factor
// and the result is divided by freq_factors[j].
#include "frequencies.h"

#include <algorithm>
#include <cmath>

#include "../../base/float16.h"

namespace bitloom {

namespace {

constexpr double kTwoPi = 6.283185307179586476925286766559;

double llama3_scaled(double f, const bl_rope_args& args) {
  const double context = args.original_context;
  const double low = args.low_freq_factor;
  const double high = args.high_freq_factor;
  const double wavelength = kTwoPi / f;
  if (wavelength < context / high) return f;
  if (wavelength > context / low) return f / args.factor;
  const double smooth = (context / wavelength - low) / (high - low);
  return (1 - smooth) * f / args.factor + smooth * f;
}

// The pair index, as a real number, whose rotation makes `turns` full turns within the original context.
double yarn_pair_at(double turns, const bl_rope_args& args) {
  return args.rotary_dim * std::log(args.original_context / (turns * kTwoPi)) /
         (2 * std::log(double{args.theta}));
}

struct YarnRamp {
  double low;
  double high;

  explicit YarnRamp(const bl_rope_args& args)
      : low(std::max(std::floor(yarn_pair_at(args.beta_fast, args)), 0.0)),
        high(std::min(std::ceil(yarn_pair_at(args.beta_slow, args)), args.rotary_dim - 1.0)) {
    // As the field does: no division by zero when both ends meet.
    if (high - low < 0.001) high = low + 0.001;
  }
  // 0: keep the frequency; 1: interpolate.
  double operator()(double pair) const { return std::clamp((pair - low) / (high - low), 0.0, 1.0); }
};

}  // namespace

double rope_frequencies(const bl_rope_args& args, double* frequencies) {
  const int64_t pairs = args.rotary_dim / 2;
  for (int64_t j = 0; j < pairs; ++j) {
    frequencies[j] = std::pow(double{args.theta}, -2.0 * static_cast<double>(j) / args.rotary_dim);
  }
  double magnitude = 1;
  if (args.scaling == BL_ROPE_SCALING_linear) {
    for (int64_t j = 0; j < pairs; ++j) frequencies[j] /= args.factor;
  } else if (args.scaling == BL_ROPE_SCALING_llama3) {
    for (int64_t j = 0; j < pairs; ++j) frequencies[j] = llama3_scaled(frequencies[j], args);
  } else if (args.scaling == BL_ROPE_SCALING_yarn && pairs > 0) {
    const YarnRamp ramp(args);
    for (int64_t j = 0; j < pairs; ++j) {
      const double mix = ramp(static_cast<double>(j));
      frequencies[j] = frequencies[j] / args.factor * mix + frequencies[j] * (1 - mix);
    }
    magnitude = args.attention_factor != 0 ? args.attention_factor : 0.1 * std::log(double{args.factor}) + 1;
  }
  if (args.freq_factors.data != nullptr) {
    const float* factors = static_cast<const float*>(args.freq_factors.data);
    for (int64_t j = 0; j < pairs; ++j) frequencies[j] /= load_as<float>(factors + j);
  }
  return magnitude;
}

}  // namespace bitloom
