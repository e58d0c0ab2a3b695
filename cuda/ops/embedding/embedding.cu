// embedding: output[row, :] = decode(table[ids[row], :]). Blocks along x share a row, along y take rows. A row whose id
// is outside the table becomes NaN: the host can't look at ids without waiting.
#include "../../tile/decode_weight.cuh"
#include "../../tile/typed.cuh"
#include "config.h"

extern "C" __global__ void __launch_bounds__(bitloom::cuda::kEmbeddingThreads)
    embedding(const __grid_constant__ bitloom::cuda::EmbeddingParams p) {
  using namespace bitloom::cuda;
#pragma unroll 1
  for (int64_t row = blockIdx.y; row < p.rows.count; row += gridDim.y) {
    const int32_t id = *reinterpret_cast<const int32_t*>(row_at(p.rows, p.ids, row));
    const bool known = id >= 0 && id < p.table.rows;
    char* output = row_at(p.rows, p.output, row);
#pragma unroll 1
    for (int64_t col = int64_t{blockIdx.x} * blockDim.x + threadIdx.x; col < p.rows.length;
         col += int64_t{gridDim.x} * blockDim.x) {
      const float value = known ? decode_weight(p.table, id, col) : __int_as_float(0x7fc00000);
      store_element(p.output.dtype, output, col * p.output.stride, value);
    }
  }
}
