// Begins a source region compiled for level avx2, in namespace bitloom::avx2. Include <immintrin.h> and
// all other headers before it: what is compiled in the region must not run on a lesser processor, so
// the region holds only functions of its own namespace. No include guard: it is used once per region.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,fma,f16c,bmi,bmi2,popcnt"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx2,fma,f16c,bmi,bmi2,popcnt")
#endif
namespace bitloom::avx2 {
