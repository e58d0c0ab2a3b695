// matmul by integer products at level avx2: groups of 32 and more with offsets.
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../base/float16.h"
#include "dequant_i8.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

#include "avx2_dequant_i8.inl"
#include "dequant_i8.inl"
#include "dequant_i8_offsets.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
