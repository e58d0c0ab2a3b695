// What rms_norm and layer_norm share: validate, choose a kernel, convert the vectors, partition the rows,
// run.
#include <cmath>
#include <cstring>

#include "../choose.h"
#include "../rows.h"
#include "kernel.h"

namespace bitloom {

namespace {

const KernelRow<Norm, NormKernel> kKernels[] = {
#define BL_NORM_KERNEL(op, isa) {Norm::op, #op "_f32_" #isa, BL_ISA_##isa, isa::op##_f32},
#include "kernels.inc"
#undef BL_NORM_KERNEL
};

// Bytes to convert a vector into, 0 when it can be read where it is.
uint64_t converted_bytes(const bl_tensor& vector) {
  if (vector.data == nullptr) return 0;
  const Rows rows(vector);
  return rows.length == 0 || rows.direct(0) != nullptr
             ? 0
             : align_up(static_cast<uint64_t>(rows.length) * sizeof(float));
}

// The vector as f32, converted into `memory` where that is needed; null for one that is not given.
const float* converted(const bl_tensor& vector, uint8_t* memory) {
  if (vector.data == nullptr) return nullptr;
  const Rows rows(vector);
  if (converted_bytes(vector) == 0) return rows.direct(0);
  rows.load(0, reinterpret_cast<float*>(memory));
  return reinterpret_cast<float*>(memory);
}

}  // namespace

bl_status check_norm(const NormCall& call, bl_error* error) {
  const Argument output{call.name, "output"};
  BL_RETURN_IF_ERROR(check_tensor({call.name, "x"}, call.x, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_output(output, call.output, kFloatTypes, 1, BL_MAX_RANK, error));
  BL_RETURN_IF_ERROR(check_same_shape(output, call.output, "x", call.x, error));
  const int64_t length = call.x.shape[call.x.rank - 1];
  char size_name[32];
  std::snprintf(size_name, sizeof(size_name), "x.shape[%d]", call.x.rank - 1);
  BL_RETURN_IF_ERROR(check_alias(output, call.output, "x", call.x, error));
  const struct {
    const char* name;
    const bl_tensor& tensor;
  } vectors[] = {{"weight", call.weight}, {"bias", call.bias}};
  for (const auto& [name, tensor] : vectors) {
    BL_RETURN_IF_ERROR(
        check_optional_vector({call.name, name}, tensor, kFloatTypes, length, size_name, error));
    BL_RETURN_IF_ERROR(check_apart(output, call.output, name, tensor.data,
                                   tensor.data == nullptr ? 0 : length * dtype_bytes(tensor.dtype), error));
  }
  BL_CHECK(std::isfinite(call.epsilon) && call.epsilon >= 0, invalid_argument,
           "%s: epsilon is %g, expected a finite number of at least 0", call.name,
           static_cast<double>(call.epsilon));
  return BL_STATUS_ok;
}

NormKernel norm_kernel(Norm op, const char* name, const bl_run& run, int64_t rows, int64_t length) {
  return choose(kKernels, op, name, run, rows, length).run;
}

bl_status run_norm(const NormCall& call, bl_error* error) {
  const Rows x(call.x);
  if (x.count == 0 || x.length == 0) return BL_STATUS_ok;
  const NormKernel kernel = norm_kernel(call.op, call.name, call.run, x.count, x.length);
  const uint64_t weight_bytes = converted_bytes(call.weight);
  const uint64_t bytes = weight_bytes + converted_bytes(call.bias);
  alignas(kScratchAlignment) uint8_t small[64];
  const Scratch vectors(small, sizeof(small), bytes);
  BL_CHECK(vectors.data() != nullptr, out_of_memory, "%s: cannot allocate %llu bytes of workspace", call.name,
           static_cast<unsigned long long>(bytes));
  const float* weight = converted(call.weight, vectors.data());
  const float* bias = converted(call.bias, vectors.data() + weight_bytes);
  return run_rows(
      call.name, call.run, x, Rows(call.output),
      [&](const float* in, float* out) { kernel(in, weight, bias, out, x.length, call.epsilon); }, error);
}

}  // namespace bitloom
