// quantize: validate, look for non-finite input, then encode bands of rows in parallel.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../../base/backend.h"
#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../formats/formats.h"
#include "../../formats/row_codebook.h"
#include "partition.h"

namespace bitloom {
namespace {

constexpr int64_t kColumns = 256;  // weights converted at a time; a multiple of every block but a row

// Floats that output.codebook points to; they are read one by one, for they may be unaligned.
uint64_t codebook_size(const bl_weights& output) {
  return output.codebook == nullptr ? 0 : static_cast<uint64_t>(output.codebook_size);
}
float codebook_entry(const bl_weights& output, int64_t index) {
  return load_as<float>(reinterpret_cast<const uint8_t*>(output.codebook) + 4 * index);
}

bl_status check_codebook(const bl_weights& output, uint64_t bytes, bl_error* error) {
  const bl_format_info& info = *bl_get_format_info(output.format);
  const bool by_row = info.kind == BL_KIND_row_codebook;
  if ((info.kind != BL_KIND_codebook && info.kind != BL_KIND_codebooks && !by_row) ||
      output.codebook == nullptr) {
    return BL_STATUS_ok;
  }
  const int64_t size = static_cast<int64_t>(codebook_size(output));
  BL_CHECK(!by_row || (output.rows <= INT32_MAX && size == output.rows << info.bits), invalid_argument,
           "quantize: output.codebook has %lld entries, expected %lld x %d (a table for each row)",
           static_cast<long long>(size), static_cast<long long>(output.rows), 1 << info.bits);
  BL_CHECK(!overlaps(output.data, bytes, output.codebook, static_cast<uint64_t>(size) * sizeof(float)),
           invalid_argument, "quantize: output.data overlaps output.codebook, expected separate memory");
  for (int64_t i = 0; i < size; ++i) {
    const float entry = codebook_entry(output, i);
    BL_CHECK(std::isfinite(entry), non_finite,
             "quantize: output.codebook[%lld] is %g, expected a finite number", static_cast<long long>(i),
             static_cast<double>(entry));
  }
  return BL_STATUS_ok;
}

bl_status check_importance(const bl_quantize_args& args, uint64_t bytes, bl_error* error) {
  const bl_tensor& importance = args.importance;
  if (importance.data == nullptr) return BL_STATUS_ok;
  const bl_weights& output = args.output;
  const bl_format_info& info = *bl_get_format_info(output.format);
  const Argument name{"quantize", "importance"};
  BL_CHECK(info.kind == BL_KIND_row_codebook, unsupported,
           "quantize: importance is given with format %s, expected lut2_row, lut3_row or lut4_row",
           info.name);
  BL_RETURN_IF_ERROR(check_tensor(name, importance, dtype_bit(BL_DTYPE_f32), 1, 2, error));
  BL_RETURN_IF_ERROR(check_dim(name, importance, importance.rank - 1, output.cols, "output.cols", error));
  if (importance.rank == 2)
    BL_RETURN_IF_ERROR(check_dim(name, importance, 0, output.rows, "output.rows", error));
  BL_RETURN_IF_ERROR(
      check_apart({"quantize", "output"}, importance, "importance", output.data, bytes, error));
  if (args.run.device != 0) return BL_STATUS_ok;  // a device's memory cannot be read here
  const Rows rows(importance);
  for (int64_t row = 0; row < rows.count; ++row) {
    for (int64_t i = 0; i < rows.length; ++i) {
      const float value = load_as<float>(rows.at(row) + 4 * i * rows.stride);
      BL_CHECK(value >= 0 && std::isfinite(value), out_of_range,
               "quantize: importance[%lld, %lld] is %g, expected a finite number of at least 0",
               static_cast<long long>(row), static_cast<long long>(i), static_cast<double>(value));
    }
  }
  return BL_STATUS_ok;
}

bl_status validate(const bl_quantize_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"quantize", "input"}, args.input, kFloatTypes, 2, 2, error));
  const bl_weights& output = args.output;
  BL_RETURN_IF_ERROR(check_weights({"quantize", "output"}, output, error));
  BL_CHECK(output.layout == BL_LAYOUT_canonical, invalid_layout,
           "quantize: output.layout is lanes16, expected canonical");
  BL_CHECK(output.rows == args.input.shape[0], invalid_shape,
           "quantize: output.rows is %lld, expected %lld (= input.shape[0])",
           static_cast<long long>(output.rows), static_cast<long long>(args.input.shape[0]));
  BL_CHECK(output.cols == args.input.shape[1], invalid_shape,
           "quantize: output.cols is %lld, expected %lld (= input.shape[1])",
           static_cast<long long>(output.cols), static_cast<long long>(args.input.shape[1]));
  BL_CHECK(args.method == BL_QUANTIZE_minmax || args.method == BL_QUANTIZE_mse, invalid_argument,
           "quantize: method is %d, expected 0 (minmax) or 1 (mse)", args.method);
  const uint64_t bytes = bl_weights_bytes(output.format, output.rows, output.cols);
  BL_RETURN_IF_ERROR(check_apart({"quantize", "output"}, args.input, "input", output.data, bytes, error));
  BL_RETURN_IF_ERROR(check_codebook(output, bytes, error));
  return check_importance(args, bytes, error);
}

