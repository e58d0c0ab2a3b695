// What becomes of an expert's products: between its projections, and on the way into the output.
#pragma once

#include "../../include/bitloom_moe.h"
#include "../elementwise/kernel.h"
#include "../matmul/finish.h"
#include "../matmul/row_kernels.h"

namespace bitloom {

// The elementwise kernels of a level that experts need.
struct ExpertKernels {
  explicit ExpertKernels(int32_t isa);
  const RowKernels& rows;
  ElementwiseKernel add, mul, silu, swiglu, gelu, gelu_tanh;
};

// f(gate x + bias) * (up x + bias), or f(up x + bias), to rows of f32.
class ActivateFinish final : public Finish {
 public:
  ActivateFinish(const ExpertKernels& kernels, const bl_moe_expert& expert, int32_t activation, float limit);
  // Row i goes to out + i * width.
  void set_out(float* out) { out_ = out; }

  int64_t parts() const override { return gated_ ? 2 : 1; }
  int64_t granularity() const override { return 1; }
  uint64_t slot_bytes(int64_t width) const override;
  void store(const Products& products) const override;

 private:
  void activate(float* gate, float* up, int64_t count) const;

  const ExpertKernels& kernels_;
  const bl_moe_expert& expert_;
  int32_t activation_;
  float limit_;
  float* out_ = nullptr;
  int64_t width_;
  bool gated_;
};

// Rows of f32 that sums are taken in.
struct SumRows {
  float* data;
  int64_t stride;
};

// Rows of a product as they are, in f32.
class StoreFinish final : public Finish {
 public:
  StoreFinish(const ExpertKernels& kernels, const bl_weights& weights)
      : kernels_(kernels), weights_(weights) {}
  // Row i goes to out + i * weights.rows.
  void set_out(float* out) { out_ = out; }

  int64_t parts() const override { return 1; }
  int64_t granularity() const override { return 1; }
  uint64_t slot_bytes(int64_t) const override { return 0; }
  void store(const Products& products) const override;

 private:
  const ExpertKernels& kernels_;
  const bl_weights& weights_;
  float* out_ = nullptr;
};

// sums[tokens[i]] += weights[i] * (last h + bias), the last matrix being down or expand.
class AddFinish final : public Finish {
 public:
  AddFinish(const ExpertKernels& kernels, const bl_moe_expert& expert, const int32_t* tokens,
            const float* weights, SumRows sums)
      : kernels_(kernels),
        last_(expert.expand.data == nullptr ? expert.down : expert.expand),
        bias_(expert.down_bias),
        tokens_(tokens),
        weights_(weights),
        sums_(sums) {}

  int64_t parts() const override { return 1; }
  int64_t granularity() const override { return 1; }
  uint64_t slot_bytes(int64_t width) const override;
  void store(const Products& products) const override;

 private:
  const ExpertKernels& kernels_;
  const bl_weights& last_;
  const bl_tensor& bias_;
  const int32_t* tokens_;
  const float* weights_;
  SumRows sums_;
};

}  // namespace bitloom
