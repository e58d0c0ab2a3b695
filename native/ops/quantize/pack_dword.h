// Where the bits of a panel's dwords come from, while pack_plan.cc makes its tables.
#pragma once

#include <algorithm>
#include <cstdint>

#include "pack_plan.h"

namespace bitloom {

// The bits of one byte of a dword, some of them: those of `mask`, bit t of them from bit `from` + t of the
// span.
struct Bits {
  int64_t from;
  uint8_t mask;
  int64_t first_byte() const { return (from + __builtin_ctz(mask)) >> 3; }
  int64_t last_byte() const { return (from + 31 - __builtin_clz(mask)) >> 3; }
};

// What one step gives a dword: bits of each byte, all from four canonical bytes in a row.
struct Part {
  Bits bytes[4];
  int64_t first_byte, last_byte;
};

using Parts = List<Part, 32>;

// A dword of a span and where all its bits come from.
struct Dword {
  int32_t target;
  int32_t plane;
  bool by_bytes;
  uint8_t flip;
  List<Bits, 8> bytes[4];

  // Bit t of byte j comes from bit `from` of the span. Bits that move equally far are one.
  void add(int64_t j, int32_t t, int64_t from) {
    for (Bits& bits : bytes[j]) {
      if (bits.from != from - t) continue;
      bits.mask = static_cast<uint8_t>(bits.mask | 1u << t);
      return;
    }
    bytes[j].push_back({from - t, static_cast<uint8_t>(1u << t)});
  }
};

// What the four bytes of a dword get at a time: parts of four bytes in a row; bits that lie apart, one by
// one.
inline void parts_of(const Dword& dword, Parts* parts) {
  parts->count = 0;
  int32_t most = 0;
  for (const auto& bytes : dword.bytes) most = std::max(most, bytes.count);
  for (int32_t i = 0; i < most; ++i) {
    Part part{{}, INT64_MAX, -1};
    for (int j = 0; j < 4; ++j) {
      if (i >= dword.bytes[j].count) continue;
      const Bits& bits = dword.bytes[j][i];
      const int64_t first = std::min(part.first_byte, bits.first_byte());
      const int64_t last = std::max(part.last_byte, bits.last_byte());
      if (last - first >= 4) {
        Part alone{{}, bits.first_byte(), bits.last_byte()};
        alone.bytes[j] = bits;
        parts->push_back(alone);
        continue;
      }
      part.bytes[j] = bits;
      part.first_byte = first;
      part.last_byte = last;
    }
    parts->push_back(part);
  }
}

}  // namespace bitloom
