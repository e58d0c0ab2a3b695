// What rope and attention check alike: the numbers of a rotation.
#pragma once

#include "../../base/error.h"
#include "../../include/bitloom.h"

namespace bitloom {

// Where the numbers stand, for messages: "rope: theta", "attention: rope.theta".
struct RopeNames {
  const char* op;
  const char* before;        // "" or "rope."
  const char* freq_factors;  // with what is before
};

// Checks mode, rotary_dim, theta, the scaling and freq_factors (those on a device are not read), and fills in
// what zero stands for.
bl_status check_rope_numbers(const RopeNames& names, int64_t head_dim, int32_t device, bl_rope_args& args,
                             bl_error* error);

}  // namespace bitloom
