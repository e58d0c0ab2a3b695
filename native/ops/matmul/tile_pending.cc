// Until the dequant kernels of these levels are there: their packing.
#include "kernel.h"

namespace bitloom::avx2 {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  scalar::pack_activations_i8(x, k, codes, scales);
}
}  // namespace bitloom::avx2
namespace bitloom::avx512 {
void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  scalar::pack_activations_i8(x, k, codes, scales);
}
}  // namespace bitloom::avx512
