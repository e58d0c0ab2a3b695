// Begins a source region compiled for level dotprod, in namespace bitloom::dotprod; see avx2_begin.h. GCC
// inlines the intrinsics only where the architecture they are declared for is on too.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod")
#endif
namespace bitloom::dotprod {
