// pack: moves blocks between layouts, sixteen rows at a time: these have the same bytes in every layout, so
// that a matrix can be packed in place.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "../../base/pages.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../formats/formats.h"
#include "../../base/thread_pool.h"

namespace bitloom {
namespace {

constexpr int64_t kRowsAtOnce = 16;  // a multiple of the rows of each layout's panels

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
  BL_CHECK(output.data == input.data || !overlaps(output.data, bytes, input.data, bytes), invalid_argument,
           "pack: output overlaps input in part, expected the same or separate memory");
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

// The same for layouts of which one is lanes16, block by block.
void move_lanes(const WeightsView& from, const WeightsView& to, uint8_t* output, int64_t begin, int64_t end) {
  const int64_t blocks = from.row_bytes / from.block_bytes;
  uint8_t block[34];
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t i = 0; i < blocks; ++i) {
      if (from.in_lanes(row)) {
        load_lane_block(from.lane_block(row, i), row % kLaneRows, from.block_bytes, block);
      } else {
        std::memcpy(block, from.block(row, i), static_cast<size_t>(from.block_bytes));
      }
      if (to.in_lanes(row)) {
        uint8_t* sixteen = output + (to.lane_block(row, i) - to.data);
        store_lane_block(block, row % kLaneRows, to.block_bytes, sixteen);
      } else {
        std::memcpy(output + (to.block(row, i) - to.data), block, static_cast<size_t>(to.block_bytes));
      }
    }
  }
}

// Sixteen canonical rows into lanes: move_lanes with all that does not change taken out of the loops.
template <int kBytes>
void fill_lanes(const WeightsView& from, uint8_t* output, int64_t begin) {
  const int64_t blocks = from.row_bytes / kBytes;
  const uint8_t* rows = from.data + begin * from.row_bytes;
  uint8_t* sixteen = output + begin * from.row_bytes;
  for (int64_t i = 0; i < blocks; ++i, sixteen += kLaneRows * kBytes) {
    for (int64_t lane = 0; lane < kLaneRows; ++lane) {
      store_lane_block(rows + lane * from.row_bytes + i * kBytes, lane, kBytes, sixteen);
    }
  }
}

void move_any_panel(const WeightsView& from, const WeightsView& to, uint8_t* output, int64_t begin,
                    int64_t end) {
  const bool full = from.layout == BL_LAYOUT_canonical && to.in_lanes(end - 1);
  if (full && from.block_bytes == 18) return fill_lanes<18>(from, output, begin);
  if (full && from.block_bytes == 34) return fill_lanes<34>(from, output, begin);
  if (from.layout == BL_LAYOUT_lanes16 || to.layout == BL_LAYOUT_lanes16) {
    return move_lanes(from, to, output, begin, end);
  }
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
  const bool in_place = checked.output.data == checked.input.data;
  const int64_t groups = (from.rows + kRowsAtOnce - 1) / kRowsAtOnce;
  const int64_t bands = std::min<int64_t>(16, groups);
  // In place: a copy of sixteen rows for each thread at work (16 at most; an executor may use as many).
  const int64_t threads = checked.run.executor == nullptr ? thread_count(checked.run) : bands;
  const int64_t copies = in_place ? std::min(bands, threads) : 0;
  const uint64_t copy_bytes = align_up(static_cast<uint64_t>(kRowsAtOnce * from.row_bytes));
  const Scratch scratch(copy_bytes * static_cast<uint64_t>(copies));
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "pack: cannot allocate %llu bytes",
           static_cast<unsigned long long>(copy_bytes * static_cast<uint64_t>(copies)));
  std::atomic<uint32_t> free_copies{(1u << copies) - 1};
  parallel_for(checked.run, bands, [&](int64_t band) {
    uint8_t* copy = nullptr;
    uint32_t taken = 0;
    if (in_place) {
      uint32_t free = free_copies.load();
      do {
        while (free == 0) free = free_copies.load();  // there are as many as threads: not for long
        taken = free & (~free + 1);                   // the lowest one
      } while (!free_copies.compare_exchange_weak(free, free & ~taken));
      copy = scratch.data() + copy_bytes * static_cast<uint64_t>(__builtin_ctz(taken));
    }
    for (int64_t group = groups * band / bands; group < groups * (band + 1) / bands; ++group) {
      const int64_t row = group * kRowsAtOnce;
      const int64_t end = std::min(from.rows, row + kRowsAtOnce);
      const size_t bytes = static_cast<size_t>((end - row) * from.row_bytes);
      WeightsView source = from;
      if (in_place) {
        populate_for_writing(output + row * from.row_bytes, bytes);
        std::memcpy(copy, from.data + row * from.row_bytes, bytes);
        // Seen from where row 0 would be.
        source.data = reinterpret_cast<const uint8_t*>(reinterpret_cast<uintptr_t>(copy) -
                                                       static_cast<uintptr_t>(row * from.row_bytes));
      }
      move_any_panel(source, to, output, row, end);
    }
    free_copies.fetch_or(taken);
  });
  return BL_STATUS_ok;
}
