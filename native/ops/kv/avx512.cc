// kv_append and kv_gather at level avx512: tokens.inl.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../formats/elements.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"
#include "tokens.inl"
#include "../../isa/end.h"
#endif  // __x86_64__