// Weights [first, first + count) of a row, in f32.
void load_part(const Rows& rows, int64_t row, int64_t first, int64_t count, float* values) {
  const int64_t offset = first * rows.stride * dtype_bytes(rows.tensor.dtype);
  load_values(rows.tensor.dtype, rows.at(row) + offset, rows.stride, count, values);
}

// Column of a row's first non-finite weight, or -1.
int64_t find_non_finite(const Rows& rows, int64_t row) {
  float values[kColumns];
  for (int64_t first = 0; first < rows.length; first += kColumns) {
    const int64_t count = rows.length - first < kColumns ? rows.length - first : kColumns;
    load_part(rows, row, first, count, values);
    for (int64_t i = 0; i < count; ++i) {
      if (!std::isfinite(values[i])) return first + i;
    }
  }
  return -1;
}

bl_status check_finite(const bl_quantize_args& args, const Rows& rows, bl_error* error) {
  constexpr int64_t kNone = std::numeric_limits<int64_t>::max();
  std::atomic<int64_t> first_bad{kNone};  // row * cols + column
  for_row_bands(args.run, rows.count, rows.length, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const int64_t column = find_non_finite(rows, row);
      if (column < 0) continue;
      const int64_t index = row * rows.length + column;
      int64_t seen = first_bad.load();
      while (index < seen && !first_bad.compare_exchange_weak(seen, index)) {
      }
      return;
    }
  });
  if (first_bad == kNone) return BL_STATUS_ok;
  const int64_t row = first_bad / rows.length;
  const int64_t column = first_bad % rows.length;
  float value = 0;
  load_part(rows, row, column, 1, &value);
  return fail(error, BL_STATUS_non_finite, "quantize: input[%lld, %lld] is %s, expected a finite number",
              static_cast<long long>(row), static_cast<long long>(column),
              std::isnan(value) ? "NaN"
              : value < 0       ? "-Infinity"
                                : "Infinity");
}

// values[i] /= tensor_scale, finite. Formats scale by themselves what is left.
void divide(float tensor_scale, int64_t count, float* values) {
  if (tensor_scale == 0 || tensor_scale == 1) return;
  constexpr double kLargest = std::numeric_limits<float>::max();
  for (int64_t i = 0; i < count; ++i) {
    const double quotient = static_cast<double>(values[i]) / tensor_scale;
    values[i] = static_cast<float>(std::clamp(quotient, -kLargest, kLargest));
  }
}

// A row whose blocks are no longer than a chunk.
void encode_row(const bl_quantize_args& args, const bl_format_info& info, const Rows& rows,
                const Codebooks& codebook, int64_t row, uint8_t* bytes) {
  float values[kColumns];
  for (int64_t first = 0; first < rows.length; first += kColumns) {
    const int64_t count = rows.length - first < kColumns ? rows.length - first : kColumns;
    load_part(rows, row, first, count, values);
    divide(args.output.tensor_scale, count, values);
    for (int64_t i = 0; i < count; i += info.block_elements) {
      const int64_t part = count - i < info.block_elements ? count - i : info.block_elements;
      encode_block(info, values + i, part, info.block_elements, codebook, args.method, bytes);
      bytes += info.block_bytes;
    }
  }
}

