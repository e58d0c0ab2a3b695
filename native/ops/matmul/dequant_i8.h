// The families of formats that matmul_dequant_i8 has code for (dequant_i8.inl). Each family of forms is
// compiled in a file of its own, <isa>_dequant_i8_<family>.cc: together they take minutes.
#pragma once

#include "kernel.h"

namespace bitloom {

// Values of codes: the codes; a table of at most kSmallTable; a table of bytes.
enum class Values { codes, small_table, byte_table };

// The largest value that a small table of so many bits may have.
template <int bits>
constexpr int kSmallTable = bits == 4 ? 31 : 129;

// A family of formats that share code. Bits of a code; its values; groups in a chunk (1: groups of 32 and
// more); sub-scales; offsets.
template <int bits, Values values = Values::codes, int parts = 1, bool sub = false, bool offset = false>
struct Form {
  static constexpr int kBits = bits;
  static constexpr Values kValues = values;
  static constexpr bool kTable = values != Values::codes;
  static constexpr int kParts = parts;
  static constexpr bool kSub = sub;
  static constexpr bool kOffset = offset;
  // panel.h: signs without zero point are {0, 2} - 1.
  static constexpr int kShift = bits == 1 && !offset ? 1 : 0;
};

using RunForm = void (*)(const PanelFormat& f, const Activations& a, const Tile& tile);

// The code for a format of a family: `groups` of 32 and more; the same with `offsets`; K types with
// `subs`; `parts` of 32: groups of 8 and 16.
#define BL_DEQUANT_I8_FAMILIES(isa)                 \
  namespace isa {                                   \
  RunForm dequant_i8_groups(const PanelFormat& f);  \
  RunForm dequant_i8_offsets(const PanelFormat& f); \
  RunForm dequant_i8_subs(const PanelFormat& f);    \
  RunForm dequant_i8_parts(const PanelFormat& f);   \
  }
BL_DEQUANT_I8_FAMILIES(avx2)
BL_DEQUANT_I8_FAMILIES(avx512)
BL_DEQUANT_I8_FAMILIES(neon)
BL_DEQUANT_I8_FAMILIES(dotprod)
BL_DEQUANT_I8_FAMILIES(i8mm)
#undef BL_DEQUANT_I8_FAMILIES

}  // namespace bitloom
