#include "validate.h"

#include <cmath>
#include <cstring>

#include "../../base/tensor.h"

namespace bitloom {

namespace {

constexpr int64_t kMaxLength = int64_t{1} << 40;

long long ll(int64_t value) { return static_cast<long long>(value); }

// A tensor that is read through its element type, hence aligned; data NULL is "not given".
bl_status check_index(const char* name, const bl_tensor& tensor, uint32_t dtypes, int min_rank, int max_rank,
                      bl_error* error) {
  if (tensor.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor({"attention", name}, tensor, dtypes, min_rank, max_rank, error));
  BL_CHECK(reinterpret_cast<uintptr_t>(tensor.data) % static_cast<uintptr_t>(dtype_bytes(tensor.dtype)) == 0,
           invalid_argument,
           "attention: %s.data is not aligned to its elements, expected a multiple of %lld bytes", name,
           ll(dtype_bytes(tensor.dtype)));
  return BL_STATUS_ok;
}

bool is_paged(const bl_attention_args& args) { return args.segments[0].keys.data != nullptr; }
int32_t segment_count(const bl_attention_args& args) { return args.segments[1].keys.data != nullptr ? 2 : 1; }

int64_t kv_heads_of(const bl_attention_args& args) {
  if (!is_paged(args)) return args.k.shape[1];
  const bl_kv_segment& segment = args.segments[0];
  return segment.block_table.rank == 3 ? segment.block_table.shape[1] : segment.keys.num_heads;
}
int64_t sequences_of(const bl_attention_args& args) {
  if (is_paged(args)) return args.segments[0].block_table.shape[0];
  return args.cu_queries.data != nullptr ? args.cu_queries.shape[0] - 1 : 1;
}
int64_t value_dim_of(const bl_attention_args& args) {
  if (!is_paged(args)) return args.v.shape[2];
  return args.segments[0].values.data != nullptr ? args.segments[0].values.dim : args.output.shape[2];
}

bl_status check_pages(const char* name, const bl_kv_pages& pages, bool values, KvPage* layout,
                      bl_error* error) {
  BL_CHECK(kv_page(pages.format, values, pages.page_size, pages.dim, layout), invalid_format,
           "attention: %s has format %d, pages of %d tokens and %d channels, expected a known format, 8 to "
           "%d tokens in "
           "steps of 8 and 1 to %d channels",
           name, pages.format, pages.page_size, pages.dim, kMaxKvPageSize, kMaxKvDim);
  BL_CHECK(pages.num_heads >= 1 && pages.num_pages >= 0 && pages.num_pages <= INT32_MAX, invalid_shape,
           "attention: %s has %d heads and %lld pages, expected at least 1 head and 0 to 2^31 - 1 pages",
           name, pages.num_heads, ll(pages.num_pages));
  const __int128 bytes = static_cast<__int128>(pages.num_pages) * pages.num_heads * layout->bytes;
  BL_CHECK(bytes <= static_cast<__int128>(pages.bytes), out_of_range,
           "attention: %s has %llu bytes, expected at least %llu for %lld pages", name,
           static_cast<unsigned long long>(pages.bytes), static_cast<unsigned long long>(bytes),
           ll(pages.num_pages));
  BL_CHECK(reinterpret_cast<uintptr_t>(pages.data) % 4 == 0, invalid_argument,
           "attention: %s.data is not aligned to 4 bytes", name);
  return BL_STATUS_ok;
}

bl_status check_segment(const bl_attention_args& args, int32_t index, bl_error* error) {
  const bl_kv_segment& segment = args.segments[index];
  const char* const names[2][4] = {{"keys", "values", "blockTable", "lengths"},
                                   {"recent.keys", "recent.values", "recent.blockTable", "recent.lengths"}};
  const char* const* name = names[index];
  KvPage keys, values;
  BL_RETURN_IF_ERROR(check_pages(name[0], segment.keys, false, &keys, error));
  BL_CHECK(segment.keys.dim == args.q.shape[2], invalid_shape,
           "attention: %s.dim is %d, expected %lld (= q.shape[2])", name[0], segment.keys.dim,
           ll(args.q.shape[2]));
  if (segment.values.data != nullptr) {
    BL_RETURN_IF_ERROR(check_pages(name[1], segment.values, true, &values, error));
    BL_CHECK(segment.values.dim == value_dim_of(args), invalid_shape,
             "attention: %s.dim is %d, expected %lld", name[1], segment.values.dim, ll(value_dim_of(args)));
    BL_CHECK(segment.values.page_size == segment.keys.page_size &&
                 segment.values.num_heads == segment.keys.num_heads,
             invalid_shape,
             "attention: %s has pages of %d tokens and %d heads, expected %d and %d (= those of %s)", name[1],
             segment.values.page_size, segment.values.num_heads, segment.keys.page_size,
             segment.keys.num_heads, name[0]);
  } else {
    BL_CHECK(value_dim_of(args) <= args.q.shape[2], invalid_shape,
             "attention: output.shape[2] is %lld without values, expected at most %lld (= channels of a key)",
             ll(value_dim_of(args)), ll(args.q.shape[2]));
  }
  // Data may be null where there is none: sequences without pages yet.
  BL_CHECK(segment.block_table.rank != 0 && segment.lengths.rank != 0, invalid_argument,
           "attention: %s or %s is missing, expected both with pages", name[2], name[3]);
  BL_RETURN_IF_ERROR(
      check_tensor({"attention", name[2]}, segment.block_table, dtype_bit(BL_DTYPE_i32), 2, 3, error));
  BL_RETURN_IF_ERROR(
      check_tensor({"attention", name[3]}, segment.lengths, dtype_bit(BL_DTYPE_i32), 1, 2, error));
  BL_RETURN_IF_ERROR(check_index(name[2], segment.block_table, dtype_bit(BL_DTYPE_i32), 2, 3, error));
  BL_RETURN_IF_ERROR(check_index(name[3], segment.lengths, dtype_bit(BL_DTYPE_i32), 1, 2, error));
  const int64_t sequences = sequences_of(args), heads = kv_heads_of(args);
  const bl_tensor& table = segment.block_table;
  BL_CHECK(heads >= 1, invalid_shape, "attention: %s.shape[1] is 0, expected at least 1 kv head", name[2]);
  BL_RETURN_IF_ERROR(check_dim({"attention", name[2]}, table, 0, sequences, "sequences", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", name[3]}, segment.lengths, 0, sequences, "sequences", error));
  if (segment.lengths.rank == 2) {
    BL_RETURN_IF_ERROR(check_dim({"attention", name[3]}, segment.lengths, 1, heads, "kv heads", error));
  }
  if (table.rank == 3) {
    BL_RETURN_IF_ERROR(check_dim({"attention", name[2]}, table, 1, heads, "kv heads", error));
    BL_CHECK(segment.keys.num_heads == 1 || segment.keys.num_heads == heads, invalid_shape,
             "attention: %s has %d heads in a page, expected 1 or %lld", name[0], segment.keys.num_heads,
             ll(heads));
  } else {
    BL_CHECK(segment.keys.num_heads == heads, invalid_shape,
             "attention: %s has %d heads in a page, expected %lld", name[0], segment.keys.num_heads,
             ll(heads));
  }
  return BL_STATUS_ok;
}

bl_status check_keys(const bl_attention_args& args, bl_error* error) {
  if (is_paged(args)) {
    BL_CHECK(args.k.data == nullptr && args.v.data == nullptr, invalid_argument,
             "attention: k and v are given beside pages, expected one of both");
    for (int32_t i = 0; i < segment_count(args); ++i) BL_RETURN_IF_ERROR(check_segment(args, i, error));
    BL_CHECK(args.cu_keys.data == nullptr, invalid_argument,
             "attention: cuKeys is given with pages, expected lengths");
    return BL_STATUS_ok;
  }
  BL_CHECK(segment_count(args) == 1, invalid_argument, "attention: recent pages are given without pages");
  BL_RETURN_IF_ERROR(check_tensor({"attention", "k"}, args.k, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_tensor({"attention", "v"}, args.v, kFloatTypes, 3, 3, error));
  const int64_t* k = args.k.shape;
  BL_CHECK(k[1] >= 1, invalid_shape, "attention: k.shape[1] is 0, expected at least 1 kv head");
  // Views with stride 0 can claim any length; beyond this, sizes in bytes could overflow.
  BL_CHECK(k[0] <= kMaxLength && args.q.shape[2] <= kMaxLength, invalid_shape,
           "attention: k is %lld keys x %lld, expected at most 2^40 each", ll(k[0]), ll(args.q.shape[2]));
  BL_RETURN_IF_ERROR(check_dim({"attention", "k"}, args.k, 2, args.q.shape[2], "q.shape[2]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "v"}, args.v, 0, k[0], "k.shape[0]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "v"}, args.v, 1, k[1], "k.shape[1]", error));
  BL_CHECK(args.v.dtype == args.k.dtype, invalid_dtype, "attention: v.dtype is %s, expected %s (= k.dtype)",
           dtype_name(args.v.dtype), dtype_name(args.k.dtype));
  BL_CHECK((args.cu_queries.data == nullptr) == (args.cu_keys.data == nullptr), invalid_argument,
           "attention: one of cuQueries and cuKeys is given, expected both or none");
  return BL_STATUS_ok;
}

bl_status check_offsets(const char* name, const bl_tensor& tensor, int64_t sequences, bl_error* error) {
  BL_RETURN_IF_ERROR(check_index(name, tensor, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  if (tensor.data == nullptr) return BL_STATUS_ok;
  return check_dim({"attention", name}, tensor, 0, sequences + 1, "sequences + 1", error);
}

bl_status check_head_vector(const char* name, const bl_tensor& tensor, int32_t dtype, int64_t heads,
                            bl_error* error) {
  BL_RETURN_IF_ERROR(
      check_optional_vector({"attention", name}, tensor, dtype_bit(dtype), heads, "q.shape[1]", error));
  return check_index(name, tensor, dtype_bit(dtype), 1, 1, error);
}

// Outputs beside the main one: lse, probabilities.
bl_status check_extra(const char* name, const bl_tensor& tensor, int rank, const bl_attention_args& args,
                      bl_error* error) {
  if (tensor.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_output({"attention", name}, tensor, dtype_bit(BL_DTYPE_f32), rank, rank, error));
  BL_RETURN_IF_ERROR(check_index(name, tensor, dtype_bit(BL_DTYPE_f32), rank, rank, error));
  const bl_tensor* others[] = {&args.q,      &args.k,      &args.v,    &args.mask,
                               &args.output, &args.slopes, &args.sinks};
  const char* names[] = {"q", "k", "v", "mask", "output", "slopes", "sinks"};
  for (int i = 0; i < 7; ++i) {
    BL_RETURN_IF_ERROR(
        check_apart({"attention", name}, tensor, names[i], others[i]->data, others[i]->bytes, error));
  }
  return BL_STATUS_ok;
}

bl_status check_numbers(const bl_attention_args& args, bl_error* error) {
  BL_CHECK(std::isfinite(args.scale), out_of_range, "attention: scale is %g, expected a finite number",
           args.scale);
  BL_CHECK(args.causal == 0 || args.causal == 1, invalid_argument, "attention: causal is %d, expected 0 or 1",
           args.causal);
  BL_CHECK(args.window >= 0, out_of_range, "attention: window is %d, expected at least 0", args.window);
  BL_CHECK(args.compute >= BL_COMPUTE_f32 && args.compute <= BL_COMPUTE_bf16, invalid_argument,
           "attention: compute is %d, expected f32, i8 or bf16", args.compute);
  BL_CHECK(std::isfinite(args.soft_cap) && args.soft_cap >= 0, out_of_range,
           "attention: softCap is %g, expected a finite number of at least 0", args.soft_cap);
  BL_CHECK(args.prefix >= 0 && args.causal_block >= 0 && args.sink_tokens >= 0, out_of_range,
           "attention: prefix is %d, causalBlock %d, sinkTokens %d, expected at least 0", args.prefix,
           args.causal_block, args.sink_tokens);
  BL_CHECK(args.causal == 1 || (args.prefix == 0 && args.causal_block == 0), invalid_argument,
           "attention: prefix is %d and causalBlock %d, expected 0 when not causal", args.prefix,
           args.causal_block);
  return BL_STATUS_ok;
}

bl_status check_masks(const bl_attention_args& args, bl_error* error) {
  const int64_t queries = args.q.shape[0], heads = args.q.shape[1];
  if (args.mask.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_index("mask", args.mask, dtype_bit(BL_DTYPE_u8) | dtype_bit(BL_DTYPE_f32), 3, 3, error));
    BL_CHECK(args.mask.shape[0] == 1 || args.mask.shape[0] == heads, invalid_shape,
             "attention: mask.shape[0] is %lld, expected 1 or %lld (= q.shape[1])", ll(args.mask.shape[0]),
             ll(heads));
    BL_RETURN_IF_ERROR(check_dim({"attention", "mask"}, args.mask, 1, queries, "q.shape[0]", error));
  }
  if (args.block_mask.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_index("blockMask", args.block_mask, dtype_bit(BL_DTYPE_u8), 3, 3, error));
  BL_CHECK(args.block_queries >= 1 && args.block_keys >= 1, out_of_range,
           "attention: blockMask is of blocks of %d queries and %d keys, expected at least 1 of each",
           args.block_queries, args.block_keys);
  BL_CHECK(!is_paged(args) && args.cu_queries.data == nullptr, unsupported,
           "attention: blockMask is given with several sequences or pages, expected k and v of one sequence");
  BL_CHECK(args.block_mask.shape[0] == 1 || args.block_mask.shape[0] == heads, invalid_shape,
           "attention: blockMask.shape[0] is %lld, expected 1 or %lld (= q.shape[1])",
           ll(args.block_mask.shape[0]), ll(heads));
  const auto blocks = [](int64_t n, int64_t size) { return n / size + (n % size != 0 ? 1 : 0); };
  BL_RETURN_IF_ERROR(check_dim({"attention", "blockMask"}, args.block_mask, 1,
                               blocks(queries, args.block_queries), "ceil(queries / blockQueries)", error));
  return check_dim({"attention", "blockMask"}, args.block_mask, 2, blocks(args.k.shape[0], args.block_keys),
                   "ceil(keys / blockKeys)", error);
}

int64_t index_count(const bl_tensor& tensor) { return tensor.data == nullptr ? 0 : element_count(tensor); }

// Copies a tensor of i32 in row-major order and makes the tensor describe the copy.
void copy_index(bl_tensor* tensor, int32_t** next) {
  if (tensor->data == nullptr) return;
  const int64_t* shape = tensor->shape;
  const int32_t* data = static_cast<const int32_t*>(tensor->data);
  int32_t* copy = *next;
  const int64_t counts[3] = {shape[0], tensor->rank > 1 ? shape[1] : 1, tensor->rank > 2 ? shape[2] : 1};
  const int64_t steps[3] = {tensor->strides[0], tensor->rank > 1 ? tensor->strides[1] : 0,
                            tensor->rank > 2 ? tensor->strides[2] : 0};
  for (int64_t i = 0; i < counts[0]; ++i) {
    for (int64_t j = 0; j < counts[1]; ++j) {
      for (int64_t l = 0; l < counts[2]; ++l) *(*next)++ = data[i * steps[0] + j * steps[1] + l * steps[2]];
    }
  }
  tensor->data = copy;
  tensor->strides[0] = counts[1] * counts[2];
  if (tensor->rank > 1) tensor->strides[1] = counts[2];
  if (tensor->rank > 2) tensor->strides[2] = 1;
}

bl_status check_offset_values(const char* name, const int32_t* offsets, int64_t sequences, int64_t rows,
                              const char* rows_name, bl_error* error) {
  if (offsets == nullptr) return BL_STATUS_ok;
  BL_CHECK(offsets[0] == 0 && offsets[sequences] == rows, out_of_range,
           "attention: %s goes from %d to %d, expected 0 to %lld (= %s)", name, offsets[0],
           offsets[sequences], ll(rows), rows_name);
  for (int64_t i = 0; i < sequences; ++i) {
    BL_CHECK(offsets[i] <= offsets[i + 1], out_of_range,
             "attention: %s[%lld] is %d, expected at least %d (the one before)", name, ll(i + 1),
             offsets[i + 1], offsets[i]);
  }
  return BL_STATUS_ok;
}

// Lengths and page numbers of a segment, as copied.
bl_status check_table(const AttentionCall& call, int32_t index, bl_error* error) {
  const bl_kv_segment& segment = *call.segments[index].paged;
  const char* recent = index == 1 ? "recent." : "";
  const int64_t pages = segment.block_table.shape[segment.block_table.rank - 1];
  const int64_t page_size = segment.keys.page_size;
  const int64_t num_pages = segment.values.data != nullptr
                                ? std::min(segment.keys.num_pages, segment.values.num_pages)
                                : segment.keys.num_pages;
  const int64_t heads = segment.block_table.rank == 3 || segment.lengths.rank == 2 ? call.kv_heads : 1;
  for (int64_t sequence = 0; sequence < call.sequences; ++sequence) {
    for (int64_t head = 0; head < heads; ++head) {
      const int64_t length = call.segment_keys(index, sequence, head);
      BL_CHECK(length >= 0 && length <= pages * page_size, out_of_range,
               "attention: %slengths[%lld] is %lld, expected 0 to %lld (= %lld pages of %lld tokens)", recent,
               ll(sequence), ll(length), ll(pages * page_size), ll(pages), ll(page_size));
      for (int64_t token = 0; token < length; token += page_size) {
        const int64_t page = call.place(index, sequence, head, token).page;
        BL_CHECK(page >= 0 && page < num_pages, out_of_range,
                 "attention: %sblockTable[%lld][%lld] is %lld, expected 0 to %lld", recent, ll(sequence),
                 ll(token / page_size), ll(page), ll(num_pages - 1));
      }
    }
  }
  return BL_STATUS_ok;
}

}  // namespace

bl_status check_attention_shapes(const bl_attention_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"attention", "q"}, args.q, kFloatTypes, 3, 3, error));
  BL_CHECK(args.q.shape[2] >= 1, invalid_shape, "attention: q.shape[2] is 0, expected at least 1");
  BL_RETURN_IF_ERROR(check_output({"attention", "output"}, args.output, kFloatTypes, 3, 3, error));
  BL_RETURN_IF_ERROR(check_keys(args, error));
  const int64_t kv_heads = kv_heads_of(args);
  BL_CHECK(args.q.shape[1] % kv_heads == 0, invalid_shape,
           "attention: q.shape[1] is %lld, expected a multiple of %lld (= %s)", ll(args.q.shape[1]),
           ll(kv_heads), is_paged(args) ? "kv heads of the pages" : "k.shape[1]");
  BL_RETURN_IF_ERROR(
      check_dim({"attention", "output"}, args.output, 0, args.q.shape[0], "q.shape[0]", error));
  BL_RETURN_IF_ERROR(
      check_dim({"attention", "output"}, args.output, 1, args.q.shape[1], "q.shape[1]", error));
  BL_RETURN_IF_ERROR(check_dim({"attention", "output"}, args.output, 2, value_dim_of(args),
                               is_paged(args) ? "channels of a value" : "v.shape[2]", error));
  const int64_t sequences = sequences_of(args), queries = args.q.shape[0], heads = args.q.shape[1];
  if (args.cu_queries.data != nullptr) {
    BL_CHECK(args.cu_queries.rank == 1 && args.cu_queries.shape[0] >= 1, invalid_shape,
             "attention: cuQueries is not a vector of at least 1 offset");
  }
  BL_RETURN_IF_ERROR(check_offsets("cuQueries", args.cu_queries, sequences, error));
  BL_RETURN_IF_ERROR(check_offsets("cuKeys", args.cu_keys, sequences, error));
  BL_CHECK(args.cu_queries.data != nullptr || (sequences == 0 ? queries == 0 : queries % sequences == 0),
           invalid_shape,
           "attention: q.shape[0] is %lld, expected a multiple of %lld (= sequences) without cuQueries",
           ll(queries), ll(sequences));
  BL_RETURN_IF_ERROR(check_numbers(args, error));
  BL_RETURN_IF_ERROR(check_head_vector("slopes", args.slopes, BL_DTYPE_f32, heads, error));
  BL_RETURN_IF_ERROR(check_head_vector("sinks", args.sinks, BL_DTYPE_f32, heads, error));
  BL_RETURN_IF_ERROR(check_head_vector("windows", args.windows, BL_DTYPE_i32, heads, error));
  BL_RETURN_IF_ERROR(check_head_vector("sinkCounts", args.sink_counts, BL_DTYPE_i32, heads, error));
  BL_RETURN_IF_ERROR(check_masks(args, error));
  BL_RETURN_IF_ERROR(check_extra("lse", args.lse, 2, args, error));
  if (args.lse.data != nullptr) {
    BL_RETURN_IF_ERROR(check_dim({"attention", "lse"}, args.lse, 0, queries, "q.shape[0]", error));
    BL_RETURN_IF_ERROR(check_dim({"attention", "lse"}, args.lse, 1, heads, "q.shape[1]", error));
  }
  BL_RETURN_IF_ERROR(check_extra("probabilities", args.probabilities, 3, args, error));
  if (args.probabilities.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_dim({"attention", "probabilities"}, args.probabilities, 0, heads, "q.shape[1]", error));
    BL_RETURN_IF_ERROR(
        check_dim({"attention", "probabilities"}, args.probabilities, 1, queries, "q.shape[0]", error));
    BL_CHECK(args.probabilities.strides[2] == 1 || args.probabilities.shape[2] <= 1, invalid_shape,
             "attention: probabilities.strides[2] is %lld, expected 1", ll(args.probabilities.strides[2]));
    BL_RETURN_IF_ERROR(check_apart({"attention", "probabilities"}, args.probabilities, "lse", args.lse.data,
                                   args.lse.bytes, error));
  }
  const bl_tensor* inputs[] = {&args.q,          &args.k,      &args.v,    &args.mask,
                               &args.block_mask, &args.slopes, &args.sinks};
  const char* names[] = {"q", "k", "v", "mask", "blockMask", "slopes", "sinks"};
  for (int i = 0; i < 7; ++i) {
    BL_RETURN_IF_ERROR(check_apart({"attention", "output"}, args.output, names[i], inputs[i]->data,
                                   inputs[i]->bytes, error));
  }
  for (const bl_kv_segment& segment : args.segments) {
    BL_RETURN_IF_ERROR(check_apart({"attention", "output"}, args.output, "keys", segment.keys.data,
                                   segment.keys.bytes, error));
    BL_RETURN_IF_ERROR(check_apart({"attention", "output"}, args.output, "values", segment.values.data,
                                   segment.values.bytes, error));
  }
  return BL_STATUS_ok;
}

