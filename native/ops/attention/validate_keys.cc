// Checks of keys and values: tensors, or segments of pages.
#include "validate_parts.h"

namespace bitloom {

namespace {

constexpr int64_t kMaxLength = int64_t{1} << 40;

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

}  // namespace

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

}  // namespace bitloom
