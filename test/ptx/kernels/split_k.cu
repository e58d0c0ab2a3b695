// Dot products split over blocks: each block writes a partial sum; the one that arrives last adds them up, in
// order, after an acquire. A second kernel passes a sum along a chain of blocks that wait for each other's flags.
#include <cuda/atomic>

// a, b: count values; partial: one per block; arrivals: 1, zero at the start.
extern "C" __global__ void split_k_last(const float* a, const float* b, float* partial, unsigned* arrivals,
                                        float* output, int count) {
  __shared__ float sums[256];
  __shared__ bool last;
  const int begin = blockIdx.x * count / gridDim.x, end = (blockIdx.x + 1) * count / gridDim.x;
  float sum = 0.0f;
  for (int i = begin + threadIdx.x; i < end; i += blockDim.x) sum += a[i] * b[i];
  sums[threadIdx.x] = sum;
  for (int width = blockDim.x / 2; width > 0; width /= 2) {
    __syncthreads();
    if (threadIdx.x < width) sums[threadIdx.x] += sums[threadIdx.x + width];
  }
  if (threadIdx.x == 0) {
    partial[blockIdx.x] = sums[0];
    __threadfence();
    last = atomicAdd(arrivals, 1u) == gridDim.x - 1;
    __threadfence();
  }
  __syncthreads();
  if (last && threadIdx.x == 0) {
    float total = 0.0f;
    for (int i = 0; i < gridDim.x; ++i) total += partial[i];
    *output = total;
  }
}

// Block i waits for flag i, adds its slice of a to the running sum of each thread, and raises flag i + 1.
extern "C" __global__ void split_k_chain(const float* a, float* running, unsigned* flag, int slice) {
  cuda::atomic_ref<unsigned, cuda::thread_scope_device> turn(*flag);
  if (threadIdx.x == 0) {
    while (turn.load(cuda::memory_order_acquire) != blockIdx.x) {
    }
  }
  __syncthreads();
  float sum = blockIdx.x == 0 ? 0.0f : running[threadIdx.x];
  for (int i = 0; i < slice; ++i) sum += a[(blockIdx.x * slice + i) * blockDim.x + threadIdx.x];
  running[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) turn.store(blockIdx.x + 1, cuda::memory_order_release);
}