uint64_t attention_index_bytes(const bl_attention_args& args) {
  int64_t count = index_count(args.cu_queries) + index_count(args.cu_keys) + index_count(args.windows) +
                  index_count(args.sink_counts);
  for (const bl_kv_segment& segment : args.segments) {
    if (segment.keys.data != nullptr)
      count += index_count(segment.block_table) + index_count(segment.lengths);
  }
  // The segments themselves, which the call then points to.
  return static_cast<uint64_t>(count) * sizeof(int32_t) + 2 * sizeof(bl_kv_segment);
}

bl_status read_attention(const bl_attention_args& args, int32_t* indices, AttentionCall* call,
                         bl_error* error) {
  *call = AttentionCall{};
  call->q = args.q;
  call->k = args.k;
  call->v = args.v;
  call->output = args.output;
  call->lse = args.lse;
  call->mask = args.mask;
  call->block_mask = args.block_mask;
  call->probabilities = args.probabilities;
  call->queries = args.q.shape[0];
  call->heads = args.q.shape[1];
  call->head_dim = args.q.shape[2];
  call->kv_heads = kv_heads_of(args);
  call->value_dim = value_dim_of(args);
  call->sequences = sequences_of(args);
  call->scale =
      args.scale != 0 ? args.scale : static_cast<float>(1 / std::sqrt(static_cast<double>(call->head_dim)));
  call->soft_cap = args.soft_cap;
  call->causal = args.causal != 0;
  call->window = args.window;
  call->prefix = args.prefix;
  call->causal_block = args.causal_block == 0 ? 1 : args.causal_block;
  call->sink_tokens = args.sink_tokens;
  call->block_queries = args.block_queries;
  call->block_keys = args.block_keys;
  call->slopes = static_cast<const float*>(args.slopes.data);
  call->sinks = static_cast<const float*>(args.sinks.data);
  call->segment_count = segment_count(args);

  bl_kv_segment* segments = reinterpret_cast<bl_kv_segment*>(indices);
  int32_t* next = reinterpret_cast<int32_t*>(segments + 2);
  const auto copy = [&](bl_tensor tensor) {
    copy_index(&tensor, &next);
    return static_cast<const int32_t*>(tensor.data);
  };
  call->cu_queries = copy(args.cu_queries);
  call->cu_keys = copy(args.cu_keys);
  call->windows = copy(args.windows);
  call->sink_counts = copy(args.sink_counts);
  BL_RETURN_IF_ERROR(check_offset_values("cuQueries", call->cu_queries, call->sequences, call->queries,
                                         "q.shape[0]", error));
  BL_RETURN_IF_ERROR(
      check_offset_values("cuKeys", call->cu_keys, call->sequences, args.k.shape[0], "k.shape[0]", error));
  for (int64_t head = 0; head < call->heads; ++head) {
    BL_CHECK(call->windows == nullptr || call->windows[head] >= 0, out_of_range,
             "attention: windows[%lld] is %d, expected at least 0", ll(head), call->windows[head]);
    BL_CHECK(call->sink_counts == nullptr || call->sink_counts[head] >= 0, out_of_range,
             "attention: sinkCounts[%lld] is %d, expected at least 0", ll(head), call->sink_counts[head]);
  }
  int64_t shortest = INT64_MAX, longest = 0;
  if (is_paged(args)) {
    for (int32_t i = 0; i < call->segment_count; ++i) {
      segments[i] = args.segments[i];
      copy_index(&segments[i].block_table, &next);
      copy_index(&segments[i].lengths, &next);
      call->segments[i].paged = segments + i;
      kv_page(segments[i].keys.format, false, segments[i].keys.page_size, segments[i].keys.dim,
              &call->segments[i].key_page);
      if (segments[i].values.data != nullptr) {
        kv_page(segments[i].values.format, true, segments[i].values.page_size, segments[i].values.dim,
                &call->segments[i].value_page);
      }
      BL_RETURN_IF_ERROR(check_table(*call, i, error));
    }
  }
  for (int64_t sequence = 0; sequence < call->sequences; ++sequence) {
    for (int64_t head = 0; head < call->kv_heads; ++head) {
      shortest = std::min(shortest, call->keys(sequence, head));
      longest = std::max(longest, call->keys(sequence, head));
    }
  }
  BL_CHECK(args.mask.data == nullptr || call->sequences == 0 || args.mask.shape[2] <= shortest, invalid_shape,
           "attention: mask.shape[2] is %lld, expected at most %lld (the keys of the shortest sequence)",
           ll(args.mask.shape[2]), ll(shortest));
  BL_CHECK(args.probabilities.data == nullptr || args.probabilities.shape[2] == longest, invalid_shape,
           "attention: probabilities.shape[2] is %lld, expected %lld (the keys of the longest sequence)",
           ll(args.probabilities.shape[2]), ll(longest));
  return BL_STATUS_ok;
}

bl_status check_attention_on_device(const bl_attention_args& args, bl_error* error) {
  const bool plain = !is_paged(args) && args.cu_queries.data == nullptr && args.soft_cap == 0 &&
                     args.slopes.data == nullptr && args.sinks.data == nullptr && args.mask.data == nullptr &&
                     args.block_mask.data == nullptr && args.prefix == 0 && args.causal_block <= 1 &&
                     args.sink_tokens == 0 && args.windows.data == nullptr &&
                     args.sink_counts.data == nullptr && args.lse.data == nullptr &&
                     args.probabilities.data == nullptr && (args.causal == 1 || args.window == 0) &&
                     args.k.shape[0] >= 1 && (args.causal == 0 || args.q.shape[0] <= args.k.shape[0]);
  BL_CHECK(plain, unsupported,
           "attention: on a device, expected q, k and v of one sequence, no more queries than keys, and of "
           "the options "
           "only scale, causal and window");
  return BL_STATUS_ok;
}

}  // namespace bitloom
