// The checks of matmul's arguments, all made before anything is written.
#pragma once

#include "../../base/tensor.h"

namespace bitloom {

bl_status validate_matmul(const bl_matmul_args& args, bl_error* error);

}  // namespace bitloom
