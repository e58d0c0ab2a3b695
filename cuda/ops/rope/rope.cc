// Host side of rope: frequencies by the CPU's own code, then one launch.
#include <algorithm>
#include <vector>

#include "../../../native/ops/rope/frequencies.h"
#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages rope_module;

namespace {

// The options that zero stands for, as the CPU's entry fills them in, and no factors: those are device
// memory, by which the kernel divides.
bl_rope_args completed(const bl_rope_args& args) {
  bl_rope_args full = args;
  if (full.rotary_dim == 0) full.rotary_dim = static_cast<int32_t>(args.x.shape[args.x.rank - 1]);
  if (full.beta_fast == 0) full.beta_fast = 32;
  if (full.beta_slow == 0) full.beta_slow = 1;
  full.freq_factors = bl_tensor{};
  return full;
}

void set_views(const bl_rope_args& args, RopeParams& params) {
  const bl_tensor &x = args.x, &output = args.output;
  params.x = x.data;
  params.output = output.data;
  params.x_dtype = x.dtype;
  params.output_dtype = output.dtype;
  params.batch = 1;
  params.batch_rank = x.rank - 3;
  for (int32_t axis = 0; axis < params.batch_rank; ++axis) {
    params.batch_shape[axis] = x.shape[axis];
    params.x_batch_strides[axis] = x.strides[axis];
    params.output_batch_strides[axis] = output.strides[axis];
    params.batch *= x.shape[axis];
  }
  params.tokens = x.shape[x.rank - 3];
  params.heads = x.shape[x.rank - 2];
  params.head_dim = x.shape[x.rank - 1];
  for (int axis = 0; axis < 3; ++axis) {
    params.x_strides[axis] = x.strides[x.rank - 3 + axis];
    params.output_strides[axis] = output.strides[x.rank - 3 + axis];
  }
  params.positions = static_cast<const int32_t*>(args.positions.data);
  params.position_stride = args.positions.strides[0];
  params.freq_factors = static_cast<const float*>(args.freq_factors.data);
  params.is_half = args.mode == BL_ROPE_half ? 1 : 0;
}

}  // namespace

bl_status rope(Queue& queue, const bl_rope_args& args, bl_error* error) {
  if (element_count(args.x) == 0) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_element_alignment("rope", "x", args.x, error));
  BL_RETURN_IF_ERROR(check_element_alignment("rope", "output", args.output, error));
  BL_RETURN_IF_ERROR(check_element_alignment("rope", "positions", args.positions, error));
  BL_RETURN_IF_ERROR(check_element_alignment("rope", "freq_factors", args.freq_factors, error));
  const bl_rope_args full = completed(args);
  RopeParams params{};
  set_views(args, params);
  params.pairs = full.rotary_dim / 2;
  Scratch memory(queue);
  if (params.pairs <= kInlineFrequencies) {
    params.magnitude = rope_frequencies(full, params.inline_frequencies);
  } else {
    std::vector<double> frequencies(static_cast<size_t>(params.pairs));
    params.magnitude = rope_frequencies(full, frequencies.data());
    const uint64_t bytes = frequencies.size() * sizeof(double);
    BL_RETURN_IF_ERROR(memory.allocate_table(frequencies.data(), bytes, error));
    params.frequencies = memory.as<double>();
  }
  LaunchShape shape;
  const int64_t pairs = std::clamp<int64_t>(params.pairs, 1, kRopeThreads);
  shape.block.x = static_cast<uint32_t>(ceil_div(pairs, 32) * 32);
  shape.block.y = std::max<uint32_t>(kRopeThreads / shape.block.x, 1);
  // A prompt has blocks enough by its tokens; a single token gets a block per few heads.
  params.heads_per_block = params.tokens >= queue.limits().multiprocessors ? params.heads : shape.block.y;
  params.heads_per_block = std::max(params.heads_per_block, ceil_div(params.heads, kMaxGridY));
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(params.tokens, int64_t{1} << 20));
  shape.grid.y = static_cast<uint32_t>(ceil_div(params.heads, params.heads_per_block));
  return queue.launch(rope_module, "rope", shape, params, error);
}

}  // namespace bitloom::cuda
