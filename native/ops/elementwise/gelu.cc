// gelu: the entry point; see elementwise.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_gelu(const bl_gelu_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_gelu_args, "gelu", call);
  BL_CHECK(call.approximation == BL_GELU_erf || call.approximation == BL_GELU_tanh, invalid_argument,
           "gelu: approximation is %d, expected 0 (erf) or 1 (tanh)", call.approximation);
  BL_RETURN_IF_ERROR(check_unary("gelu", call.x, call.output, error));
  BL_RUN_ON_DEVICE(gelu, call);
  const Elementwise op = call.approximation == BL_GELU_erf ? Elementwise::gelu_erf : Elementwise::gelu_tanh;
  run_elementwise({op, "gelu", call.run, call.x, bl_tensor{}, call.output});
  return BL_STATUS_ok;
}
