#include "../../call.h"

namespace bitloom::node {

// silu(x, output, run)
bool read_silu(Arguments& arguments, bl_silu_args* args) {
  return arguments.tensor("x", &args->x) && arguments.tensor("output", &args->output);
}

// gelu(x, output, approximation, run)
bool read_gelu(Arguments& arguments, bl_gelu_args* args) {
  return arguments.tensor("x", &args->x) && arguments.tensor("output", &args->output) &&
         arguments.integer("approximation", &args->approximation);
}

namespace {

// swiglu, add, mul(left, right, output, run)
bool read_binary(Arguments& arguments, bl_binary_args* args) {
  return arguments.tensor("left", &args->left) && arguments.tensor("right", &args->right) &&
         arguments.tensor("output", &args->output);
}

}  // namespace

bool read_swiglu(Arguments& arguments, bl_swiglu_args* args) { return read_binary(arguments, args); }
bool read_add(Arguments& arguments, bl_add_args* args) { return read_binary(arguments, args); }
bool read_mul(Arguments& arguments, bl_mul_args* args) { return read_binary(arguments, args); }

}  // namespace bitloom::node
