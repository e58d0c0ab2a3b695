// linear_attention: validate, choose a kernel, cut into tasks by sequence, kv head and value columns, run.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <iterator>

#include "../../base/backend.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "kernel.h"

namespace bitloom {

namespace {

const LinearAttentionKernelRow kKernels[] = {
#define BL_LINEAR_ATTENTION_KERNEL(isa, chunk) \
  {"linear_attention_" #isa, BL_ISA_##isa, chunk, isa::linear_attention, isa::linear_attention_scratch_bytes},
#include "kernels.inc"
#undef BL_LINEAR_ATTENTION_KERNEL
};

constexpr const char* kOp = "linear_attention";
// Workspaces of a call at most; slot i runs tasks i, i + slots, ...
constexpr int64_t kMaxSlots = 64;
// Multiply-adds below which waking other threads costs more than it brings (about 10 microseconds).
constexpr double kSerialWork = 1 << 17;
// A workspace holds chunk^2 and chunk * key_dim values; beyond a few hundred tokens chunks only cost more.
constexpr int32_t kMaxChunk = 512;
// Columns of a task: at 128 x 128 a state is 64 KB and stays in L2. Half of that where tasks would be few;
// not less, since every task of a head computes the products of its keys and queries anew.
constexpr int64_t kTaskColumns = 128;
constexpr int64_t kFewTasks = 4;

long long number(int64_t value) { return static_cast<long long>(value); }

bl_status check_shapes(const bl_linear_attention_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({kOp, "q"}, args.q, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({kOp, "k"}, args.k, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({kOp, "v"}, args.v, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_output({kOp, "output"}, args.output, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_output({kOp, "state"}, args.state, dtype_bit(BL_DTYPE_f32), 4, 4, error));
  const int64_t* q = args.q.shape;
  const int64_t* k = args.k.shape;
  const int64_t* v = args.v.shape;
  BL_CHECK(q[2] >= 1, invalid_shape, "linear_attention: q.shape[2] is 0, expected at least 1");
  BL_CHECK(k[1] >= 1, invalid_shape, "linear_attention: k.shape[1] is 0, expected at least 1 kv head");
  BL_CHECK(q[1] % k[1] == 0, invalid_shape,
           "linear_attention: q.shape[1] is %lld, expected a multiple of %lld (= k.shape[1])", number(q[1]),
           number(k[1]));
  BL_RETURN_IF_ERROR(check_dim({kOp, "k"}, args.k, 0, q[0], "q.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "k"}, args.k, 2, q[2], "q.shape[2]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "v"}, args.v, 0, q[0], "q.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "v"}, args.v, 1, k[1], "k.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "output"}, args.output, 0, q[0], "q.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "output"}, args.output, 1, q[1], "q.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "output"}, args.output, 2, v[2], "v.shape[2]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "state"}, args.state, 1, k[1], "k.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "state"}, args.state, 2, q[2], "q.shape[2]", error));
  BL_RETURN_IF_ERROR(check_dim({kOp, "state"}, args.state, 3, v[2], "v.shape[2]", error));
  BL_CHECK(element_count(args.state) == 0 || is_contiguous(args.state), invalid_shape,
           "linear_attention: state is not contiguous");
  return BL_STATUS_ok;
}

bl_status check_gates(const bl_linear_attention_args& args, bl_error* error) {
  const bl_tensor& decay = args.decay;
  if (decay.data != nullptr) {
    BL_RETURN_IF_ERROR(check_tensor({kOp, "decay"}, decay, dtype_bit(BL_DTYPE_f32), 1, 3, error));
    if (decay.rank > 1)
      BL_RETURN_IF_ERROR(check_dim({kOp, "decay"}, decay, 0, args.q.shape[0], "q.shape[0]", error));
    BL_RETURN_IF_ERROR(
        check_dim({kOp, "decay"}, decay, decay.rank > 1 ? 1 : 0, args.k.shape[1], "k.shape[1]", error));
    if (decay.rank > 2)
      BL_RETURN_IF_ERROR(check_dim({kOp, "decay"}, decay, 2, args.q.shape[2], "q.shape[2]", error));
  }
  if (args.beta.data != nullptr) {
    BL_CHECK(args.rule == BL_LINEAR_delta, invalid_argument,
             "linear_attention: beta is given, expected none with the decay rule");
    BL_RETURN_IF_ERROR(check_tensor({kOp, "beta"}, args.beta, dtype_bit(BL_DTYPE_f32), 2, 2, error));
    BL_RETURN_IF_ERROR(check_dim({kOp, "beta"}, args.beta, 0, args.q.shape[0], "q.shape[0]", error));
    BL_RETURN_IF_ERROR(check_dim({kOp, "beta"}, args.beta, 1, args.k.shape[1], "k.shape[1]", error));
  }
  if (args.cu_tokens.data == nullptr) {
    BL_CHECK(args.state.shape[0] == 1, invalid_shape,
             "linear_attention: state.shape[0] is %lld, expected 1 without cu_tokens",
             number(args.state.shape[0]));
    return BL_STATUS_ok;
  }
  return check_optional_vector({kOp, "cu_tokens"}, args.cu_tokens, dtype_bit(BL_DTYPE_i32),
                               args.state.shape[0] + 1, "state.shape[0] + 1", error);
}

// What is written must lie apart from what is read, and the state from the output.
bl_status check_overlaps(const bl_linear_attention_args& args, bl_error* error) {
  const struct {
    const char* name;
    const bl_tensor& tensor;
  } inputs[] = {{"q", args.q},         {"k", args.k},       {"v", args.v},
                {"decay", args.decay}, {"beta", args.beta}, {"cu_tokens", args.cu_tokens}};
  for (const auto& input : inputs) {
    const bl_tensor& tensor = input.tensor;
    const uint64_t bytes = tensor.data == nullptr ? 0 : tensor.bytes;
    BL_RETURN_IF_ERROR(check_apart({kOp, "output"}, args.output, input.name, tensor.data, bytes, error));
    BL_RETURN_IF_ERROR(check_apart({kOp, "state"}, args.state, input.name, tensor.data, bytes, error));
  }
  return check_apart({kOp, "output"}, args.output, "state", args.state.data, args.state.bytes, error);
}

bl_status validate(const bl_linear_attention_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_shapes(args, error));
  BL_CHECK(args.rule == BL_LINEAR_decay || args.rule == BL_LINEAR_delta, invalid_argument,
           "linear_attention: rule is %d, expected 0 (decay) or 1 (delta)", args.rule);
  BL_RETURN_IF_ERROR(check_gates(args, error));
  BL_CHECK(std::isfinite(args.scale), out_of_range, "linear_attention: scale is %g, expected a finite number",
           static_cast<double>(args.scale));
  BL_CHECK(args.chunk >= 0 && args.chunk <= kMaxChunk, out_of_range,
           "linear_attention: chunk is %d, expected 0 to %d", args.chunk, kMaxChunk);
  return check_overlaps(args, error);
}

int64_t token_at(const bl_tensor& cu_tokens, int64_t i) {
  return load_as<int32_t>(static_cast<const uint8_t*>(cu_tokens.data) + i * 4);
}

bl_status check_sequences(const bl_linear_attention_args& args, bl_error* error) {
  if (args.cu_tokens.data == nullptr) return BL_STATUS_ok;
  const int64_t sequences = args.state.shape[0];
  BL_CHECK(token_at(args.cu_tokens, 0) == 0, out_of_range,
           "linear_attention: cu_tokens[0] is %lld, expected 0", number(token_at(args.cu_tokens, 0)));
  for (int64_t i = 0; i < sequences; ++i) {
    const int64_t begin = token_at(args.cu_tokens, i), end = token_at(args.cu_tokens, i + 1);
    BL_CHECK(end >= begin, out_of_range,
             "linear_attention: cu_tokens[%lld] is %lld, expected at least %lld (= cu_tokens[%lld])",
             number(i + 1), number(end), number(begin), number(i));
  }
  BL_CHECK(token_at(args.cu_tokens, sequences) == args.q.shape[0], out_of_range,
           "linear_attention: cu_tokens[%lld] is %lld, expected %lld (= q.shape[0])", number(sequences),
           number(token_at(args.cu_tokens, sequences)), number(args.q.shape[0]));
  return BL_STATUS_ok;
}

LinearAttentionCall read(const bl_linear_attention_args& args, int64_t chunk) {
  LinearAttentionCall call{};
  call.q = args.q;
  call.k = args.k;
  call.v = args.v;
  call.output = args.output;
  call.decay = args.decay;
  call.beta = args.beta;
  call.heads = args.q.shape[1];
  call.kv_heads = args.k.shape[1];
  call.key_dim = args.q.shape[2];
  call.value_dim = args.v.shape[2];
  call.chunk = args.chunk != 0 ? args.chunk : chunk;
  call.scale =
      args.scale != 0 ? args.scale : static_cast<float>(1 / std::sqrt(static_cast<double>(call.key_dim)));
  call.delta = args.rule == BL_LINEAR_delta;
  call.kind = args.decay.data == nullptr ? Decay::none
              : args.decay.rank == 1     ? Decay::head
              : args.decay.rank == 2     ? Decay::token
                                         : Decay::channel;
  return call;
}

const LinearAttentionKernelRow& choose(const bl_linear_attention_args& args) {
  const int32_t isa = isa_of(args.run);
  for (const LinearAttentionKernelRow& row : kKernels) {
    const bool taken = row.isa <= isa;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: linear_attention %lld tokens: %s: %s\n", number(args.q.shape[0]),
                   row.name, taken ? "taken" : "ISA level");
    }
    if (taken) return row;
  }
  return kKernels[std::size(kKernels) - 1];  // not reached: the scalar row is always taken
}

