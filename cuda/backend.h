// What libbitloom_cuda offers to libbitloom: one function pointer per operator. Arguments have passed the
// checks of the C ABI's entry; data of tensors and weights is device memory, everything else that is pointed
// to is host memory.
#pragma once

#include "../native/include/bitloom_attention.h"
#include "driver/queue.h"

namespace bitloom::cuda {

#define BL_CUDA_OP(name) bl_status name(Queue& queue, const bl_##name##_args& args, bl_error* error);
#include "ops.inc"
#undef BL_CUDA_OP

}  // namespace bitloom::cuda
