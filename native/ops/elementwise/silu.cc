// silu: the entry point; see elementwise.cc.
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_silu(const bl_silu_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_silu_args, "silu", call);
  return run_unary(Elementwise::silu, "silu", call.run, call.x, call.output, error);
}
