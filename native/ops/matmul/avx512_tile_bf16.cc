// Algorithm tile in bf16 at level avx512: tile_bf16.inl over vectors of 512 bits.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tile.h"

#include "../../isa/avx512_begin.h"
#include "../../isa/simd_avx512.inl"
#include "avx512_decode.inl"

namespace {
constexpr int kRows =
    8;  // times two vectors: 16 sums, with weights and a broadcast in all registers but a few

// sum += w * x. As assembly: GCC 12 copies sums to other registers and back around the intrinsic.
inline void add_product(Vec& sum, Vec w, Vec x) {
  __asm__("vfmadd231ps %2, %1, %0" : "+v"(sum.v) : "v"(w.v), "v"(x.v));
}
}  // namespace
#include "tile_bf16.inl"
#include "../../isa/end.h"
#endif  // __x86_64__
