// Host side of attention: rows of kv heads, the kernel for their number and shapes, splits over keys when
// decoding.
#include <algorithm>
#include <cmath>

#include "../../backend.h"
#include "../rows.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages attention_module;

namespace {

// Rows of a kv head up to which the decoding kernels take them. They read keys at full width and use no tile,
// but each 8 rows read the keys again.
constexpr int64_t kDecodeRows = 16;

struct DecodeKernel {
  const char* name;
  bool wide;
  int rows, vectors;
};
constexpr DecodeKernel kDecodeKernels[] = {
#define BL_CUDA_ATTENTION_DECODE(name, wide, rows, vectors) {#name, wide, rows, vectors},
#include "kernels.inc"
#undef BL_CUDA_ATTENTION_DECODE
};
struct PromptKernel {
  const char* name;
  int rows, columns;
};
constexpr PromptKernel kPromptKernels[] = {
#define BL_CUDA_ATTENTION_PROMPT(name, rows, columns, blocks) {#name, rows, columns},
#include "kernels.inc"
#undef BL_CUDA_ATTENTION_PROMPT
};

AttentionView view_of(const bl_tensor& tensor) {
  AttentionView view{};
  view.data = tensor.data;
  view.width = tensor.shape[2];
  view.dtype = tensor.dtype;
  const int64_t bytes = dtype_bytes(tensor.dtype);
  bool wide =
      reinterpret_cast<uint64_t>(tensor.data) % 16 == 0 && tensor.strides[2] == 1 && tensor.shape[2] % 8 == 0;
  for (int axis = 0; axis < 3; ++axis) {
    view.strides[axis] = tensor.strides[axis];
    if (axis < 2) wide = wide && (tensor.shape[axis] == 1 || tensor.strides[axis] * bytes % 16 == 0);
  }
  view.wide = wide ? 1 : 0;
  return view;
}

bool is_wide_16(const AttentionView& view) { return view.wide != 0 && view.dtype != BL_DTYPE_f32; }

const DecodeKernel* choose_decode(const AttentionParams& params) {
  const int64_t width = std::max(params.q.width, params.v.width);
  const bool wide = is_wide_16(params.k) && is_wide_16(params.v);
  const DecodeKernel* chosen = nullptr;
  for (const DecodeKernel& kernel : kDecodeKernels) {
    if ((kernel.wide && !wide) || width > 256 * kernel.vectors) continue;
    if (chosen != nullptr && (kernel.vectors != chosen->vectors || kernel.wide != chosen->wide)) break;
    chosen = &kernel;
    if (kernel.rows >= params.rows) break;
  }
  return chosen;
}

bl_status launch_decode(Queue& queue, const DecodeKernel& kernel, AttentionParams& params, bl_error* error) {
  const int64_t vectors = ceil_div(std::max(params.q.width, params.v.width), 8);
  params.lanes = 4;
  while (params.lanes < 32 && params.lanes < vectors) params.lanes *= 2;
  const int64_t row_blocks = ceil_div(params.rows, kernel.rows);
  // Blocks to fill the device twice.
  const int64_t wanted = ceil_div(2 * int64_t{queue.limits().multiprocessors}, row_blocks * params.kv_heads);
  const int64_t most =
      std::clamp<int64_t>(ceil_div(params.keys, kDecodeRound), 1, std::min<int64_t>(wanted, 256));
  const DecodeSplits<int64_t> splits = decode_splits(params.keys, most);
  params.keys_per_split = splits.keys_per_split;
  params.splits = static_cast<int32_t>(params.key_count == nullptr ? splits.count : most);
  const int64_t all_rows = params.kv_heads * params.rows;
  Scratch partial(queue), state(queue);
  if (params.splits > 1) {
    const uint64_t parts = static_cast<uint64_t>(params.splits * all_rows);
    BL_RETURN_IF_ERROR(partial.allocate(parts * static_cast<uint64_t>(params.v.width) * 4, error));
    BL_RETURN_IF_ERROR(state.allocate(parts * 8, error));
    params.partial = partial.as<float>();
    params.state = state.as<float>();
  }
  LaunchShape shape;
  shape.grid = {static_cast<uint32_t>(params.splits), static_cast<uint32_t>(params.kv_heads),
                static_cast<uint32_t>(row_blocks)};
  shape.block.x = kDecodeWarps * 32;
  shape.shared_bytes =
      static_cast<uint32_t>(decode_shared_bytes(kernel.rows, params.q.width, params.v.width));
  BL_RETURN_IF_ERROR(queue.launch(attention_module, kernel.name, shape, params, error));
  if (params.splits == 1) return BL_STATUS_ok;
  LaunchShape merge;
  merge.grid.x = static_cast<uint32_t>(all_rows);
  merge.block.x = static_cast<uint32_t>(std::min<int64_t>(128, ceil_div(params.v.width, 32) * 32));
  return queue.launch(attention_module, "attention_merge", merge, params, error);
}

bl_status launch_prompt(Queue& queue, const AttentionParams& params, bl_error* error) {
  const uint64_t available = static_cast<uint64_t>(queue.limits().shared_bytes_per_block);
  for (const PromptKernel& kernel : kPromptKernels) {
    const uint64_t bytes = prompt_shared_bytes(kernel.rows, params.q.width);
    // The first has twice the rows; with long heads its tile of q would leave room for one block only.
    if (params.v.width > kPromptColumns * kernel.columns || params.q.width > kPromptColumns * kernel.columns)
      continue;
    if (bytes > available) continue;
    LaunchShape shape;
    shape.grid = {static_cast<uint32_t>(ceil_div(params.rows, 16 * kernel.rows)),
                  static_cast<uint32_t>(params.kv_heads), 1};
    shape.block.x = kPromptThreads;
    shape.shared_bytes = static_cast<uint32_t>(bytes);
    return queue.launch(attention_module, kernel.name, shape, params, error);
  }
  return fail(error, BL_STATUS_unsupported,
              "attention: heads of %lld and values of %lld channels, expected at most 576 of each on device",
              static_cast<long long>(params.q.width), static_cast<long long>(params.v.width));
}

}  // namespace

