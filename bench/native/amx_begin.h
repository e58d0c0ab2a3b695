// Begins a source region compiled with AMX tiles, in namespace bitloom::amx; see native/isa/avx2_begin.h.
// Ends with native/isa/end.h.
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("amx-tile,amx-int8,amx-bf16"))), apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("amx-tile,amx-int8,amx-bf16")
#endif
namespace bitloom::amx {
