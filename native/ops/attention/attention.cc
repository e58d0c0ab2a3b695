// attention: validate, choose a kernel, cut into tasks by kv head and queries, run.
#include <algorithm>
#include <cmath>
#include <cstdio>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "kernel.h"

namespace bitloom {

namespace {

const AttentionKernelRow kKernels[] = {
#define BL_ATTENTION_KERNEL(isa, strides, max_heads, max_queries, max_rows) \
  {"attention_" #isa, BL_ISA_##isa, strides,        max_heads,              \
   max_queries,       max_rows,     isa::attention, isa::attention_scratch_bytes},
#include "kernels.inc"
#undef BL_ATTENTION_KERNEL
};

// Workspaces of a call at most; slot i runs tasks i, i + slots, ...: late queries, which see more keys when
// causal, are spread over all slots.
constexpr int64_t kMaxSlots = 64;
// Multiply-adds below which waking other threads costs more than it brings (about 10 microseconds).
constexpr int64_t kSerialWork = int64_t{1} << 17;
constexpr int64_t kMaxLength = int64_t{1} << 40;

bl_status check_shapes(const bl_attention_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"attention", "q"}, args.q, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({"attention", "k"}, args.k, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({"attention", "v"}, args.v, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_output({"attention", "output"}, args.output, kFloatTypes, 3, 3, error));
  const int64_t* q = args.q.shape;
  const int64_t* k = args.k.shape;
  BL_CHECK(q[2] >= 1, invalid_shape, "attention: q.shape[2] is 0, expected at least 1");
  BL_CHECK(k[0] >= 1, invalid_shape, "attention: k.shape[0] is 0, expected at least 1 key");
  BL_CHECK(k[1] >= 1, invalid_shape, "attention: k.shape[1] is 0, expected at least 1 kv head");
  // Views with stride 0 can claim any length; beyond this, sizes in bytes could overflow.
  BL_CHECK(k[0] <= kMaxLength && q[2] <= kMaxLength, invalid_shape,
           "attention: k is %lld keys x %lld, expected at most 2^40 each", static_cast<long long>(k[0]),
           static_cast<long long>(q[2]));
  BL_CHECK(q[1] % k[1] == 0, invalid_shape,
           "attention: q.shape[1] is %lld, expected a multiple of %lld (= k.shape[1])",
           static_cast<long long>(q[1]), static_cast<long long>(k[1]));
  BL_RETURN_IF_ERROR(check_dim({"attention", "k"}, args.k, 2, q[2], "q.shape[2]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "v"}, args.v, 0, k[0], "k.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "v"}, args.v, 1, k[1], "k.shape[1]", error));
  BL_CHECK(args.v.dtype == args.k.dtype, invalid_dtype, "attention: v.dtype is %s, expected %s (= k.dtype)",
           dtype_name(args.v.dtype), dtype_name(args.k.dtype));
  BL_RETURN_IF_ERROR(check_dim({"attention", "output"}, args.output, 0, q[0], "q.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "output"}, args.output, 1, q[1], "q.shape[1]", error));
  return check_dim({"attention", "output"}, args.output, 2, args.v.shape[2], "v.shape[2]", error);
}

bl_status validate(const bl_attention_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_shapes(args, error));
  BL_CHECK(std::isfinite(args.scale), out_of_range, "attention: scale is %g, expected a finite number",
           args.scale);
  BL_CHECK(args.causal == 0 || args.causal == 1, invalid_argument, "attention: causal is %d, expected 0 or 1",
           args.causal);
  BL_CHECK(args.causal == 0 || args.q.shape[0] <= args.k.shape[0], invalid_shape,
           "attention: q.shape[0] is %lld, expected at most %lld (= k.shape[0]) when causal",
           static_cast<long long>(args.q.shape[0]), static_cast<long long>(args.k.shape[0]));
  BL_CHECK(args.window >= 0, out_of_range, "attention: window is %d, expected at least 0", args.window);
  BL_CHECK(args.window == 0 || args.causal == 1, invalid_argument,
           "attention: window is %d, expected 0 when not causal", args.window);
  BL_RETURN_IF_ERROR(
      check_apart({"attention", "output"}, args.output, "q", args.q.data, args.q.bytes, error));
  BL_RETURN_IF_ERROR(
      check_apart({"attention", "output"}, args.output, "k", args.k.data, args.k.bytes, error));
  return check_apart({"attention", "output"}, args.output, "v", args.v.data, args.v.bytes, error);
}

AttentionCall read(const bl_attention_args& args) {
  AttentionCall call{};
  call.q = args.q;
  call.k = args.k;
  call.v = args.v;
  call.output = args.output;
  call.queries = args.q.shape[0];
  call.heads = args.q.shape[1];
  call.head_dim = args.q.shape[2];
  call.keys = args.k.shape[0];
  call.kv_heads = args.k.shape[1];
  call.value_dim = args.v.shape[2];
  call.scale =
      args.scale != 0 ? args.scale : static_cast<float>(1 / std::sqrt(static_cast<double>(call.head_dim)));
  call.causal = args.causal != 0;
  call.window = args.window;
  return call;
}

const AttentionKernelRow& choose(const AttentionCall& call, const bl_run& run) {
  const int32_t isa = isa_of(run);
  const AttentionKernelRow* chosen = nullptr;
  for (const AttentionKernelRow& row : kKernels) {
    const char* reason = row.isa > isa ? "ISA level" : !row.takes(call) ? "strides" : nullptr;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: attention %lld queries %lld keys: %s: %s\n",
                   static_cast<long long>(call.queries), static_cast<long long>(call.keys), row.name,
                   reason == nullptr ? "taken" : reason);
    }
    if (reason == nullptr) {
      chosen = &row;
      break;
    }
  }
  return *chosen;  // the scalar row takes everything
}

