// The checks of moe_forward's arguments, all made before anything is written.
#pragma once

#include "../../base/error.h"
#include "../../include/bitloom_moe.h"

namespace bitloom {

// Everything but the experts and what the indices say.
bl_status validate_forward(const bl_moe_forward_args& args, bl_error* error);

// An expert as it is used: moe_forward checks those that tokens go to.
bl_status validate_expert(const bl_moe_expert& expert, int64_t number, int64_t hidden, bl_error* error);

// The workspace against the experts that may be used: those of the indices, or, where these are more than
// experts, all. Before the routes are sorted, which takes that memory; an index that is no expert's is not
// looked at.
bl_status check_workspace_apart(const bl_moe_forward_args& args, bl_error* error);

// The memory of an expert against the output.
bl_status check_expert_apart(const bl_moe_expert& expert, int64_t number, const bl_tensor& output,
                             bl_error* error);

}  // namespace bitloom
