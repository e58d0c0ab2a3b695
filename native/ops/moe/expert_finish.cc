#include "expert_finish.h"

#include <algorithm>
#include <cstring>

#include "../../base/scratch.h"
#include "../../base/tensor.h"

namespace bitloom {

namespace {

constexpr float kOaiAlpha = 1.702f;
constexpr float kOaiLimit = 7;

uint64_t row_bytes(int64_t width) { return align_up(static_cast<uint64_t>(width) * sizeof(float)); }

void scale_row(const ExpertKernels& kernels, float tensor_scale, int64_t count, float* row) {
  if (tensor_scale != 0 && tensor_scale != 1) kernels.rows.scale(row, nullptr, tensor_scale, count);
}

// row = row * tensor_scale + bias, columns [n, n + count) of the matrix; `buffer` for a bias at any address.
void finish_row(const ExpertKernels& kernels, float tensor_scale, const bl_tensor& bias, int64_t n,
                int64_t count, float* row, float* buffer) {
  scale_row(kernels, tensor_scale, count, row);
  if (bias.data == nullptr) return;
  std::memcpy(buffer, static_cast<const uint8_t*>(bias.data) + 4 * n, static_cast<size_t>(4 * count));
  kernels.add(row, buffer, row, count);
}

}  // namespace

ExpertKernels::ExpertKernels(int32_t isa)
    : rows(row_kernels(isa)),
      add(elementwise_kernel(Elementwise::add, isa)),
      mul(elementwise_kernel(Elementwise::mul, isa)),
      silu(elementwise_kernel(Elementwise::silu, isa)),
      swiglu(elementwise_kernel(Elementwise::swiglu, isa)),
      gelu(elementwise_kernel(Elementwise::gelu_erf, isa)),
      gelu_tanh(elementwise_kernel(Elementwise::gelu_tanh, isa)) {}

ActivateFinish::ActivateFinish(const ExpertKernels& kernels, const bl_moe_expert& expert, int32_t activation,
                               float limit)
    : kernels_(kernels),
      expert_(expert),
      activation_(activation),
      limit_(limit == 0 ? kOaiLimit : limit),
      width_(expert.up.rows),
      gated_(expert.gate.data != nullptr) {}

uint64_t ActivateFinish::slot_bytes(int64_t width) const { return row_bytes(width); }

// f of gate, which is up where there is no gate, times up where there is one.
void ActivateFinish::activate(float* gate, float* up, int64_t count) const {
  switch (activation_) {
    case BL_MOE_silu:
      if (gated_) {
        kernels_.swiglu(gate, up, gate, count);
        return;
      }
      kernels_.silu(gate, nullptr, gate, count);
      break;
    case BL_MOE_gelu:
      kernels_.gelu(gate, nullptr, gate, count);
      break;
    case BL_MOE_gelu_tanh:
      kernels_.gelu_tanh(gate, nullptr, gate, count);
      break;
    case BL_MOE_swiglu_oai:
      // g / (1 + exp(-a g)) = silu(a g) / a. NaN stays NaN in every comparison.
      for (int64_t i = 0; i < count; ++i) {
        gate[i] = (gate[i] > limit_ ? limit_ : gate[i]) * kOaiAlpha;
        const float bounded = up[i] > limit_ ? limit_ : up[i] < -limit_ ? -limit_ : up[i];
        up[i] = (bounded + 1) * (1 / kOaiAlpha);
      }
      kernels_.swiglu(gate, up, gate, count);
      return;
    default:
      for (int64_t i = 0; i < count; ++i) gate[i] = gate[i] < 0 ? 0 : gate[i];  // NaN stays
      if (activation_ == BL_MOE_relu2) kernels_.mul(gate, gate, gate, count);
  }
  if (gated_) kernels_.mul(gate, up, gate, count);
}

void ActivateFinish::store(const Products& products) const {
  float* buffer = reinterpret_cast<float*>(products.memory);
  const int64_t n = products.n, count = products.count;
  for (int64_t m = products.m.begin; m < products.m.end; ++m) {
    float* first = products.values + (m - products.m.begin) * products.stride;
    float* up = gated_ ? first + products.part_stride : first;
    finish_row(kernels_, expert_.up.tensor_scale, expert_.up_bias, n, count, up, buffer);
    if (gated_) finish_row(kernels_, expert_.gate.tensor_scale, expert_.gate_bias, n, count, first, buffer);
    activate(first, up, count);
    std::memcpy(out_ + products.m[m] * width_ + n, first, static_cast<size_t>(count) * sizeof(float));
  }
}

void StoreFinish::store(const Products& products) const {
  const int64_t n = products.n, count = products.count;
  for (int64_t m = products.m.begin; m < products.m.end; ++m) {
    float* row = products.values + (m - products.m.begin) * products.stride;
    scale_row(kernels_, weights_.tensor_scale, count, row);
    std::memcpy(out_ + products.m[m] * weights_.rows + n, row, static_cast<size_t>(count) * sizeof(float));
  }
}

uint64_t AddFinish::slot_bytes(int64_t width) const { return row_bytes(width); }

void AddFinish::store(const Products& products) const {
  float* buffer = reinterpret_cast<float*>(products.memory);
  const int64_t n = products.n, count = products.count;
  for (int64_t m = products.m.begin; m < products.m.end; ++m) {
    float* row = products.values + (m - products.m.begin) * products.stride;
    finish_row(kernels_, last_.tensor_scale, bias_, n, count, row, buffer);
    const int64_t i = products.m[m];
    kernels_.rows.scale(row, nullptr, weights_[i], count);
    float* sum = sums_.data + tokens_[i] * sums_.stride + n;
    kernels_.add(sum, row, sum, count);
  }
}

}  // namespace bitloom
