// rope: rotates the pairs of each head. A block takes a token and some of its heads: it makes the token's cosines and
// sines once, in f64 as the CPU does, and rotates all its heads with them. Products and sums are rounded one by one, so
// that results have the CPU's bits wherever the tables agree (f64 sine and cosine differ by 2 ulp at most, which a
// rounding to f32 hides but for one value in some 10^8).
#include "../../tile/angle.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

namespace bitloom::cuda {
namespace {

struct Table {
  float cosine[kRopeTablePairs];
  float sine[kRopeTablePairs];
};

// Cosines and sines of pairs [first, first + count).
__device__ __forceinline__ void make_table(const RopeParams& p, Table& table, int64_t token, int64_t first, int count) {
  const double position = p.positions[token * p.position_stride];
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    double frequency = p.frequencies != nullptr ? p.frequencies[first + i] : p.inline_frequencies[first + i];
    if (p.freq_factors != nullptr) frequency /= p.freq_factors[first + i];
    double sine, cosine;
    sine_and_cosine(position * frequency, &sine, &cosine);
    table.cosine[i] = static_cast<float>(cosine * p.magnitude);
    table.sine[i] = static_cast<float>(sine * p.magnitude);
  }
}

// Offsets of batch `batch` in elements.
__device__ __forceinline__ void batch_offsets(const RopeParams& p, int64_t batch, int64_t* x, int64_t* output) {
#pragma unroll 1
  for (int axis = p.batch_rank - 1; axis >= 0; --axis) {
    const int64_t index = axis > 0 ? batch % p.batch_shape[axis] : batch;
    *x += index * p.x_batch_strides[axis];
    *output += index * p.output_batch_strides[axis];
    if (axis > 0) batch /= p.batch_shape[axis];
  }
}

__device__ __forceinline__ void rotate(const RopeParams& p, const Table& table, int64_t x, int64_t output, int64_t first,
                                       int count) {
#pragma unroll 1
  for (int i = threadIdx.x; i < count; i += blockDim.x) {
    const int64_t pair = first + i;
    const int64_t low = p.is_half != 0 ? pair : 2 * pair, high = p.is_half != 0 ? pair + p.pairs : 2 * pair + 1;
    const float a = load_element(p.x_dtype, p.x, x + low * p.x_strides[2]);
    const float b = load_element(p.x_dtype, p.x, x + high * p.x_strides[2]);
    const float cosine = table.cosine[i], sine = table.sine[i];
    store_element(p.output_dtype, p.output, output + low * p.output_strides[2],
                  __fsub_rn(__fmul_rn(a, cosine), __fmul_rn(b, sine)));
    store_element(p.output_dtype, p.output, output + high * p.output_strides[2],
                  __fadd_rn(__fmul_rn(a, sine), __fmul_rn(b, cosine)));
  }
}

// Channels that are not rotated.
__device__ __forceinline__ void copy_rest(const RopeParams& p, int64_t x, int64_t output) {
#pragma unroll 1
  for (int64_t i = 2 * p.pairs + threadIdx.x; i < p.head_dim; i += blockDim.x) {
    store_element(p.output_dtype, p.output, output + i * p.output_strides[2],
                  load_element(p.x_dtype, p.x, x + i * p.x_strides[2]));
  }
}

}  // namespace
}  // namespace bitloom::cuda

// Threads: x along the pairs, y along heads. Grid: tokens, parts of the heads.
extern "C" __global__ void __launch_bounds__(bitloom::cuda::kRopeThreads)
    rope(const __grid_constant__ bitloom::cuda::RopeParams p) {
  using namespace bitloom::cuda;
  __shared__ Table table;
  const int64_t first_head = blockIdx.y * p.heads_per_block;
  const int64_t end_head = min(first_head + p.heads_per_block, p.heads);
#pragma unroll 1
  for (int64_t token = blockIdx.x; token < p.tokens; token += gridDim.x) {
#pragma unroll 1
    for (int64_t first = 0; first == 0 || first < p.pairs; first += kRopeTablePairs) {
      const int count = static_cast<int>(min(p.pairs - first, int64_t{kRopeTablePairs}));
      __syncthreads();  // the last table has been read
      if (threadIdx.y == 0) make_table(p, table, token, first, count);
      __syncthreads();
#pragma unroll 1
      for (int64_t batch = 0; batch < p.batch; ++batch) {
        int64_t x = token * p.x_strides[0], output = token * p.output_strides[0];
        batch_offsets(p, batch, &x, &output);
#pragma unroll 1
        for (int64_t head = first_head + threadIdx.y; head < end_head; head += blockDim.y) {
          const int64_t from = x + head * p.x_strides[1], to = output + head * p.output_strides[1];
          rotate(p, table, from, to, first, count);
          if (first == 0 && (p.x != p.output || p.x_dtype != p.output_dtype)) copy_rest(p, from, to);
        }
      }
    }
  }
}
