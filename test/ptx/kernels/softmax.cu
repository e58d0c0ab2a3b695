// Softmax of rows of f16, one warp per row, statistics in f32; tests exp2f, __half2 and the noinline call.
#include <cuda_fp16.h>

__device__ __noinline__ float2 online_update(float2 state, float value) {
  const float top = fmaxf(state.x, value);
  return make_float2(top, state.y * exp2f(state.x - top) + exp2f(value - top));
}

// input, output: rows x columns, columns even.
extern "C" __global__ void softmax(const __half2* input, __half2* output, int rows, int columns) {
  const int row = blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32;
  const int lane = threadIdx.x % 32;
  if (row >= rows) return;
  const float log2e = 1.4426950408889634f;
  const __half2* x = input + row * columns / 2;
  float2 state = make_float2(-1e30f, 0.0f);
  for (int i = lane; i < columns / 2; i += 32) {
    const float2 pair = __half22float2(x[i]);
    state = online_update(state, pair.x * log2e);
    state = online_update(state, pair.y * log2e);
  }
  for (int offset = 16; offset > 0; offset /= 2) {
    const float top = __shfl_xor_sync(0xffffffffu, state.x, offset);
    const float sum = __shfl_xor_sync(0xffffffffu, state.y, offset);
    const float both = fmaxf(state.x, top);
    state = make_float2(both, state.y * exp2f(state.x - both) + sum * exp2f(top - both));
  }
  const float scale = 1.0f / state.y;
  for (int i = lane; i < columns / 2; i += 32) {
    const float2 pair = __half22float2(x[i]);
    output[row * columns / 2 + i] = __floats2half2_rn(exp2f(pair.x * log2e - state.x) * scale,
                                                      exp2f(pair.y * log2e - state.x) * scale);
  }
}
