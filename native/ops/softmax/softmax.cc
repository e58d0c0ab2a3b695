// softmax: validate, choose a kernel, partition the rows, run.
#include <cmath>

#include "../../base/backend.h"
#include "../choose.h"
#include "../rows.h"
#include "kernel.h"

namespace bitloom {

namespace {

const KernelRow<Softmax, SoftmaxKernel> kKernels[] = {
#define BL_SOFTMAX_KERNEL(op, isa) {Softmax::op, #op "_f32_" #isa, BL_ISA_##isa, isa::op##_f32},
#include "kernels.inc"
#undef BL_SOFTMAX_KERNEL
};

bl_status validate(const bl_softmax_args& args, bl_error* error) {
  const Argument output{"softmax", "output"};
  BL_RETURN_IF_ERROR(check_tensor({"softmax", "x"}, args.x, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_output(output, args.output, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_same_shape(output, args.output, "x", args.x, error));
  BL_RETURN_IF_ERROR(check_alias(output, args.output, "x", args.x, error));
  BL_CHECK(std::isfinite(args.scale) && args.scale != 0, invalid_argument,
           "softmax: scale is %g, expected a finite number other than 0", static_cast<double>(args.scale));
  return BL_STATUS_ok;
}

}  // namespace

}  // namespace bitloom

extern "C" bl_status bl_softmax(const bl_softmax_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_softmax_args, "softmax", call);
  BL_RETURN_IF_ERROR(validate(call, error));
  BL_RUN_ON_DEVICE(softmax, call);
  const Rows x(call.x);
  const SoftmaxKernel kernel = choose(kKernels, Softmax::softmax, "softmax", call.run, x.count, x.length).run;
  return run_rows(
      "softmax", call.run, x, Rows(call.output),
      [&](const float* in, float* out) { kernel(in, out, x.length, call.scale); }, error);
}
