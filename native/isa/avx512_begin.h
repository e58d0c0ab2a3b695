// Begins a source region compiled for level avx512, in namespace bitloom::avx512; see avx2_begin.h.
// 512-bit vectors are preferred: every processor of this level runs them without the clock loss of
// the first AVX-512 parts (VBMI and VNNI together came with Ice Lake).
#if defined(__clang__)
#pragma clang attribute push(                                                                             \
    __attribute__((target(                                                                                \
        "avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target( \
    "avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,prefer-vector-width=512")
#endif
namespace bitloom::avx512 {
