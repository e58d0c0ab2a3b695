// copy: 16 bytes of a thread at a time where views allow it, else elements; or elements of different types. Blocks along x
// share a row, along y take rows.
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {
namespace {

// Calls body(input element, output element) for this thread's elements.
template <typename Body>
__device__ __forceinline__ void each(const CopyParams& p, Body body) {
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    const int64_t input = row_offset(p.rows, p.input, row), output = row_offset(p.rows, p.output, row);
#pragma unroll 1
    for (int64_t i = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; i < p.rows.length;
         i += int64_t{gridDim.x} * blockDim.x) {
      body(input + i * p.input.stride, output + i * p.output.stride);
    }
  }
}

template <typename T>
__device__ __forceinline__ void copy_elements(const CopyParams& p) {
  each(p, [&](int64_t from, int64_t to) {
    static_cast<T*>(p.output.data)[to] = static_cast<const T*>(p.input.data)[from];
  });
}

__device__ __forceinline__ bool is_integer(int32_t dtype) { return dtype == BL_DTYPE_i8 || dtype == BL_DTYPE_i32; }

__device__ __forceinline__ int32_t load_integer(const Operand& operand, int64_t i) {
  return operand.dtype == BL_DTYPE_i8 ? static_cast<const int8_t*>(operand.data)[i]
                                      : static_cast<const int32_t*>(operand.data)[i];
}
__device__ __forceinline__ void store_integer(const Operand& operand, int64_t i, int32_t value) {
  if (operand.dtype == BL_DTYPE_i8) {
    static_cast<int8_t*>(operand.data)[i] = static_cast<int8_t>(max(-128, min(127, value)));
  } else {
    static_cast<int32_t*>(operand.data)[i] = value;
  }
}

}  // namespace
}  // namespace bitloom::cuda

#define BL_CUDA_COPY_KERNEL(name) \
  extern "C" __global__ void __launch_bounds__(bitloom::cuda::kCopyThreads) name(const __grid_constant__ bitloom::cuda::CopyParams p)

BL_CUDA_COPY_KERNEL(copy_wide) { bitloom::cuda::copy_elements<uint4>(p); }

BL_CUDA_COPY_KERNEL(copy_plain) {
  using namespace bitloom::cuda;
  if (p.element_bytes == 1) {
    copy_elements<uint8_t>(p);
  } else if (p.element_bytes == 2) {
    copy_elements<uint16_t>(p);
  } else {
    copy_elements<uint32_t>(p);
  }
}

BL_CUDA_COPY_KERNEL(copy_convert) {
  using namespace bitloom::cuda;
  const bool from_integer = is_integer(p.input.dtype), to_integer = is_integer(p.output.dtype);
  each(p, [&](int64_t from, int64_t to) {
    if (from_integer && to_integer) {
      store_integer(p.output, to, load_integer(p.input, from));
      return;
    }
    const float value = from_integer ? __int2float_rn(load_integer(p.input, from))
                                     : load_element(p.input.dtype, p.input.data, from);
    if (to_integer) {
      store_integer(p.output, to, __float2int_rn(value));  // saturates; NaN gives 0
    } else {
      store_element(p.output.dtype, p.output.data, to, value);
    }
  });
}
