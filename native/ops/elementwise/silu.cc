// silu: the entry point; see elementwise.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_silu(const bl_silu_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_silu_args, "silu", call);
  BL_RETURN_IF_ERROR(check_unary("silu", call.x, call.output, error));
  BL_RUN_ON_DEVICE(silu, call);
  run_elementwise({Elementwise::silu, "silu", call.run, call.x, bl_tensor{}, call.output});
  return BL_STATUS_ok;
}
