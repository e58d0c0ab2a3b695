// The checks of matmul's arguments, all made before anything is written.
#pragma once

#include "../../base/tensor.h"
#include "prepared.h"

namespace bitloom {

// Where args->prepared is given, *header becomes a copy of its header, args->a a tensor of the activations'
// shape without data, and prepared_bytes what belongs to them.
bl_status validate_matmul(bl_matmul_args* args, PreparedHeader* header, bl_error* error);

// Parts of it. Every index of a contiguous i32 vector in [least, limit).
bl_status check_indices(const char* name, const bl_tensor& tensor, int64_t least, int64_t limit,
                        bl_error* error);
// The low-rank term, adapters and outliers.
bl_status check_additions(const bl_matmul_args& args, bl_error* error);

}  // namespace bitloom
