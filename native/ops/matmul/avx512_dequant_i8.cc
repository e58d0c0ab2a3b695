// matmul by integer products at level avx512: a 32-bit lane of a vector is one of a panel's sixteen rows, so
// vpdpbusd of unpacked codes with four activations in every lane sums each row in its lane.
//
// Vector instructions for a chunk of 16 x 32 weights of q4_0 (288 bytes): 4 ands, 4 shifts with and
// (vgf2p8affineqb), 8 products, a conversion of sums, one of scales (2), a multiply and a multiply-add: 21 on
// two ports, 10.5 cycles, where memory takes 40 to 48; 98 for eight rows of a, 49 cycles.
#include "dequant_i8.h"

#if defined(__x86_64__)
#include "../../isa/avx512_begin.h"

void matmul_dequant_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const auto family = f.sub_bits != 0                     ? dequant_i8_subs
                      : f.group < kGroup                  ? dequant_i8_parts
                      : f.offset_kind != OffsetKind::none ? dequant_i8_offsets
                                                          : dequant_i8_groups;
  family(f)(f, a, tile);
}

#include "../../isa/end.h"
#endif  // __x86_64__
