// Weight formats: what a row of bytes means. One table from formats.inc; one exact scalar decoder and
// one deterministic encoder per format. Kernels have decoders of their own per ISA; these are what they
// are compared with.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"
#include "lanes.h"

namespace bitloom {

// Codebooks in use: what a cb<b> matrix carries, or the built-in table of nf4, fp4 and the elements of
// elements.h, else null.
const float* codebook_of(const bl_format_info& info, const float* user_codebook);

extern const float kNf4[16];   // QLoRA (Dettmers et al. 2023), appendix E
extern const float kE2m1[16];  // OCP Microscaling v1.0: 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives

// Bytes of a grouped block of `elements` weights: scale, zero point, codes.
int64_t grouped_block_bytes(const bl_format_info& info, int64_t elements);

// Where the weights of a matrix lie: block j of row r starts at
// data + row_offset(r) + j * block_stride(r).
struct WeightsView {
  const bl_format_info* info;
  const uint8_t* data;  // [rows][blocks] in the layout's order
  int64_t rows;
  int64_t cols;
  int64_t row_bytes;
  int64_t block_bytes;     // of the whole row for `_row` formats
  int64_t block_elements;  // cols for `_row` formats
  int32_t layout;
  const float* codebook;  // [2^bits] or null
  float tensor_scale;     // 1 if there is none; decode_row applies it

  explicit WeightsView(const bl_weights& weights);

  // Not for rows that lie in lanes.
  const uint8_t* block(int64_t row, int64_t index) const {
    if (layout != BL_LAYOUT_panel8) return data + row * row_bytes + index * block_bytes;
    const int64_t panel = row & ~int64_t{7};
    return data + panel * row_bytes + (index * panel_rows(row) + (row & 7)) * block_bytes;
  }
  // Layout lanes16: whether a row is one of sixteen (formats/lanes.h), and block `index` of those.
  bool in_lanes(int64_t row) const {
    return layout == BL_LAYOUT_lanes16 && row < rows / kLaneRows * kLaneRows;
  }
  const uint8_t* lane_block(int64_t row, int64_t index) const {
    return data + row / kLaneRows * kLaneRows * row_bytes + index * kLaneRows * block_bytes;
  }
  // Distance between consecutive blocks of a row.
  int64_t block_stride(int64_t row) const {
    return layout == BL_LAYOUT_panel8 ? block_bytes * panel_rows(row) : block_bytes;
  }
  int64_t panel_rows(int64_t row) const {
    const int64_t left = rows - (row & ~int64_t{7});
    return left < 8 ? left : 8;
  }
};

// values[0, count) = the first `count` weights of the block at `bytes`, exact. `codebook` as codebook_of.
void decode_block(const bl_format_info& info, const uint8_t* bytes, int64_t count, const float* codebook,
                  float* values);

// Encodes values[0, count), all finite, count <= the block's elements, into a whole block at `bytes`
// (`elements` weights long, spare codes zero). Deterministic: ties to even, first of equal candidates.
void encode_block(const bl_format_info& info, const float* values, int64_t count, int64_t elements,
                  const float* codebook, int32_t method, uint8_t* bytes);

// Decodes weights [first, first + count) of a row, tensor scale included; first need not be at a block's
// start.
void decode_row(const WeightsView& weights, int64_t row, int64_t first, int64_t count, float* values);

}  // namespace bitloom
