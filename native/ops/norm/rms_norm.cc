// rms_norm: the entry point; see norm.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_rms_norm(const bl_rms_norm_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_rms_norm_args, "rms_norm", call);
  const NormCall norm{Norm::rms_norm, "rms_norm",  call.run,    call.x,
                      call.weight,    bl_tensor{}, call.output, call.epsilon};
  BL_RETURN_IF_ERROR(check_norm(norm, error));
  BL_RUN_ON_DEVICE(rms_norm, call);
  return run_norm(norm, error);
}
