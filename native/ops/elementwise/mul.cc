// mul: the entry point; see elementwise.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_mul(const bl_mul_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_mul_args, "mul", call);
  BL_RETURN_IF_ERROR(check_binary("mul", true /* repeat */, call, error));
  BL_RUN_ON_DEVICE(mul, call);
  run_binary(Elementwise::mul, "mul", call);
  return BL_STATUS_ok;
}