// The tasks of a call, numbered: kv head, then part of its query heads, then block of queries. Depends on
// the shapes and the kernel only.
struct Partition {
  int64_t group, heads_per_task, queries_per_task;
  int64_t head_parts, query_blocks, count;

  Partition(const AttentionCall& call, const AttentionKernelRow& kernel)
      : group(call.group()),
        heads_per_task(std::min(group, kernel.max_heads)),
        queries_per_task(
            std::min(kernel.max_queries, std::max<int64_t>(kernel.max_rows / heads_per_task, 1))),
        head_parts((group + heads_per_task - 1) / heads_per_task),
        query_blocks((call.queries + queries_per_task - 1) / queries_per_task),
        count(call.kv_heads * head_parts * query_blocks) {}

  int64_t rows(const AttentionCall& call) const {
    return heads_per_task * std::min(queries_per_task, call.queries);
  }

  AttentionTask task(const AttentionCall& call, int64_t i) const {
    const int64_t query = i % query_blocks * queries_per_task;
    const int64_t part = i / query_blocks % head_parts;
    const int64_t kv_head = i / query_blocks / head_parts;
    const int64_t head = kv_head * group + part * heads_per_task;
    return {head, std::min(head + heads_per_task, (kv_head + 1) * group), query,
            std::min(query + queries_per_task, call.queries)};
  }
};

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_attention(const bl_attention_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_attention_args, "attention", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(attention, checked);
  if (element_count(checked.output) == 0) return BL_STATUS_ok;
  const AttentionCall call = read(checked);
  const AttentionKernelRow& kernel = choose(call, checked.run);
  const Partition partition(call, kernel);
  const int64_t slots = std::min(partition.count, kMaxSlots);
  const uint64_t slot_bytes = align_up(kernel.scratch_bytes(call, partition.rows(call)));
  const Scratch scratch(static_cast<uint64_t>(slots) * slot_bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "attention: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(static_cast<uint64_t>(slots) * slot_bytes));
  bl_run run = checked.run;
  const double work = static_cast<double>(call.queries) * static_cast<double>(call.heads) *
                      static_cast<double>(call.keys) * static_cast<double>(call.head_dim + call.value_dim);
  if (work < kSerialWork) run.threads = 1;
  parallel_for(run, slots, [&](int64_t slot) {
    uint8_t* memory = scratch.data() + static_cast<uint64_t>(slot) * slot_bytes;
    for (int64_t i = slot; i < partition.count; i += slots) kernel.run(call, partition.task(call, i), memory);
  });
  return BL_STATUS_ok;
}
