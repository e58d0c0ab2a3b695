// add: the entry point; see elementwise.cc.
#include "../../base/backend.h"
#include "../../base/tensor.h"
#include "kernel.h"

extern "C" bl_status bl_add(const bl_add_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_add_args, "add", call);
  BL_RETURN_IF_ERROR(check_binary("add", true /* repeat */, call, error));
  BL_RUN_ON_DEVICE(add, call);
  run_binary(Elementwise::add, "add", call);
  return BL_STATUS_ok;
}
