#include "topology.h"

#include <algorithm>
#include <limits>

#include "../../base/float16.h"
#include "../../base/tensor.h"

namespace bitloom {

namespace {

bl_status read(Argument argument, const bl_tensor& tensor, std::vector<int32_t>* out, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor(argument, tensor, dtype_bit(BL_DTYPE_i32), 1, 1, error));
  BL_CHECK(is_contiguous(tensor), invalid_shape, "%s: %s.strides[0] is %lld, expected 1", argument.op,
           argument.name, static_cast<long long>(tensor.strides[0]));
  const uint8_t* data = static_cast<const uint8_t*>(tensor.data);
  out->resize(static_cast<size_t>(tensor.shape[0]));
  for (size_t i = 0; i < out->size(); ++i) (*out)[i] = load_as<int32_t>(data + 4 * i);
  return BL_STATUS_ok;
}

// From 0 on, not falling, at most `step` a line, to `last` (-1: any).
bl_status check_bounds(Argument argument, const std::vector<int32_t>& values, int64_t step, int64_t last,
                       bl_error* error) {
  BL_CHECK(!values.empty(), invalid_shape, "%s: %s.shape[0] is 0, expected at least 1", argument.op,
           argument.name);
  BL_CHECK(values[0] == 0, out_of_range, "%s: %s[0] is %d, expected 0", argument.op, argument.name,
           values[0]);
  for (size_t i = 1; i < values.size(); ++i) {
    const int64_t before = values[i - 1];
    BL_CHECK(values[i] >= before && values[i] - before <= step, out_of_range,
             "%s: %s[%zu] is %d, expected %lld to %lld", argument.op, argument.name, i, values[i],
             static_cast<long long>(before), static_cast<long long>(before + step));
  }
  BL_CHECK(last < 0 || values.back() == last, out_of_range, "%s: %s[%zu] is %d, expected %lld (blocks)",
           argument.op, argument.name, values.size() - 1, values.back(), static_cast<long long>(last));
  return BL_STATUS_ok;
}

bl_status check_length(Argument argument, const std::vector<int32_t>& values, size_t expected,
                       const char* expected_name, bl_error* error) {
  BL_CHECK(values.size() == expected, invalid_shape, "%s: %s.shape[0] is %zu, expected %zu (= %s)",
           argument.op, argument.name, values.size(), expected, expected_name);
  return BL_STATUS_ok;
}

bl_status check_index(Argument argument, size_t at, int64_t value, int64_t low, int64_t high,
                      bl_error* error) {
  BL_CHECK(value >= low && value <= high, out_of_range, "%s: %s[%zu] is %lld, expected %lld to %lld",
           argument.op, argument.name, at, static_cast<long long>(value), static_cast<long long>(low),
           static_cast<long long>(high));
  return BL_STATUS_ok;
}

// Blocks by rows: column_indices rise within a row, row_indices say its number.
bl_status check_rows(const char* op, const Topology& t, const std::vector<int32_t>& row_indices,
                     bl_error* error) {
  const Lines& rows = t.rows;
  for (int64_t r = 0; r < rows.count(); ++r) {
    int64_t least = 0;
    for (size_t i = static_cast<size_t>(rows.offsets[static_cast<size_t>(r)]);
         i < static_cast<size_t>(rows.offsets[static_cast<size_t>(r + 1)]); ++i) {
      BL_RETURN_IF_ERROR(
          check_index({op, "column_indices"}, i, rows.others[i], least, t.columns.count() - 1, error));
      BL_RETURN_IF_ERROR(check_index({op, "row_indices"}, i, row_indices[i], r, r, error));
      least = rows.others[i] + 1;
    }
  }
  return BL_STATUS_ok;
}

// Blocks by columns: each number once, in order of rows. Fills `others`.
bl_status check_columns(const char* op, Topology* t, const std::vector<int32_t>& row_indices,
                        bl_error* error) {
  Lines& columns = t->columns;
  const int64_t blocks = static_cast<int64_t>(columns.blocks.size());
  columns.others.resize(columns.blocks.size());
  for (int64_t c = 0; c < columns.count(); ++c) {
    int64_t least = 0;
    for (size_t i = static_cast<size_t>(columns.offsets[static_cast<size_t>(c)]);
         i < static_cast<size_t>(columns.offsets[static_cast<size_t>(c + 1)]); ++i) {
      const int32_t block = columns.blocks[i];
      BL_RETURN_IF_ERROR(check_index({op, "transpose_indices"}, i, block, 0, blocks - 1, error));
      const int32_t column = t->rows.others[static_cast<size_t>(block)];
      const int32_t row = row_indices[static_cast<size_t>(block)];
      BL_CHECK(column == c && row >= least, out_of_range,
               "%s: transpose_indices[%zu] is %d, expected the next block of column %lld", op, i, block,
               static_cast<long long>(c));
      columns.others[i] = row;
      least = row + 1;
    }
  }
  return BL_STATUS_ok;
}

}  // namespace

