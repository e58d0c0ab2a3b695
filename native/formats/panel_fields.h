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

// Code i and sub-scale u as a canonical block has them: without the flips of PanelFormat. Not for floats.
uint32_t read_canonical(const PanelFormat& f, const uint8_t* block, int64_t i);
uint32_t read_canonical_sub(const PanelFormat& f, const uint8_t* block, int64_t u);
// All codes [f.canonical_elements], at most 256, into a block whose bits there are zero; a sub-scale
// likewise.
void write_canonical(const PanelFormat& f, const uint8_t* codes, uint8_t* block);
void write_canonical_sub(const PanelFormat& f, int64_t u, uint32_t value, uint8_t* block);
// One code of a format other than tq1_0.
void write_canonical_code(const PanelFormat& f, int64_t i, uint32_t code, uint8_t* block);
// What sub-scales are xor-ed with to be unsigned: those of 8 bits are two's complement in files.
inline uint32_t sub_flip(const PanelFormat& f) { return f.sub_bits == 8 ? 128u : 0u; }

}  // namespace bitloom
