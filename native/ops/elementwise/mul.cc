// mul: the entry point; see elementwise.cc.
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_mul(const bl_mul_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_mul_args, "mul", call);
  return run_binary(Elementwise::mul, "mul", true /* repeat */, call, error);
}
