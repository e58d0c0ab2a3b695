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
#include "numbers.h"

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
  BL_RETURN_IF_ERROR(check_rope_numbers({"rope", "", "freq_factors"}, args.x.shape[args.x.rank - 1],
                                        args.run.device, args, error));
  BL_RETURN_IF_ERROR(check_apart({"rope", "output"}, args.output, "freq_factors", args.freq_factors.data,
                                 args.freq_factors.bytes, error));
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
