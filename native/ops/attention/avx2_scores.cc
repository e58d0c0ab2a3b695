// Sums over the weights of attention at level avx2.
#include <cstdint>
#include <cstring>

#include "scores.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

#include "scores.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
