// Tables of floats that codes index.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"

namespace bitloom {

// A byte numbers them; cbs<b> has 2 to 4 bits.
constexpr int32_t kMaxTables = 256;
constexpr int32_t kMaxCodebookSize = kMaxTables * 16;

struct Codebooks {
  const float* values;  // [count][2^bits]; null: the format has none beside its weights
  int32_t count;        // tables

  // The table that a group's number names: past the last, the last.
  const float* table(int32_t number, int32_t bits) const {
    return values + (static_cast<int64_t>(number < count ? number : count - 1) << bits);
  }
};

// What a matrix of cb<b> or cbs<b> carries, or the built-in tables of nf4, fp4, cbs3, cbs4 and the elements
// of elements.h; else null.
Codebooks codebooks_of(const bl_format_info& info, const float* own, int32_t own_size);

extern const float kNf4[16];   // QLoRA (Dettmers et al. 2023), appendix E
extern const float kE2m1[16];  // OCP Microscaling v1.0: 0, .5, 1, 1.5, 2, 3, 4, 6 and their negatives

// BitMoD (Chen et al. 2024, arXiv 2411.11745): floats of 3 and 4 bits by sign and magnitude whose code of
// negative zero stands for a special value, of which each group has the best of four: one within the range
// (ER: 3; 5) or beyond it (EA: 6; 8), of either sign.
extern const float kBitmod3[4][8];
extern const float kBitmod4[4][16];

}  // namespace bitloom
