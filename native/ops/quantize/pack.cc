// pack: moves blocks between layouts, a panel of 8 rows at a time.
#include <cstdint>
#include <cstring>

#include "../../base/tensor.h"
#include "../../formats/formats.h"
#include "partition.h"

namespace bitloom {
namespace {

constexpr int64_t kPanelRows = 8;

bl_status validate(const bl_pack_args& args, bl_error* error) {
  const bl_weights& input = args.input;
  const bl_weights& output = args.output;
  BL_RETURN_IF_ERROR(check_weights({"pack", "input"}, input, error));
  BL_RETURN_IF_ERROR(check_weights({"pack", "output"}, output, error));
  BL_CHECK(output.format == input.format, invalid_format,
           "pack: output.format is %s, expected %s (= input.format)", bl_get_format_info(output.format)->name,
           bl_get_format_info(input.format)->name);
  BL_CHECK(output.rows == input.rows, invalid_shape,
           "pack: output.rows is %lld, expected %lld (= input.rows)", static_cast<long long>(output.rows),
           static_cast<long long>(input.rows));
  BL_CHECK(output.cols == input.cols, invalid_shape,
           "pack: output.cols is %lld, expected %lld (= input.cols)", static_cast<long long>(output.cols),
           static_cast<long long>(input.cols));
  const uint64_t bytes = bl_weights_bytes(input.format, input.rows, input.cols);
  BL_CHECK(!overlaps(output.data, bytes, input.data, bytes), invalid_argument,
           "pack: output overlaps input, expected separate memory");
  return BL_STATUS_ok;
}

// Copies the blocks of rows [begin, end), which lie in one panel. kBytes is the size of a block if known
// at compile time (a copy is then a few instructions), else 0.
template <int kBytes>
void move_panel(const WeightsView& from, const WeightsView& to, uint8_t* output, int64_t begin, int64_t end) {
  const size_t bytes = kBytes != 0 ? kBytes : static_cast<size_t>(from.block_bytes);
  const int64_t blocks = from.row_bytes / from.block_bytes;
  for (int64_t row = begin; row < end; ++row) {
    const uint8_t* source = from.block(row, 0);
    uint8_t* target = output + (to.block(row, 0) - to.data);
    const int64_t source_step = from.block_stride(row);
    const int64_t target_step = to.block_stride(row);
    for (int64_t i = 0; i < blocks; ++i) {
      std::memcpy(target + i * target_step, source + i * source_step, bytes);
    }
  }
}

void move_any_panel(const WeightsView& from, const WeightsView& to, uint8_t* output, int64_t begin,
                    int64_t end) {
  switch (from.block_bytes) {
    case 2:
      return move_panel<2>(from, to, output, begin, end);  // f16, bf16
    case 4:
      return move_panel<4>(from, to, output, begin, end);  // f32
    case 18:
      return move_panel<18>(from, to, output, begin, end);  // 4 bits in groups of 32
    case 34:
      return move_panel<34>(from, to, output, begin, end);  // q8_0
    default:
      return move_panel<0>(from, to, output, begin, end);
  }
}

}  // namespace
}  // namespace bitloom

extern "C" bl_status bl_pack(const bl_pack_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_pack_args, "pack", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  if (checked.input.rows == 0 || checked.input.cols == 0) return BL_STATUS_ok;
  const WeightsView from(checked.input);
  const WeightsView to(checked.output);
  uint8_t* output = static_cast<uint8_t*>(checked.output.data);
  for_row_bands(
      checked.run, from.rows, from.cols,
      [&](int64_t begin, int64_t end) {
        for (int64_t row = begin; row < end; row += kPanelRows) {
          move_any_panel(from, to, output, row, std::min(end, row + kPanelRows));
        }
      },
      kPanelRows);
  return BL_STATUS_ok;
}
