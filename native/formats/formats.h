// Weight formats: what a row of bytes means. One table from formats.inc; one exact scalar decoder and
// one deterministic encoder per format. Kernels have decoders of their own per ISA; these are what they
// are compared with.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"
#include "codebooks.h"
#include "panel.h"

namespace bitloom {

// Bytes of a grouped block of `elements` weights: header and codes.
int64_t grouped_block_bytes(const bl_format_info& info, int64_t elements);

// Where the weights of a matrix lie. Canonical rows: block j of row r at data + r * row_bytes + j *
// block_bytes. Layout lanes16 (panel.h): full panels first, then canonical rows. Layout fragments:
// fragments.h.
struct WeightsView {
  const bl_format_info* info;
  const uint8_t* data;
  int64_t rows;
  int64_t cols;
  int64_t row_bytes;
  int64_t block_bytes;     // of the whole row for `_row` formats
  int64_t block_elements;  // cols for `_row` formats
  int32_t layout;
  Codebooks codebook;
  PanelFormat panel;
  float tensor_scale;  // 1 if there is none; decode_row applies it

  explicit WeightsView(const bl_weights& weights);

  // How many panels of sixteen rows lie in memory as such.
  int64_t panels() const { return layout == BL_LAYOUT_lanes16 ? rows / kPanelRows : 0; }
  bool in_panel(int64_t row) const { return row < panels() * kPanelRows; }
  const uint8_t* panel_of(int64_t row) const { return data + row / kPanelRows * panel.panel_bytes; }
  // A row that is in no panel.
  const uint8_t* canonical_row(int64_t row) const {
    const int64_t packed = panels();
    return data + packed * panel.panel_bytes + (row - packed * kPanelRows) * row_bytes;
  }
};

// values[0, count) = the first `count` weights of the block at `bytes`, exact. `codebook` as codebooks_of.
void decode_block(const bl_format_info& info, const uint8_t* bytes, int64_t count, const Codebooks& codebook,
                  float* values);

// Encodes values[0, count), all finite, count <= the block's elements, into a whole block at `bytes`
// (`elements` weights long, spare codes zero). Deterministic: ties to even, first of equal candidates.
// Not for lut<b>, whose rows row_codebook.h encodes.
void encode_block(const bl_format_info& info, const float* values, int64_t count, int64_t elements,
                  const Codebooks& codebook, int32_t method, uint8_t* bytes);

// Decodes weights [first, first + count) of a row, tensor scale included; first need not be at a block's
// start.
void decode_row(const WeightsView& weights, int64_t row, int64_t first, int64_t count, float* values);

}  // namespace bitloom
