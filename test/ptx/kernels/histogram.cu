// Counts of byte values modulo bins: atomics in shared memory, then one atomic per bin and block.
extern "C" __global__ void histogram(const unsigned char* values, unsigned* counts, int count, int bins) {
  extern __shared__ unsigned local_counts[];
  for (int i = threadIdx.x; i < bins; i += blockDim.x) local_counts[i] = 0;
  __syncthreads();
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < count; i += gridDim.x * blockDim.x) {
    atomicAdd(&local_counts[values[i] % bins], 1u);
  }
  __syncthreads();
  for (int i = threadIdx.x; i < bins; i += blockDim.x) {
    if (local_counts[i]) atomicAdd(&counts[i], local_counts[i]);
  }
}