// The tasks of a call, numbered: sequence, then kv head, then part of the columns. Depends on the shapes
// only.
struct Partition {
  int64_t kv_heads, value_dim, columns, column_parts, sequences, count;

  Partition(const LinearAttentionCall& call, int64_t all_sequences)
      : kv_heads(call.kv_heads), value_dim(call.value_dim), columns(kTaskColumns), sequences(all_sequences) {
    const auto parts = [this] { return (value_dim + columns - 1) / columns; };
    if (sequences * kv_heads * parts() < kFewTasks) columns /= 2;
    column_parts = parts();
    count = sequences * kv_heads * column_parts;
  }

  LinearAttentionTask task(const bl_linear_attention_args& args, int64_t i) const {
    const int64_t column = i % column_parts * columns;
    const int64_t kv_head = i / column_parts % kv_heads;
    const int64_t sequence = i / column_parts / kv_heads;
    const bool ragged = args.cu_tokens.data != nullptr;
    LinearAttentionTask task{};
    task.token_begin = ragged ? token_at(args.cu_tokens, sequence) : 0;
    task.token_end = ragged ? token_at(args.cu_tokens, sequence + 1) : args.q.shape[0];
    task.kv_head = kv_head;
    task.column_begin = column;
    task.column_end = std::min(column + columns, value_dim);
    task.state = static_cast<float*>(args.state.data) +
                 (sequence * kv_heads + kv_head) * args.q.shape[2] * value_dim + column;
    return task;
  }
};

