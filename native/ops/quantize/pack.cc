// pack: sixteen rows at a time from one layout to the other, in place where they have the same size.
#include <algorithm>
#include <atomic>
#include <cstdint>
#include <cstring>

#include "../../base/backend.h"
#include "../../base/pages.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../formats/formats.h"
#include "../../formats/fragments.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "pack_panel.h"

namespace bitloom {
namespace {

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
  const uint64_t input_bytes = bl_layout_bytes(input.format, input.layout, input.rows, input.cols);
  const uint64_t output_bytes = bl_layout_bytes(output.format, output.layout, output.rows, output.cols);
  BL_CHECK(output.data == input.data || !overlaps(output.data, output_bytes, input.data, input_bytes),
           invalid_argument, "pack: output overlaps input in part, expected the same or separate memory");
  BL_CHECK(output.data != input.data || input.layout == output.layout ||
               (input.layout != BL_LAYOUT_fragments && output.layout != BL_LAYOUT_fragments),
           invalid_argument, "pack: output is input, expected other memory for layout fragments");
  BL_CHECK(output.data != input.data || input_bytes == output_bytes, invalid_argument,
           "pack: output has %llu bytes, expected %llu (= input's) to pack in place",
           static_cast<unsigned long long>(output_bytes), static_cast<unsigned long long>(input_bytes));
  return BL_STATUS_ok;
}

// Rows [begin, end) of at most one panel: `source` is where they lie in `from`, `target` where in `to`.
void move_rows(const WeightsView& from, const WeightsView& to, PackPanel pack, const uint8_t* source,
               uint8_t* target, int64_t begin, int64_t end) {
  const size_t bytes = static_cast<size_t>((end - begin) * from.row_bytes);
  if (from.in_panel(begin) == to.in_panel(begin)) {
    std::memcpy(target, source, from.in_panel(begin) ? static_cast<size_t>(from.panel.panel_bytes) : bytes);
  } else if (to.in_panel(begin)) {
    pack(to.panel, source, from.row_bytes, end - begin, target);
  } else {
    const int64_t blocks = from.row_bytes / from.block_bytes;
    for (int64_t row = begin; row < end; ++row, target += from.row_bytes) {
      unpack_panel_row(from.panel, source, row - begin, 0, blocks, target);
    }
  }
}

// Sixteen rows at a time through canonical rows in `rows`, a buffer of sixteen.
void move_tile(const WeightsView& from, const WeightsView& to, PackPanel pack, int64_t begin, uint8_t* rows,
               uint8_t* output) {
  const FragmentsShape shape(from.panel, from.rows);
  const int64_t count = std::min(from.rows - begin, kPanelRows);
  const int64_t blocks = from.row_bytes / from.block_bytes;
  const uint8_t* source = rows;
  if (from.layout == BL_LAYOUT_fragments) {
    for (int64_t i = 0; i < count; ++i) {
      unpack_fragments_row(from.panel, shape, from.data, begin + i, rows + i * from.row_bytes);
    }
  } else if (from.in_panel(begin)) {
    for (int64_t i = 0; i < count; ++i) {
      unpack_panel_row(from.panel, from.panel_of(begin), i, 0, blocks, rows + i * from.row_bytes);
    }
  } else {
    source = from.canonical_row(begin);
  }
  if (to.layout == BL_LAYOUT_fragments) {
    pack_fragments(to.panel, shape, source, from.row_bytes, count, begin / kPanelRows, output);
  } else if (to.in_panel(begin)) {
    pack(to.panel, source, from.row_bytes, count, output + (to.panel_of(begin) - to.data));
  } else {
    std::memcpy(output + (to.canonical_row(begin) - to.data), source,
                static_cast<size_t>(count * from.row_bytes));
  }
}

// From and to layout fragments.
bl_status pack_fragments_of(const bl_pack_args& args, const WeightsView& from, const WeightsView& to,
                            bl_error* error) {
  const uint64_t row_bytes = align_up(static_cast<uint64_t>(kPanelRows * from.row_bytes));
  const int64_t groups = (from.rows + kPanelRows - 1) / kPanelRows;
  const int64_t bands = std::min<int64_t>(16, groups);
  const Scratch scratch(row_bytes * static_cast<uint64_t>(bands));
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "pack: cannot allocate %llu bytes",
           static_cast<unsigned long long>(row_bytes * static_cast<uint64_t>(bands)));
  const PackPanel pack = choose_pack_panel(isa_of(args.run), from.panel);
  uint8_t* output = static_cast<uint8_t*>(args.output.data);
  parallel_for(args.run, bands, [&](int64_t band) {
    uint8_t* rows = scratch.data() + row_bytes * static_cast<uint64_t>(band);
    for (int64_t group = groups * band / bands; group < groups * (band + 1) / bands; ++group) {
      move_tile(from, to, pack, group * kPanelRows, rows, output);
    }
  });
  if (to.layout != BL_LAYOUT_fragments) return BL_STATUS_ok;
  write_fragments_header(to.panel, FragmentsShape(to.panel, to.rows), to.rows, output);
  return BL_STATUS_ok;
}

const uint8_t* place_of(const WeightsView& view, int64_t row) {
  return view.in_panel(row) ? view.panel_of(row) : view.canonical_row(row);
}

}  // namespace
}  // namespace bitloom

extern "C" bl_status bl_pack(const bl_pack_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_pack_args, "pack", checked);
  BL_RETURN_IF_ERROR(validate(checked, error));
  BL_RUN_ON_DEVICE(pack, checked);
  if (checked.input.rows == 0 || checked.input.cols == 0) return BL_STATUS_ok;
  const WeightsView from(checked.input);
  const WeightsView to(checked.output);
  uint8_t* output = static_cast<uint8_t*>(checked.output.data);
  if (from.layout != to.layout && (from.layout == BL_LAYOUT_fragments || to.layout == BL_LAYOUT_fragments)) {
    return pack_fragments_of(checked, from, to, error);
  }
  if (from.layout == BL_LAYOUT_fragments) {  // the same layout
    std::memmove(
        output, from.data,
        static_cast<size_t>(bl_layout_bytes(checked.input.format, from.layout, from.rows, from.cols)));
    return BL_STATUS_ok;
  }
  const PackPanel pack = choose_pack_panel(isa_of(checked.run), from.panel);
  const bool in_place = output == from.data;
  const int64_t groups = (from.rows + kPanelRows - 1) / kPanelRows;
  const int64_t bands = std::min<int64_t>(16, groups);
  // In place: a copy of sixteen rows for each thread at work (16 at most; an executor may use as many).
  const int64_t threads = checked.run.executor == nullptr ? thread_count(checked.run) : bands;
  const int64_t copies = in_place ? std::min(bands, threads) : 0;
  const uint64_t copy_bytes =
      align_up(static_cast<uint64_t>(std::max(kPanelRows * from.row_bytes, from.panel.panel_bytes)));
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
      const int64_t row = group * kPanelRows;
      const int64_t end = std::min(from.rows, row + kPanelRows);
      const uint8_t* source = place_of(from, row);
      uint8_t* target = output + (place_of(to, row) - to.data);
      if (in_place) {
        const size_t bytes = static_cast<size_t>((end - row) * from.row_bytes);  // panels have the same
        populate_for_writing(target, bytes);
        std::memcpy(copy, source, bytes);
        source = copy;
      }
      move_rows(from, to, pack, source, target, row, end);
    }
    free_copies.fetch_or(taken);
  });
  return BL_STATUS_ok;
}