// lut<b>: a row with its own table.
bool encode_table_row(const bl_quantize_args& args, const bl_format_info& info, const float* values,
                      int64_t row, uint8_t* bytes) {
  const bl_weights& output = args.output;
  float table[16];
  for (int64_t e = 0; e < 1 << info.bits && output.codebook != nullptr; ++e) {
    table[e] = codebook_entry(output, (row << info.bits) + e);
  }
  const float* given = output.codebook == nullptr ? nullptr : table;
  if (args.importance.data == nullptr || given != nullptr) {
    return encode_row_codebook(info, values, output.cols, given, args.method, nullptr, bytes);
  }
  const Rows rows(args.importance);
  const int64_t index = args.importance.rank == 2 ? row : 0;
  const float* importance = rows.direct(index);
  if (importance != nullptr) {
    return encode_row_codebook(info, values, output.cols, nullptr, args.method, importance, bytes);
  }
  const Scratch copy(static_cast<uint64_t>(output.cols) * sizeof(float));
  if (copy.data() == nullptr) return false;
  float* copied = reinterpret_cast<float*>(copy.data());
  rows.load(index, copied);
  return encode_row_codebook(info, values, output.cols, nullptr, args.method, copied, bytes);
}

// A row that is one block: read in place if it is contiguous f32 to be taken as it is, else by way of a
// copy. False: no memory.
bool encode_whole_row(const bl_quantize_args& args, const bl_format_info& info, const Rows& rows,
                      const Codebooks& codebook, int64_t row, uint8_t* bytes) {
  const auto encode = [&](const float* values) {
    if (info.kind == BL_KIND_row_codebook) return encode_table_row(args, info, values, row, bytes);
    encode_block(info, values, rows.length, rows.length, codebook, args.method, bytes);
    return true;
  };
  const float* values = rows.direct(row);
  const float tensor_scale = args.output.tensor_scale;
  if (values != nullptr && (tensor_scale == 0 || tensor_scale == 1)) return encode(values);
  const Scratch copy(static_cast<uint64_t>(rows.length) * sizeof(float));
  if (copy.data() == nullptr) return false;
  float* copied = reinterpret_cast<float*>(copy.data());
  rows.load(row, copied);
  divide(tensor_scale, rows.length, copied);
  return encode(copied);
}

}  // namespace
}  // namespace bitloom

extern "C" bl_status bl_quantize(const bl_quantize_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_quantize_args, "quantize", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(quantize, checked);
  const bl_weights& output = checked.output;
  if (output.rows == 0 || output.cols == 0) return BL_STATUS_ok;
  const Rows rows(checked.input);
  BL_RETURN_IF_ERROR(check_finite(checked, rows, error));

  const bl_format_info& info = *bl_get_format_info(output.format);
  const int64_t row_bytes = static_cast<int64_t>(bl_row_bytes(output.format, output.cols));
  float codebook[kMaxCodebookSize];  // the caller's may be unaligned
  const bool own =
      (info.kind == BL_KIND_codebook || info.kind == BL_KIND_codebooks) && output.codebook != nullptr;
  if (own) std::memcpy(codebook, output.codebook, codebook_size(output) * sizeof(float));
  const Codebooks levels = codebooks_of(info, own ? codebook : nullptr, output.codebook_size);
  std::atomic<bool> out_of_memory{false};
  for_row_bands(checked.run, rows.count, rows.length, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      uint8_t* bytes = static_cast<uint8_t*>(output.data) + row * row_bytes;
      if (info.block_elements != 0) {
        encode_row(checked, info, rows, levels, row, bytes);
      } else if (!encode_whole_row(checked, info, rows, levels, row, bytes)) {
        out_of_memory = true;
      }
    }
  });
  BL_CHECK(!out_of_memory, out_of_memory, "quantize: no memory for a row of %lld weights",
           static_cast<long long>(output.cols));
  return BL_STATUS_ok;
}
