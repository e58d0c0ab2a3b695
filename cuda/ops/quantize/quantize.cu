// quantize: a thread per group; dequantize: a thread per weight.
#include "encode_mse.cuh"

namespace bitloom::cuda {

// A matrix has one axis of rows (plan_matrix).
__device__ __forceinline__ char* matrix_row(const Operand& operand, int64_t row) {
  return element_at(operand.data, operand.dtype, row * operand.outer_strides[0]);
}

// Calls encode(group, bytes of its block) for the groups of this thread.
template <typename Encode>
__device__ __forceinline__ void for_each_group(const QuantizeParams& p, const Encode& encode) {
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    const char* input = matrix_row(p.input, row);
#pragma unroll 1
    for (int64_t g = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; g < p.groups; g += int64_t{gridDim.x} * blockDim.x) {
      const int64_t first = g * p.output.block_elements;
      const Group group{input, p.input.dtype, first * p.input.stride, p.input.stride,
                        min(p.output.block_elements, p.rows.length - first), p.output.tensor_scale};
      encode(group, p.data + row * p.output.row_bytes + g * p.output.block_bytes);
    }
  }
}

}  // namespace bitloom::cuda

extern "C" __global__ void __launch_bounds__(bitloom::cuda::kQuantizeThreads)
    dequantize(const __grid_constant__ bitloom::cuda::DequantizeParams p) {
  using namespace bitloom::cuda;
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    char* output = matrix_row(p.output, row);
#pragma unroll 1
    for (int64_t col = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; col < p.rows.length;
         col += int64_t{gridDim.x} * blockDim.x) {
      store_element(p.output.dtype, output, col * p.output.stride, decode_weight(p.input, row, col));
    }
  }
}

extern "C" __global__ void __launch_bounds__(bitloom::cuda::kQuantizeThreads)
    quantize_check(const __grid_constant__ bitloom::cuda::QuantizeParams p) {
  using namespace bitloom::cuda;
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    const char* input = matrix_row(p.input, row);
#pragma unroll 1
    for (int64_t col = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; col < p.rows.length;
         col += int64_t{gridDim.x} * blockDim.x) {
      if (!isfinite(load_element(p.input.dtype, input, col * p.input.stride))) {
        atomicMax(reinterpret_cast<unsigned long long*>(p.non_finite),
                  ~static_cast<unsigned long long>(row * p.rows.length + col));
      }
    }
  }
}

extern "C" __global__ void __launch_bounds__(bitloom::cuda::kQuantizeThreads)
    quantize(const __grid_constant__ bitloom::cuda::QuantizeParams p) {
  using namespace bitloom::cuda;
  for_each_group(p, [&](const Group& group, uint8_t* bytes) {
    if (p.output.kind == BL_KIND_block) {
      encode_legacy(p.output, group, bytes);
    } else {
      encode_grouped(p.output, group, bytes);
    }
  });
}

extern "C" __global__ void __launch_bounds__(bitloom::cuda::kQuantizeThreads)
    quantize_mse(const __grid_constant__ bitloom::cuda::QuantizeParams p) {
  using namespace bitloom::cuda;
  for_each_group(p, [&](const Group& group, uint8_t* bytes) {
    if (p.output.kind == BL_KIND_block) {
      encode_legacy_mse(p.output, group, bytes);
    } else {
      encode_grouped_mse(p.output, group, bytes);
    }
  });
}
