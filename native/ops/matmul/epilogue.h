// What happens to a finished tile of products on its way into c.
#pragma once

#include "../../base/tensor.h"
#include "../elementwise/kernel.h"
#include "additions.h"
#include "row_kernels.h"

namespace bitloom {

// swiglu and geglu take two rows of b for an output.
inline bool is_gated(int32_t activation) {
  return activation == BL_ACTIVATION_swiglu || activation == BL_ACTIVATION_geglu;
}

// Columns [n, n + count) of c's rows `m`, within one batch. Part p of the
// products stands `part_stride` columns after part p - 1.
struct Products {
  float* values;  // [m.end - m.begin][stride]; used up
  int64_t stride, part_stride;
  RowRange m;
  int64_t batch, n, count;
  uint8_t* memory;  // of the slot, Epilogue::slot_bytes
  bool first;       // of the calls with these columns
};

class Epilogue {
 public:
  // `additions` must outlive this. batches: at least 1.
  Epilogue(const bl_matmul_args& args, const Additions& additions, int64_t batches);

  int64_t parts() const { return parts_; }
  // Columns that must be written together: a scale of an i8 output takes 32.
  int64_t granularity() const { return args_.c_scales.data != nullptr ? 32 : 1; }
  uint64_t slot_bytes(int64_t width) const;
  void store(const Products& products) const;

 private:
  void finish_part(const Products& products, int64_t part) const;
  void activate(float* gate, const float* up, int64_t count) const;
  void add_rows(const Rows& rows, int64_t m, int64_t n, int64_t count, float* values, float* buffer) const;
  void store_codes(int64_t m, int64_t n, int64_t count, const float* values) const;

  const bl_matmul_args& args_;
  const Additions& additions_;
  const RowKernels& kernels_;
  ElementwiseKernel add_, mul_, activation_;
  int64_t parts_, n_;  // n_: rows of b per batch
  float scale_;
  Rows c_, c_scales_, addend_, residual_;
};

}  // namespace bitloom
