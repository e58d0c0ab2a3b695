// Algorithm tile in bf16 at level avx2: tile_bf16.inl over vectors of 256 bits.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tile.h"

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "avx2_decode.inl"

namespace {
constexpr int kRows =
    4;  // times two vectors: 8 sums, with weights and a broadcast in all registers but a few

// sum += w * x
inline void add_product(Vec& sum, Vec w, Vec x) { sum = fma(w, x, sum); }
}  // namespace
#include "tile_bf16.inl"
#include "../../isa/end.h"
#endif  // __x86_64__
