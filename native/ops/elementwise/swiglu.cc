// swiglu: the entry point; see elementwise.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_swiglu(const bl_swiglu_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_swiglu_args, "swiglu", call);
  BL_RETURN_IF_ERROR(check_binary("swiglu", false /* repeat */, call, error));
  BL_RUN_ON_DEVICE(swiglu, call);
  run_binary(Elementwise::swiglu, "swiglu", call);
  return BL_STATUS_ok;
}
