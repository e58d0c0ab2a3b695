// add: the entry point; see elementwise.cc.
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_add(const bl_add_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_add_args, "add", call);
  return run_binary(Elementwise::add, "add", true /* repeat */, call, error);
}
