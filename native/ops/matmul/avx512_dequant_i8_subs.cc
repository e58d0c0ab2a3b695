// matmul by integer products at level avx512: the K types.
#include <cstring>
#include <type_traits>
#include <utility>

#include "../../base/float16.h"
#include "dequant_i8.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

#include "avx512_dequant_i8.inl"
#include "dequant_i8.inl"
#include "dequant_i8_subs.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
