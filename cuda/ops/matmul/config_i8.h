// Products of int8: what host and device agree on. Plain C++17.
#pragma once

#include "config.h"

namespace bitloom::cuda::gemm {

constexpr int kStageDepth = 128;  // columns of a stage of the prompt kernel: two units
constexpr int kIntegerStages = 3;
constexpr int kIntegerStreamWarps = 8;

// Where the sums of integers become floats.
enum class Steps {
  fine,    // every 32 columns, by weight scale * activation scale: the CPU's numbers
  coarse,  // every 128, by weight scale; the activations' scale is the row's and comes last
  whole    // once a row: one scale on either side
};

// Codes of activations lie unit after unit (64 columns, the last stage filled up with zeros). A unit is four
// pieces of 16 bytes, piece t the columns 8 t to + 7 and 32 + 8 t to + 7, in the order in which the decoder
// of the weights leaves its codes: nibble j is the place of column 8 t + j in its 8 bytes.
BL_HOST_DEVICE constexpr uint32_t code_places(int bits) {
  return bits == 4 ? 0x76325410u : bits == 2 ? 0x75316420u : 0x75643120u;
}

// What the products need of groups of activations, in arrays of floats one after the other.
//   fine    per 32 columns: scale; scale * sum of codes; kMagic + zero * sum of codes.
//           [units, even][rows / 2][2 halves of the unit][2 rows]
//   coarse  per 128 columns: sum of codes. [stages][rows]
//   whole   none
constexpr int kSideKinds = 3;

// Integers below 2^22 in magnitude, added to it, are floats whose last bit counts 1: 1.5 * 2^23.
constexpr float kMagic = 12582912.0f;

struct IntegerParams {
  FragmentWeights b;        // `factor` includes what the decoder multiplies codes with, inverted
  const void* a;            // [m][stages * 128] int8
  const float* sides;       // as above
  int64_t side_stride;      // floats of one of its arrays
  const float* row_scales;  // whole: [m]
  const int32_t* row_sums;  // whole: [m]
  int32_t m, n;
  int32_t rows;          // m filled up to the tile's
  int32_t stages;        // of 128 columns
  int32_t splits;        // of the stages (prompt), of the units (stream)
  int32_t value_shift;   // value = code << value_shift; codes of 1 bit only
  int32_t raw_bytes;     // prompt: records of a row tile that a stage needs
  int32_t ready_groups;  // and how many they are
  void* partial;         // [splits, m, n] f32, whole: int32; or null: c is written
  Epilogue epilogue;
};

// a to int8.
struct IntegerRowsParams {
  PrepareParams from;  // `out`, `row_factors` and `padded_k` are not read
  int8_t* codes;       // [m][units * 64]
  float* sides;
  int64_t side_stride;
  float* row_scales;  // [m]: coarse and whole
  int32_t* row_sums;  // [m]: whole
  float* ones;        // [2]: 1, for epilogues that have nothing to take back
  int32_t rows;       // of sides
  int32_t units;      // even
  int32_t steps;      // Steps
  int32_t a_is_codes;
  int32_t scale_per_row;
  float levels;     // 127 or 7
  float zero;       // of the weights
  uint32_t places;  // code_places
};

// whole: products from the sums of all splits, in place of the first one's.
struct CollectParams {
  FragmentWeights b;
  void* partial;  // [splits, m, n] int32, then [m, n] f32
  const float* row_scales;
  const int32_t* row_sums;
  int32_t splits, m, n;
  int32_t times;  // log2 of what the decoder multiplies codes with
};

// Units that a lane of the stream kernel has under way, as its registers allow.
BL_HOST_DEVICE constexpr int integer_depth(int words, bool centred) { return words > 4 || !centred ? 2 : 4; }

// Arrays of sides that a kernel reads.
BL_HOST_DEVICE constexpr int side_kinds(Steps steps, bool centred) {
  return steps == Steps::whole ? 0 : steps == Steps::fine ? (centred ? 1 : kSideKinds) : centred ? 0 : 1;
}
BL_HOST_DEVICE constexpr int side_bytes(Steps steps, bool centred) {  // of a stage
  return side_kinds(steps, centred) * kPromptRows * 4 * (steps == Steps::fine ? 4 : 1);
}
BL_HOST_DEVICE constexpr int integer_stage_bytes(Steps steps, bool centred, int unit_bytes, int raw_bytes,
                                                 int super_bytes) {
  return kPromptRows * kStageDepth + kPromptRowTiles * (2 * unit_bytes + raw_bytes + super_bytes) +
         side_bytes(steps, centred);
}
constexpr int integer_shared_bytes(Steps steps, bool centred, int unit_bytes, int raw_bytes, int super_bytes,
                                   int ready_groups) {
  const int ready = centred || steps == Steps::whole ? 0 : 4 * ready_groups * kPromptColumns * 4;
  const int loop =
      kIntegerStages * integer_stage_bytes(steps, centred, unit_bytes, raw_bytes, super_bytes) + ready;
  const int staged = kPromptRows * kStagedStride * 4;
  return loop > staged ? loop : staged;
}

}  // namespace bitloom::cuda::gemm