bool Lines::alike(int64_t line, int64_t other) const {
  const auto begin = [this](int64_t l) { return others.begin() + offsets[static_cast<size_t>(l)]; };
  return std::equal(begin(line), begin(line + 1), begin(other), begin(other + 1));
}

int64_t Lines::strip_end(int64_t line) const {
  int64_t end = line + 1;
  while (end < count() && alike(line, end)) ++end;
  return end;
}

bl_status read_topology(const char* op, const bl_topology& topology, const char* values_name,
                        const bl_tensor& values, Topology* t, bl_error* error) {
  const int64_t blocks = values.shape[0];
  t->block_size = values.shape[1];
  BL_CHECK(values.shape[2] == t->block_size && t->block_size >= 1, invalid_shape,
           "%s: %s.shape is [%lld, %lld, %lld], expected blocks of as many rows as columns", op, values_name,
           static_cast<long long>(blocks), static_cast<long long>(t->block_size),
           static_cast<long long>(values.shape[2]));
  constexpr int64_t kAny = std::numeric_limits<int32_t>::max();
  std::vector<int32_t> row_indices;
  BL_RETURN_IF_ERROR(read({op, "row_starts"}, topology.row_starts, &t->rows.starts, error));
  BL_RETURN_IF_ERROR(read({op, "column_starts"}, topology.column_starts, &t->columns.starts, error));
  BL_RETURN_IF_ERROR(read({op, "block_offsets"}, topology.offsets, &t->rows.offsets, error));
  BL_RETURN_IF_ERROR(read({op, "column_indices"}, topology.column_indices, &t->rows.others, error));
  BL_RETURN_IF_ERROR(read({op, "row_indices"}, topology.row_indices, &row_indices, error));
  BL_RETURN_IF_ERROR(read({op, "transpose_offsets"}, topology.transpose_offsets, &t->columns.offsets, error));
  BL_RETURN_IF_ERROR(read({op, "transpose_indices"}, topology.transpose_indices, &t->columns.blocks, error));
  BL_RETURN_IF_ERROR(check_bounds({op, "row_starts"}, t->rows.starts, t->block_size, -1, error));
  BL_RETURN_IF_ERROR(check_bounds({op, "column_starts"}, t->columns.starts, t->block_size, -1, error));
  const size_t count = static_cast<size_t>(blocks);
  BL_RETURN_IF_ERROR(check_length({op, "block_offsets"}, t->rows.offsets, t->rows.starts.size(),
                                  "row_starts.shape[0]", error));
  BL_RETURN_IF_ERROR(check_length({op, "transpose_offsets"}, t->columns.offsets, t->columns.starts.size(),
                                  "column_starts.shape[0]", error));
  BL_RETURN_IF_ERROR(check_length({op, "column_indices"}, t->rows.others, count, "blocks", error));
  BL_RETURN_IF_ERROR(check_length({op, "row_indices"}, row_indices, count, "blocks", error));
  BL_RETURN_IF_ERROR(check_length({op, "transpose_indices"}, t->columns.blocks, count, "blocks", error));
  BL_RETURN_IF_ERROR(check_bounds({op, "block_offsets"}, t->rows.offsets, kAny, blocks, error));
  BL_RETURN_IF_ERROR(check_bounds({op, "transpose_offsets"}, t->columns.offsets, kAny, blocks, error));
  BL_RETURN_IF_ERROR(check_rows(op, *t, row_indices, error));
  t->rows.blocks.resize(count);
  for (size_t i = 0; i < count; ++i) t->rows.blocks[i] = static_cast<int32_t>(i);
  return check_columns(op, t, row_indices, error);
}

}  // namespace bitloom
