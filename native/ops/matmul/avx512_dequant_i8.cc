// matmul by integer products at level avx512: a 32-bit lane of a vector is one of a panel's sixteen rows, so
// vpdpbusd of unpacked codes with four activations in every lane sums each row in its lane.
//
// Vector instructions for a chunk of 16 x 32 weights of q4_0 (288 bytes): 4 ands, 4 shifts with and
// (vgf2p8affineqb), 8 products, a conversion of sums, one of scales (2), a multiply and a multiply-add: 21 on
// two ports, 10.5 cycles, where memory takes 48 at 6 bytes a cycle.
#include <utility>

#include "../../base/float16.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

#include "avx512_scales.inl"
#include "avx512_dequant_i8.inl"
#include "dequant_i8.inl"

void matmul_dequant_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  form_of(f)(f, a, tile);
}

#include "../../isa/end.h"
#endif  // __x86_64__
