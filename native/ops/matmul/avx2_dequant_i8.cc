// matmul by integer products at level avx2: as avx512_dequant_i8.cc with half the rows in a vector, and
// vpmaddubsw (pairs of products in int16) in the place of vpdpbusd.
//
// Vector instructions for a chunk of 16 x 32 weights of q4_0: 16 ands, 8 shifts, 16 products, 14 additions, 2
// widenings and 2 additions to the start, 2 conversions of sums, 2 of scales (2 each), 2 multiplies, 2
// multiply-adds: 68 on three ports, 23 cycles, where memory takes 48 at 6 bytes a cycle.
#include "dequant_i8.h"

#if defined(__x86_64__)
#include "../../isa/avx2_begin.h"

void matmul_dequant_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const auto family = f.sub_bits != 0                     ? dequant_i8_subs
                      : f.group < kGroup                  ? dequant_i8_parts
                      : f.offset_kind != OffsetKind::none ? dequant_i8_offsets
                                                          : dequant_i8_groups;
  family(f)(f, a, tile);
}

#include "../../isa/end.h"
#endif  // __x86_64__
