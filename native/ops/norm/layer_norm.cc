// layer_norm: the entry point; see norm.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_layer_norm(const bl_layer_norm_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_layer_norm_args, "layer_norm", call);
  const NormCall norm{Norm::layer_norm, "layer_norm", call.run,    call.x,
                      call.weight,      call.bias,    call.output, call.epsilon};
  BL_RETURN_IF_ERROR(check_norm(norm, error));
  BL_RUN_ON_DEVICE(layer_norm, call);
  return run_norm(norm, error);
}
