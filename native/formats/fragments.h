// Layout fragments: weights as operands of the tensor cores, for CUDA devices. A lane of a warp reads its
// codes of a unit, 16 rows by 64 weights, in whole words, and finds the halves of each fragment register side
// by side (fragments_place.h). Any copy of units, scales or both is flat.
//
//   | header 256 | codes | records | supers |
//
// in row tiles of 16 rows of b (the last one filled up with zeros), each section of one tile after the other:
//
//   codes    [row tiles][ceil(cols / 64)] units of 128 * bits bytes: a plane of 8, 4, 2 or 1 bits after the
//   other, low
//            bits first (3 = 2 + 1, 5 = 4 + 1, 6 = 4 + 2, 7 = 4 + 2 + 1), of 128 * plane bytes each. Codes
//            are unsigned (PanelFormat::flip). Floats: the row's own bits, [steps 4][lanes 32][2 rows][4
//            weights].
//   records  [row tiles][groups], what the weights of a group share, 16 rows side by side; row r at 2 * (r %
//   8) + r / 8:
//              | scale [16] | zero point or min [16] |      1 or 2 bytes each, the format's own bits
//              | sub-scale [16] | sub-min [16] |            K types: a byte each, unpacked from 4, 6 or 8
//              bits | scale [16] | number of the table [16] |    cbs<b>: 2 bytes and 1 byte | entry 0 [16] |
//              ... | entry 2^b - 1 [16] |  lut<b>: 2 bytes each, one record of the whole row
//            As many groups as units need: a multiple of 64 / group where a group has fewer than 64 weights.
//   supers   [row tiles][ceil(cols / 256)] K types only: | scale [16] | min scale [16], if any |, f16
//
// Nothing is lost: canonical blocks come back bit for bit. The header has numbers that the packer derives.
#pragma once

#include <cstdint>

#include "fragments_place.h"
#include "panel.h"

namespace bitloom {

constexpr int64_t kFragmentsHeaderBytes = 256;

struct FragmentsHeader {
  // A power of two that kernels multiply scales with, so that weights lie well within f16: the largest weight
  // is below 2^13 then (elements: 2^3). 1 where scales are f16 anyway. And its inverse.
  float unit;
  float inverse_unit;
  uint32_t reserved[62];
};
static_assert(sizeof(FragmentsHeader) == kFragmentsHeaderBytes);

// Where things are; sizes in bytes.
struct FragmentsShape {
  FragmentsShape(const PanelFormat& f, int64_t rows);

  int64_t row_tiles, units;  // units: of a row tile
  int64_t unit_bytes;
  int64_t group;  // weights; 0: the whole row
  int64_t groups, record_bytes;
  int64_t second_offset;  // of the second part of a record; record_bytes: there is none
  int64_t supers, super_bytes;
  uint64_t records_offset, supers_offset, bytes;  // 0: more than 2^62
};

// Place of row r of a tile among the 16 of a record.
constexpr int64_t record_place(int64_t row) { return 2 * (row % 8) + row / 8; }

// Elements of OCP Microscaling (fp4 too): kernels make f16 of their bits by shifts.
bool has_elements(const PanelFormat& f);
// Codes index tables of floats and stand in pairs (table_pair_place), else as pair_place has them.
bool indexes_pairs(const PanelFormat& f);
// The code of weight k (0 to 63) of a row (0 to 15) of a unit; where a float of it is.
uint32_t fragment_code(const PanelFormat& f, const uint8_t* unit, int64_t row, int64_t k);
int64_t fragment_float_byte(const PanelFormat& f, int64_t row, int64_t k);

uint64_t fragments_bytes(int32_t format, int64_t rows, int64_t cols);

// `count` (1 to 16) canonical rows, `row_bytes` apart, to row tile `tile`; and one row back,
// canonical_row_bytes. The header is not written.
void pack_fragments(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* rows, int64_t row_bytes,
                    int64_t count, int64_t tile, uint8_t* fragments);
void unpack_fragments_row(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* fragments,
                          int64_t row, uint8_t* canonical);
// Once all tiles are packed. Deterministic.
void write_fragments_header(const PanelFormat& f, const FragmentsShape& shape, int64_t rows,
                            uint8_t* fragments);

// values[i] = weight first + i of a row, as decode_row gives it, without tensor scale.
void decode_fragments_row(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* fragments,
                          int64_t row, int64_t first, int64_t count, float* values);

}  // namespace bitloom
