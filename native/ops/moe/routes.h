// Which tokens go to which expert, in the order in which they are added up.
#pragma once

#include <cstdint>

#include "../../base/error.h"
#include "../../include/bitloom_moe.h"

namespace bitloom {

// Rows [begin, begin + count) of the sorted routes, which go to one expert.
struct ExpertRows {
  int64_t expert, begin, count;
};

// Sorted by expert, then by token, then by k; routes of -1 left out. Memory grows with the routes, never with
// the experts.
struct SortedRoutes {
  int64_t count;    // of routes
  int64_t experts;  // that any token goes to
  int32_t* tokens;  // [count]
  float* weights;   // [count]
  ExpertRows* of;   // [experts]
};

uint64_t sorted_routes_bytes(const bl_moe_forward_args& args);
// An index outside [-1, num_experts) is an error. `memory`: sorted_routes_bytes(), aligned to 64.
bl_status sort_routes(const bl_moe_forward_args& args, uint8_t* memory, SortedRoutes* sorted,
                      bl_error* error);

}  // namespace bitloom
