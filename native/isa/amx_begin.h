// Begins a source region compiled for level amx, in namespace bitloom::amx; see avx2_begin.h. Ends with
// end.h. Kernels load their tile configuration at entry and release it at exit: other users of tiles share
// the thread. Every processor with tiles has AVX512_BF16 too; detect() of isa.cc asks for both.
#if defined(__clang__)
#pragma clang attribute push(                                                                            \
    __attribute__((                                                                                      \
        target("avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi," \
               "gfni,avx512bf16,amx-tile,amx-int8,amx-bf16"))),                                          \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target( \
    "avx2,fma,f16c,bmi,bmi2,popcnt,avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,avx512bf16,amx-tile,amx-int8,amx-bf16,prefer-vector-width=512")
#endif
namespace bitloom::amx {
