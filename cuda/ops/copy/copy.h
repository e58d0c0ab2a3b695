// copy: an operator between device tensors that the C ABI does not have (yet): views made contiguous, types
// changed.
#pragma once

#include "../../driver/queue.h"

namespace bitloom::cuda {

// output = input, of equal shape and any strides; they must not overlap. Equal types are copied bit for bit;
// f32, f16, bf16, i8 and i32 are converted: to floats to nearest even, to integers to nearest even within the
// type's range, NaN to 0.
struct CopyArgs {
  bl_tensor input;
  bl_tensor output;
};

bl_status copy(Queue& queue, const CopyArgs& args, bl_error* error);

}  // namespace bitloom::cuda
