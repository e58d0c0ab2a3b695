// Begins a source region compiled for level i8mm, in namespace bitloom::i8mm; see dotprod_begin.h.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("dotprod,i8mm"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("arch=armv8.2-a+dotprod+i8mm")
#endif
namespace bitloom::i8mm {
