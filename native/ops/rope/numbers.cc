#include "numbers.h"

#include <cmath>

#include "../../base/float16.h"
#include "../../base/tensor.h"

namespace bitloom {

namespace {

bool finite_positive(float value) { return std::isfinite(value) && value > 0; }

bl_status check_scaling(const RopeNames& names, const bl_rope_args& args, bl_error* error) {
  const char* const op = names.op;
  const char* const in = names.before;
  BL_CHECK(args.scaling >= BL_ROPE_SCALING_none && args.scaling <= BL_ROPE_SCALING_yarn, invalid_argument,
           "%s: %sscaling is %d, expected 0 (none), 1 (linear), 2 (llama3) or 3 (yarn)", op, in,
           args.scaling);
  if (args.scaling == BL_ROPE_SCALING_none) return BL_STATUS_ok;
  BL_CHECK(std::isfinite(args.factor) && args.factor >= 1, out_of_range,
           "%s: %sfactor is %g, expected a finite number of at least 1", op, in, args.factor);
  if (args.scaling == BL_ROPE_SCALING_linear) return BL_STATUS_ok;
  BL_CHECK(finite_positive(args.original_context), out_of_range,
           "%s: %soriginal_context is %g, expected a finite number above 0", op, in, args.original_context);
  if (args.scaling == BL_ROPE_SCALING_llama3) {
    BL_CHECK(finite_positive(args.low_freq_factor), out_of_range,
             "%s: %slow_freq_factor is %g, expected a finite number above 0", op, in, args.low_freq_factor);
    BL_CHECK(std::isfinite(args.high_freq_factor) && args.high_freq_factor > args.low_freq_factor,
             out_of_range,
             "%s: %shigh_freq_factor is %g, expected a finite number above %g (= low_freq_factor)", op, in,
             args.high_freq_factor, args.low_freq_factor);
    return BL_STATUS_ok;
  }
  BL_CHECK(args.theta > 1, out_of_range, "%s: %stheta is %g, expected a number above 1 with yarn", op, in,
           args.theta);
  BL_CHECK(std::isfinite(args.attention_factor) && args.attention_factor >= 0, out_of_range,
           "%s: %sattention_factor is %g, expected a finite number of at least 0", op, in,
           args.attention_factor);
  BL_CHECK(finite_positive(args.beta_slow), out_of_range,
           "%s: %sbeta_slow is %g, expected a finite number of at least 0", op, in, args.beta_slow);
  BL_CHECK(std::isfinite(args.beta_fast) && args.beta_fast >= args.beta_slow, out_of_range,
           "%s: %sbeta_fast is %g, expected a finite number of at least %g (= beta_slow)", op, in,
           args.beta_fast, args.beta_slow);
  return BL_STATUS_ok;
}

bl_status check_freq_factors(const RopeNames& names, int32_t device, const bl_rope_args& args,
                             bl_error* error) {
  BL_RETURN_IF_ERROR(check_optional_vector({names.op, names.freq_factors}, args.freq_factors,
                                           dtype_bit(BL_DTYPE_f32), args.rotary_dim / 2, "rotary_dim / 2",
                                           error));
  // A device's memory cannot be read here.
  if (args.freq_factors.data == nullptr || device != 0) return BL_STATUS_ok;
  for (int64_t j = 0; j < args.rotary_dim / 2; ++j) {
    const float factor = load_as<float>(static_cast<const float*>(args.freq_factors.data) + j);
    BL_CHECK(finite_positive(factor), out_of_range, "%s: %s[%lld] is %g, expected a finite number above 0",
             names.op, names.freq_factors, static_cast<long long>(j), factor);
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status check_rope_numbers(const RopeNames& names, int64_t head_dim, int32_t device, bl_rope_args& args,
                             bl_error* error) {
  const char* const op = names.op;
  const char* const in = names.before;
  BL_CHECK(args.mode == BL_ROPE_interleaved || args.mode == BL_ROPE_half, invalid_argument,
           "%s: %smode is %d, expected 0 (interleaved) or 1 (half)", op, in, args.mode);
  BL_CHECK(args.rotary_dim >= 0 && args.rotary_dim <= head_dim, out_of_range,
           "%s: %srotary_dim is %d, expected 0 to %lld (= head_dim)", op, in, args.rotary_dim,
           static_cast<long long>(head_dim));
  if (args.rotary_dim == 0) {
    BL_CHECK(head_dim <= INT32_MAX, invalid_shape,
             "%s: %srotary_dim is 0 (= head_dim, %lld), expected below 2^31", op, in,
             static_cast<long long>(head_dim));
    args.rotary_dim = static_cast<int32_t>(head_dim);
  }
  BL_CHECK(args.rotary_dim % 2 == 0, invalid_shape, "%s: %srotary_dim is %d, expected an even number", op, in,
           args.rotary_dim);
  BL_CHECK(finite_positive(args.theta), out_of_range, "%s: %stheta is %g, expected a finite number above 0",
           op, in, args.theta);
  if (args.beta_fast == 0) args.beta_fast = 32;
  if (args.beta_slow == 0) args.beta_slow = 1;
  BL_RETURN_IF_ERROR(check_scaling(names, args, error));
  return check_freq_factors(names, device, args, error);
}

}  // namespace bitloom
