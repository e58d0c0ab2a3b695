// Begins a source region compiled for level neon, in namespace bitloom::neon; see avx2_begin.h (the header is
// <arm_neon.h>). Every 64-bit ARM processor has it, so that no instructions are turned on.
#if defined(__clang__)
#pragma clang attribute push
#else
#pragma GCC push_options
#endif
namespace bitloom::neon {
