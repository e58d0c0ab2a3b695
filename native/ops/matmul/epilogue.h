// What happens to a finished tile of products on its way into c.
#pragma once

#include "../../base/tensor.h"
#include "../elementwise/kernel.h"
#include "finish.h"
#include "row_kernels.h"

namespace bitloom {

// swiglu and geglu take two rows of b for an output.
inline bool is_gated(int32_t activation) {
  return activation == BL_ACTIVATION_swiglu || activation == BL_ACTIVATION_geglu;
}

class Epilogue final : public Finish {
 public:
  // `additions` must outlive this. batches: at least 1.
  Epilogue(const bl_matmul_args& args, const Additions& additions, int64_t batches);

  int64_t parts() const override { return parts_; }
  // A scale of an i8 output takes 32.
  int64_t granularity() const override { return args_.c_scales.data != nullptr ? 32 : 1; }
  uint64_t slot_bytes(int64_t width) const override;
  void store(const Products& products) const override;

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
