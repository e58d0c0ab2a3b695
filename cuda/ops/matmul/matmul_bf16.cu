// The module `matmul_bf16`: products of bf16.
#include "../../tile/decode_bf16.cuh"
#include "product_kernels.cuh"

using namespace bitloom::cuda;

#include "kernels_bf16.inc"
