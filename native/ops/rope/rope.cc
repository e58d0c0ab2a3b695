// rope: validate, choose a kernel, partition the tokens, run. A token's table of cosines and sines is made
// once and serves all heads of that token.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "frequencies.h"
#include "kernel.h"

namespace bitloom {

namespace {

const RopeKernelRow kKernels[] = {
#define BL_ROPE_KERNEL(isa, mode) {"rope_" #mode "_" #isa, BL_ISA_##isa, BL_ROPE_##mode, isa::rope_##mode},
#include "kernels.inc"
#undef BL_ROPE_KERNEL
};

// Tasks a call is cut into at most; each has a table and a row in the workspace.
constexpr int64_t kMaxTasks = 64;
// Values below which waking other threads costs more than it brings: a value takes about 1 ns, most of it
// its share of a sine and cosine in double.
constexpr int64_t kSerialValues = 1 << 14;

bool finite_positive(float value) { return std::isfinite(value) && value > 0; }

bl_status check_scaling(const bl_rope_args& args, bl_error* error) {
  BL_CHECK(args.scaling >= BL_ROPE_SCALING_none && args.scaling <= BL_ROPE_SCALING_yarn, invalid_argument,
           "rope: scaling is %d, expected 0 (none), 1 (linear), 2 (llama3) or 3 (yarn)", args.scaling);
  if (args.scaling == BL_ROPE_SCALING_none) return BL_STATUS_ok;
  BL_CHECK(std::isfinite(args.factor) && args.factor >= 1, out_of_range,
           "rope: factor is %g, expected a finite number of at least 1", args.factor);
  if (args.scaling == BL_ROPE_SCALING_linear) return BL_STATUS_ok;
  BL_CHECK(finite_positive(args.original_context), out_of_range,
           "rope: original_context is %g, expected a finite number above 0", args.original_context);
  if (args.scaling == BL_ROPE_SCALING_llama3) {
    BL_CHECK(finite_positive(args.low_freq_factor), out_of_range,
             "rope: low_freq_factor is %g, expected a finite number above 0", args.low_freq_factor);
    BL_CHECK(std::isfinite(args.high_freq_factor) && args.high_freq_factor > args.low_freq_factor,
             out_of_range,
             "rope: high_freq_factor is %g, expected a finite number above %g (= low_freq_factor)",
             args.high_freq_factor, args.low_freq_factor);
    return BL_STATUS_ok;
  }
  BL_CHECK(args.theta > 1, out_of_range, "rope: theta is %g, expected a number above 1 with yarn",
           args.theta);
  BL_CHECK(std::isfinite(args.attention_factor) && args.attention_factor >= 0, out_of_range,
           "rope: attention_factor is %g, expected a finite number of at least 0", args.attention_factor);
  BL_CHECK(finite_positive(args.beta_slow), out_of_range,
           "rope: beta_slow is %g, expected a finite number of at least 0", args.beta_slow);
  BL_CHECK(std::isfinite(args.beta_fast) && args.beta_fast >= args.beta_slow, out_of_range,
           "rope: beta_fast is %g, expected a finite number of at least %g (= beta_slow)", args.beta_fast,
           args.beta_slow);
  return BL_STATUS_ok;
}

bl_status check_freq_factors(const bl_rope_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_optional_vector({"rope", "freq_factors"}, args.freq_factors,
                                           dtype_bit(BL_DTYPE_f32), args.rotary_dim / 2, "rotary_dim / 2",
                                           error));
  if (args.freq_factors.data == nullptr) return BL_STATUS_ok;
  // A device's memory cannot be read here.
  for (int64_t j = 0; j < args.rotary_dim / 2 && args.run.device == 0; ++j) {
    const float factor = load_as<float>(static_cast<const float*>(args.freq_factors.data) + j);
    BL_CHECK(finite_positive(factor), out_of_range,
             "rope: freq_factors[%lld] is %g, expected a finite number above 0", static_cast<long long>(j),
             factor);
  }
  return check_apart({"rope", "output"}, args.output, "freq_factors", args.freq_factors.data,
                     args.freq_factors.bytes, error);
}

int32_t position_at(const bl_tensor& positions, int64_t token) {
  return load_as<int32_t>(static_cast<const uint8_t*>(positions.data) + token * positions.strides[0] * 4);
}

// Also fills in what zero stands for.
bl_status validate(bl_rope_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"rope", "x"}, args.x, kFloatTypes, 3, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(
      check_tensor({"rope", "positions"}, args.positions, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  BL_RETURN_IF_ERROR(check_output({"rope", "output"}, args.output, kFloatTypes, 3, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_same_shape({"rope", "output"}, args.output, "x", args.x, error));
  char axis[32];
  std::snprintf(axis, sizeof(axis), "x.shape[%d]", args.x.rank - 3);
  BL_RETURN_IF_ERROR(
      check_dim({"rope", "positions"}, args.positions, 0, args.x.shape[args.x.rank - 3], axis, error));
  BL_CHECK(args.mode == BL_ROPE_interleaved || args.mode == BL_ROPE_half, invalid_argument,
           "rope: mode is %d, expected 0 (interleaved) or 1 (half)", args.mode);
  const int64_t head_dim = args.x.shape[args.x.rank - 1];
  BL_CHECK(args.rotary_dim >= 0 && args.rotary_dim <= head_dim, out_of_range,
           "rope: rotary_dim is %d, expected 0 to %lld (= head_dim)", args.rotary_dim,
           static_cast<long long>(head_dim));
  if (args.rotary_dim == 0) {
    BL_CHECK(head_dim <= INT32_MAX, invalid_shape, "rope: x.shape[%d] is %lld, expected below 2^31",
             args.x.rank - 1, static_cast<long long>(head_dim));
    args.rotary_dim = static_cast<int32_t>(head_dim);
  }
  BL_CHECK(args.rotary_dim % 2 == 0, invalid_shape, "rope: rotary_dim is %d, expected an even number",
           args.rotary_dim);
  BL_CHECK(finite_positive(args.theta), out_of_range, "rope: theta is %g, expected a finite number above 0",
           args.theta);
  if (args.beta_fast == 0) args.beta_fast = 32;
  if (args.beta_slow == 0) args.beta_slow = 1;
  BL_RETURN_IF_ERROR(check_scaling(args, error));
  BL_RETURN_IF_ERROR(check_freq_factors(args, error));
  BL_RETURN_IF_ERROR(check_alias({"rope", "output"}, args.output, "x", args.x, error));
  BL_RETURN_IF_ERROR(check_apart({"rope", "output"}, args.output, "positions", args.positions.data,
                                 args.positions.bytes, error));
  // A stride of 0 repeats one position, however many tokens the view claims.
  const int64_t positions = args.positions.strides[0] == 0 ? std::min<int64_t>(args.positions.shape[0], 1)
                                                           : args.positions.shape[0];
  // A device's memory cannot be read here.
  for (int64_t t = 0; t < positions && args.run.device == 0; ++t) {
    const int32_t position = position_at(args.positions, t);
    BL_CHECK(position >= 0, out_of_range, "rope: positions[%lld] is %d, expected at least 0",
             static_cast<long long>(t), position);
  }
  return BL_STATUS_ok;
}

RopeKernel choose(const bl_rope_args& args) {
  const int32_t isa = isa_of(args.run);
  for (const RopeKernelRow& row : kKernels) {
    const char* reason = row.isa > isa ? "ISA level" : row.mode != args.mode ? "mode" : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: rope: %s: %s\n", row.name, reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) return row.run;
  }
  return nullptr;  // not reached: the scalar rows take both modes
}

// A task's part of the workspace.
struct Work {
  float* cosine;  // [pairs]
  float* sine;    // [pairs]
  float* row;     // [head_dim]

  static uint64_t bytes(const bl_rope_args& args) {
    return align_up(static_cast<uint64_t>(args.rotary_dim + args.x.shape[args.x.rank - 1]) * sizeof(float));
  }
  Work(const bl_rope_args& args, uint8_t* memory)
      : cosine(reinterpret_cast<float*>(memory)),
        sine(cosine + args.rotary_dim / 2),
        row(cosine + args.rotary_dim) {}
};

// One head: the rotated channels, then the rest as they are.
void rotate(const bl_rope_args& args, RopeKernel kernel, const Work& work, const Rows& x, const Rows& output,
            int64_t row) {
  const float* from = x.direct(row);
  float* to = output.direct(row);
  const int64_t pairs = args.rotary_dim / 2;
  if (from != nullptr && to != nullptr) {
    kernel(from, work.cosine, work.sine, pairs, to);
    if (from != to) std::copy(from + 2 * pairs, from + x.length, to + 2 * pairs);
    return;
  }
  x.load(row, work.row);
  kernel(work.row, work.cosine, work.sine, pairs, work.row);
  output.store(row, work.row);
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_rope(const bl_rope_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_rope_args, "rope", call);
  BL_RETURN_IF_ERROR(validate(call, error));
  BL_RUN_ON_DEVICE(rope, call);
  if (element_count(call.x) == 0) return BL_STATUS_ok;
  const RopeKernel kernel = choose(call);
  const Rows x(call.x);
  const Rows output(call.output);
  const int64_t tokens = call.x.shape[call.x.rank - 3];
  const int64_t heads = call.x.shape[call.x.rank - 2];
  const int64_t batches = x.count / (tokens * heads);
  const int64_t pairs = call.rotary_dim / 2;
  const int64_t tasks = std::min(tokens, kMaxTasks);
  const uint64_t frequency_bytes = align_up(static_cast<uint64_t>(pairs) * sizeof(double));
  const uint64_t total = frequency_bytes + static_cast<uint64_t>(tasks) * Work::bytes(call);
  const Scratch scratch(total);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "rope: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(total));
  double* frequencies = reinterpret_cast<double*>(scratch.data());
  const double magnitude = rope_frequencies(call, frequencies);
  bl_run run = call.run;
  if (x.count * x.length < kSerialValues) run.threads = 1;
  parallel_for(run, tasks, [&](int64_t task) {
    const Work work(call, scratch.data() + frequency_bytes + static_cast<uint64_t>(task) * Work::bytes(call));
    for (int64_t t = tokens * task / tasks; t < tokens * (task + 1) / tasks; ++t) {
      const double position = position_at(call.positions, t);
      for (int64_t j = 0; j < pairs; ++j) {
        // In double: at position 10^5 an angle in f32 would be off by 0.004 radians.
        const double angle = position * frequencies[j];
        work.cosine[j] = static_cast<float>(std::cos(angle) * magnitude);
        work.sine[j] = static_cast<float>(std::sin(angle) * magnitude);
      }
      for (int64_t batch = 0; batch < batches; ++batch) {
        const int64_t first = (batch * tokens + t) * heads;
        for (int64_t row = first; row < first + heads; ++row) rotate(call, kernel, work, x, output, row);
      }
    }
  });
  return BL_STATUS_ok;
}