int64_t longest_sequence(const bl_linear_attention_args& args) {
  if (args.cu_tokens.data == nullptr) return args.q.shape[0];
  int64_t longest = 0;
  for (int64_t i = 0; i < args.state.shape[0]; ++i) {
    longest = std::max(longest, token_at(args.cu_tokens, i + 1) - token_at(args.cu_tokens, i));
  }
  return longest;
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_linear_attention(const bl_linear_attention_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_linear_attention_args, "linear_attention", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(linear_attention, checked);
  BL_RETURN_IF_ERROR(check_sequences(checked, error));
  const int64_t longest = longest_sequence(checked);
  if (longest == 0 || element_count(checked.state) == 0) return BL_STATUS_ok;
  const LinearAttentionKernelRow& kernel = choose(checked);
  const LinearAttentionCall call = read(checked, kernel.chunk);
  const Partition partition(call, checked.state.shape[0]);
  const int64_t slots = std::min(partition.count, kMaxSlots);
  const uint64_t slot_bytes =
      align_up(kernel.scratch_bytes(call, longest, std::min(partition.columns, call.value_dim)));
  const Scratch scratch(static_cast<uint64_t>(slots) * slot_bytes);
  BL_CHECK(scratch.data() != nullptr, out_of_memory,
           "linear_attention: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(static_cast<uint64_t>(slots) * slot_bytes));
  bl_run run = checked.run;
  const double work = static_cast<double>(checked.q.shape[0]) *
                      static_cast<double>(call.heads + call.kv_heads) * static_cast<double>(call.key_dim) *
                      static_cast<double>(call.value_dim);
  if (work < kSerialWork) run.threads = 1;
  parallel_for(run, slots, [&](int64_t slot) {
    uint8_t* memory = scratch.data() + static_cast<uint64_t>(slot) * slot_bytes;
    for (int64_t i = slot; i < partition.count; i += slots) {
      const LinearAttentionTask task = partition.task(checked, i);
      if (task.tokens() > 0) kernel.run(call, task, memory);
    }
  });
  return BL_STATUS_ok;
}
