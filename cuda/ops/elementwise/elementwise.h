// The host side that the elementwise operators share.
#pragma once

#include "../../driver/queue.h"

namespace bitloom::cuda {

enum class Elementwise {
#define BL_CUDA_ELEMENTWISE(name, is_binary, value) name,
#include "kernels.inc"
#undef BL_CUDA_ELEMENTWISE
};

// right: data null for one argument, else of a shape that is a suffix of left's.
bl_status run_elementwise(Queue& queue, Elementwise op, const char* name, const bl_tensor& left,
                          const bl_tensor& right, const bl_tensor& output, bl_error* error);

}  // namespace bitloom::cuda
