#include "codebooks.h"

#include "elements.h"

namespace bitloom {

const float kNf4[16] = {-1.0f,
                        -0.6961928009986877f,
                        -0.5250730514526367f,
                        -0.39491748809814453f,
                        -0.28444138169288635f,
                        -0.18477343022823334f,
                        -0.09105003625154495f,
                        0.0f,
                        0.07958029955625534f,
                        0.16093020141124725f,
                        0.24611230194568634f,
                        0.33791524171829224f,
                        0.44070982933044434f,
                        0.5626170039176941f,
                        0.7229568362236023f,
                        1.0f};

const float kE2m1[16] = {0.0f,  0.5f,  1.0f,  1.5f,  2.0f,  3.0f,  4.0f,  6.0f,
                         -0.0f, -0.5f, -1.0f, -1.5f, -2.0f, -3.0f, -4.0f, -6.0f};

#define BL_FP3(special) {0, 1, 2, 4, special, -1, -2, -4}
#define BL_FP4(special) {0, .5f, 1, 1.5f, 2, 3, 4, 6, special, -.5f, -1, -1.5f, -2, -3, -4, -6}
const float kBitmod3[4][8] = {BL_FP3(3), BL_FP3(-3), BL_FP3(6), BL_FP3(-6)};
const float kBitmod4[4][16] = {BL_FP4(5), BL_FP4(-5), BL_FP4(8), BL_FP4(-8)};
#undef BL_FP3
#undef BL_FP4

Codebooks codebooks_of(const bl_format_info& info, const float* own, int32_t own_size) {
  switch (info.kind) {
    case BL_KIND_nf4:
      return {kNf4, 1};
    case BL_KIND_fp4:
      return {kE2m1, 1};
    case BL_KIND_codebook:
      return {own, 1};
    case BL_KIND_codebooks:
      if (own != nullptr) return {own, own_size >> info.bits};
      return {info.bits == 3 ? kBitmod3[0] : kBitmod4[0], 4};
    default:
      return {element_table(info.kind), 1};
  }
}

}  // namespace bitloom
