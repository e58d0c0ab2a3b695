// swiglu: the entry point; see elementwise.cc.
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_swiglu(const bl_swiglu_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_swiglu_args, "swiglu", call);
  return run_binary(Elementwise::swiglu, "swiglu", false /* repeat */, call, error);
}
