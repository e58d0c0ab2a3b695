// The checks of moe_route's arguments, but for the values of tensors.
#pragma once

#include "../../base/error.h"
#include "../../include/bitloom_moe.h"

namespace bitloom {

bl_status validate_route(const bl_moe_route_args& args, bl_error* error);

}  // namespace bitloom
