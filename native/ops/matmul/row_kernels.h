// What matmul does to rows of floats around the products: the pieces of its epilogue and of the packing of
// activations that are worth vectors.
#pragma once

#include <cstdint>

namespace bitloom {

// Pure, like kernels. The bounds say how far a level may lie from the scalar one, which adds in double.
struct RowKernels {
  // x[i] = x[i] * scales[i] * factor, rounded twice; scales may be null. All levels the same bits.
  void (*scale)(float* x, const float* scales, float factor, int64_t count);
  // sums[j] = sum_i x[i] * y[j * stride + i], j in [0, 4). Within 2^-18 of the sum of |products|.
  void (*dot4)(const float* x, const float* y, int64_t stride, int64_t count, float* sums);
  // values[i] += sum_r t[r] * up[r * stride + i]. Within (rank + 1) * 2^-24 of the sum of |terms|.
  void (*add_products)(const float* up, int64_t stride, const float* t, int64_t rank, float* values,
                       int64_t count);
  // sum_i values[i] * x[columns[i]]; every column may be read. Within (count / 8 + 4) * 2^-24 of the sum of
  // |products|.
  float (*sparse_dot)(const float* x, const int32_t* columns, const float* values, int64_t count);
  // The largest |x[i]|, 0 for none, NaN if one of them is not finite. All levels the same.
  float (*largest)(const float* x, int64_t count);
  // codes[i] = x[i] * factor to nearest even, in [-127, 127]; x finite. All levels the same.
  void (*encode)(const float* x, float factor, int64_t count, int8_t* codes);
  // Compute i1: for every 32 values a word whose byte j has at bit v whether x[4v + j] >= 0 (the order of a
  // plane of one bit, formats/panel.h); bits past count are zero. Gives mean |x|, from f32 sums in sixteen
  // lanes. All levels the same bits.
  float (*signs)(const float* x, int64_t count, uint32_t* words);
};

namespace scalar {
extern const RowKernels kRowKernels;
}
#if defined(__x86_64__)
namespace avx2 {
extern const RowKernels kRowKernels;
}
namespace avx512 {
extern const RowKernels kRowKernels;
}
#elif defined(__aarch64__)
namespace neon {
extern const RowKernels kRowKernels;
}
#endif

const RowKernels& row_kernels(int32_t isa);

}  // namespace bitloom
