// dequantize: validate, then decode bands of rows in parallel.
#include <cstdint>
#include <cstring>

#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "../../formats/formats.h"
#include "partition.h"

namespace bitloom {
namespace {

// Tables of the caller's, whose size is checked.
bool has_codebook(const bl_weights& weights) {
  const int32_t kind = bl_get_format_info(weights.format)->kind;
  return (kind == BL_KIND_codebook || kind == BL_KIND_codebooks) && weights.codebook != nullptr;
}

bl_status validate(const bl_dequantize_args& args, bl_error* error) {
  const bl_weights& input = args.input;
  const Argument output{"dequantize", "output"};
  BL_RETURN_IF_ERROR(check_weights({"dequantize", "input"}, input, error));
  BL_RETURN_IF_ERROR(check_output(output, args.output, kFloatTypes, 2, 2, error));
  BL_RETURN_IF_ERROR(check_dim(output, args.output, 0, input.rows, "input.rows", error));
  BL_RETURN_IF_ERROR(check_dim(output, args.output, 1, input.cols, "input.cols", error));
  const uint64_t bytes = bl_layout_bytes(input.format, input.layout, input.rows, input.cols);
  BL_RETURN_IF_ERROR(check_apart(output, args.output, "input", input.data, bytes, error));
  if (!has_codebook(input)) return BL_STATUS_ok;
  return check_apart(output, args.output, "input.codebook", input.codebook,
                     static_cast<uint64_t>(input.codebook_size) * sizeof(float), error);
}

void decode_into(const WeightsView& weights, const Rows& rows, int64_t row) {
  if (float* values = rows.direct(row); values != nullptr) {
    decode_row(weights, row, 0, rows.length, values);
    return;
  }
  constexpr int64_t kChunk = 256;
  float values[kChunk];
  const int64_t step = rows.stride * dtype_bytes(rows.tensor.dtype);
  for (int64_t first = 0; first < rows.length; first += kChunk) {
    const int64_t count = rows.length - first < kChunk ? rows.length - first : kChunk;
    decode_row(weights, row, first, count, values);
    store_values(rows.tensor.dtype, rows.at(row) + first * step, rows.stride, count, values);
  }
}

}  // namespace
}  // namespace bitloom

extern "C" bl_status bl_dequantize(const bl_dequantize_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_dequantize_args, "dequantize", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(dequantize, checked);
  if (checked.input.rows == 0 || checked.input.cols == 0) return BL_STATUS_ok;
  float codebook[kMaxCodebookSize];  // the caller's may be unaligned
  if (has_codebook(checked.input)) {
    std::memcpy(codebook, checked.input.codebook,
                static_cast<size_t>(checked.input.codebook_size) * sizeof(float));
    checked.input.codebook = codebook;
  }
  const WeightsView weights(checked.input);
  const Rows rows(checked.output);
  for_row_bands(checked.run, rows.count, rows.length, [&](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) decode_into(weights, rows, row);
  });
  return BL_STATUS_ok;
}
