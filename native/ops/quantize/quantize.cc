// quantize: validate, look for non-finite input, then encode bands of rows in parallel.
#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../formats/formats.h"
#include "partition.h"

namespace bitloom {
namespace {

constexpr int64_t kColumns = 256;  // weights converted at a time; a multiple of every block but a row

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
  const bl_format_info& info = *bl_get_format_info(output.format);
  if (info.kind != BL_KIND_codebook) return BL_STATUS_ok;
  const uint64_t codebook_bytes = sizeof(float) << info.bits;
  BL_CHECK(!overlaps(output.data, bytes, output.codebook, codebook_bytes), invalid_argument,
           "quantize: output.data overlaps output.codebook, expected separate memory");
  for (int i = 0; i < 1 << info.bits; ++i) {
    const float entry = load_as<float>(reinterpret_cast<const uint8_t*>(output.codebook) + 4 * i);
    BL_CHECK(std::isfinite(entry), non_finite,
             "quantize: output.codebook[%d] is %g, expected a finite number", i, static_cast<double>(entry));
  }
  return BL_STATUS_ok;
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
                const float* codebook, int64_t row, uint8_t* bytes) {
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

// A row that is one block: read in place if it is contiguous f32 to be taken as it is, else by way of a
// copy.
bool encode_whole_row(const bl_quantize_args& args, const bl_format_info& info, const Rows& rows,
                      const float* codebook, int64_t row, uint8_t* bytes) {
  const float* values = rows.direct(row);
  const float tensor_scale = args.output.tensor_scale;
  if (values != nullptr && (tensor_scale == 0 || tensor_scale == 1)) {
    encode_block(info, values, rows.length, rows.length, codebook, args.method, bytes);
    return true;
  }
  const Scratch copy(static_cast<uint64_t>(rows.length) * sizeof(float));
  if (copy.data() == nullptr) return false;
  float* copied = reinterpret_cast<float*>(copy.data());
  rows.load(row, copied);
  divide(tensor_scale, rows.length, copied);
  encode_block(info, copied, rows.length, rows.length, codebook, args.method, bytes);
  return true;
}

}  // namespace
}  // namespace bitloom

extern "C" bl_status bl_quantize(const bl_quantize_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_quantize_args, "quantize", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  const bl_weights& output = checked.output;
  if (output.rows == 0 || output.cols == 0) return BL_STATUS_ok;
  const Rows rows(checked.input);
  BL_RETURN_IF_ERROR(check_finite(checked, rows, error));

  const bl_format_info& info = *bl_get_format_info(output.format);
  const int64_t row_bytes = static_cast<int64_t>(bl_row_bytes(output.format, output.cols));
  float codebook[256];  // the caller's may be unaligned
  if (info.kind == BL_KIND_codebook) {
    std::memcpy(codebook, output.codebook, sizeof(float) << info.bits);
  }
  const float* levels = codebook_of(info, codebook);
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