bl_status attention(Queue& queue, const bl_attention_args& args, bl_error* error) {
  if (element_count(args.output) == 0) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_element_alignment("attention", "q", args.q, error));
  BL_RETURN_IF_ERROR(check_element_alignment("attention", "k", args.k, error));
  BL_RETURN_IF_ERROR(check_element_alignment("attention", "v", args.v, error));
  BL_RETURN_IF_ERROR(check_element_alignment("attention", "output", args.output, error));
  AttentionParams params{};
  params.q = view_of(args.q);
  params.k = view_of(args.k);
  params.v = view_of(args.v);
  params.output = view_of(args.output);
  params.queries = args.q.shape[0];
  params.keys = args.k.shape[0];
  if (args.cu_keys.data != nullptr) {  // [0, number of keys] of the one sequence
    params.key_count = static_cast<const int32_t*>(args.cu_keys.data) + args.cu_keys.strides[0];
    BL_CHECK(params.keys <= INT32_MAX, unsupported,
             "attention: k.shape[0] is %lld, expected fewer than 2^31 keys with cuKeys on device",
             static_cast<long long>(params.keys));
  }
  params.kv_heads = args.k.shape[1];
  params.group = args.q.shape[1] / params.kv_heads;
  params.rows = params.queries * params.group;
  params.causal = args.causal;
  params.window = args.window;
  params.scale =
      args.scale != 0 ? args.scale : static_cast<float>(1 / std::sqrt(static_cast<double>(params.q.width)));
  BL_CHECK(params.kv_heads <= kMaxGridY, unsupported,
           "attention: k.shape[1] is %lld, expected at most %lld on device",
           static_cast<long long>(params.kv_heads), static_cast<long long>(kMaxGridY));
  BL_CHECK(params.rows <= INT32_MAX, unsupported,
           "attention: q.shape[0] is %lld, with %lld query heads per kv head expected fewer than 2^31 rows "
           "on device",
           static_cast<long long>(params.queries), static_cast<long long>(params.group));
  if (params.rows <= kDecodeRows) {
    if (const DecodeKernel* kernel = choose_decode(params); kernel != nullptr) {
      return launch_decode(queue, *kernel, params, error);
    }
  }
  return launch_prompt(queue, params, error);
}

}  // namespace bitloom::cuda
