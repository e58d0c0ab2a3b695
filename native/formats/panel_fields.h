// Where the codes and sub-scales of a canonical block stand in it, bit by bit.
#pragma once

#include <cstdint>

#include "panel.h"

namespace bitloom {

// A part of a code in a canonical block: bits [bit, bit + width) become bits [shift, shift + width) of it.
struct Field {
  int64_t bit;
  int32_t width, shift;
};

// The fields of code i of a block, first and second (width 0: none). Not for floats and tq1_0.
void code_fields(const PanelFormat& f, int64_t i, Field* low, Field* high);
// The fields of sub-scale u.
void sub_fields(const PanelFormat& f, int64_t u, Field* low, Field* high);

}  // namespace bitloom
