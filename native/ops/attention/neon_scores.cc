// Sums over the weights of attention at level neon.
#include <cstdint>
#include <cstring>

#include "scores.h"

#if defined(__aarch64__)
#include <arm_neon.h>

#include "../../isa/neon_begin.h"

#include "scores.inl"

#include "../../isa/end.h"
#endif  // __aarch64__
