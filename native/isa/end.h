// Ends a region begun by one of the <level>_begin.h.
}  // namespace bitloom::<level>
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
