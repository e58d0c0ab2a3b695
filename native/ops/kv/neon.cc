// kv_append and kv_gather at level neon: tokens.inl.
#include <algorithm>
#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "../../base/float16.h"
#include "../../base/tensor.h"
#include "../../formats/elements.h"
#include "kernel.h"

#if defined(__aarch64__)
#include "../../isa/neon_begin.h"
#include "tokens.inl"
#include "../../isa/end.h"
#endif  // __aarch64__
