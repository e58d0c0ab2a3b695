// Ends a region begun by avx2_begin.h or avx512_begin.h.
}  // namespace bitloom::<level>
#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif
