// How canonical rows become panels, as tables: made once per format from the fields of its codes
// (formats/panel_fields.h), then run by one kernel per ISA (pack_spans).
//
// A row is taken a span at a time: some blocks (chunks for `_row` formats). What a span gives a row's lane
// are dwords; four of them make a column. A column of four rows fills a vector of 512 bits, a row per 16
// bytes, and is made in steps: byte shuffle within 16 canonical bytes, shift of each byte, mask, or.
// Transposing 4 x 4 dwords within the 16 bytes then gives four runs of 64 bytes of the panel.
#pragma once

#include <cstdint>

#include "../../formats/formats.h"

namespace bitloom {

// A few items in place: no allocation, no exceptions.
template <typename T, int32_t kMax>
struct List {
  T items[kMax];
  int32_t count;
  bool overflow;

  void push_back(const T& item) {
    if (count < kMax) {
      items[count++] = item;
    } else {
      overflow = true;
    }
  }
  void erase(const T* item) {
    for (int32_t i = static_cast<int32_t>(item - items); i + 1 < count; ++i) items[i] = items[i + 1];
    --count;
  }
  bool empty() const { return count == 0; }
  const T* begin() const { return items; }
  const T* end() const { return items + count; }
  T* begin() { return items; }
  T* end() { return items + count; }
  const T& operator[](int32_t i) const { return items[i]; }
};

// Bits of 16 canonical bytes to their places in a column's four dwords.
struct PackStep {
  // avx512: dword w gets four bytes in a row (vpshufb), then byte i the 8 bits from bit shift[i] of its qword
  // (vpmultishiftqb).
  alignas(16) uint8_t index[16];
  alignas(16) uint8_t shift[16];
  alignas(16) uint8_t mask[16];  // of the bits that this step gives
  // avx2: the two bytes that byte i has bits of, times a power of two; its bits then are bits 8 to 15.
  alignas(16) uint8_t words[2][16];
  alignas(16) uint16_t factors[2][8];
};

// Steps [first, last) read the 16 bytes at `source` of the span.
struct PackLoad {
  int32_t source, first, last;
};

struct PackColumn {
  int32_t first, last;  // of its loads
  int32_t direct;       // all four dwords stand at this byte of the span as they are; -1: they do not
  int32_t target[4];    // of the run in the span's panel bytes; -1: there is no such dword
  uint8_t flip[4];      // of each byte, after all
  bool by_bytes[4];     // byte j of row r at 16j + r of the run, not 4r + j
};

// A scale, an offset or the number of a table.
struct PackHeader {
  int32_t source, target;  // of row 0; the others `bytes` apart
  int32_t bytes;           // 1 or 2
};

constexpr int64_t kMaxSpanBytes = 288;

struct PackPlan {
  int64_t blocks;        // panel blocks of a span; `_row` formats: chunks
  int64_t span_bytes;    // canonical bytes of a row, 16 to kMaxSpanBytes
  int64_t target_bytes;  // panel bytes
  bool row;              // `_row` formats: spans have no headers, and only they have `spare`
  List<PackHeader, 64> headers;
  List<PackColumn, 24> columns;
  List<PackLoad, 64> loads;
  List<PackStep, 128> steps;
  uint8_t spare[kMaxSpanBytes];  // [span_bytes] codes that are packed as zeros
};

// The plan of a format, made at its first use and kept; null where there is none and pack_panel() has to do
// (tq1_0).
const PackPlan* pack_plan(const PanelFormat& f);

}  // namespace bitloom
