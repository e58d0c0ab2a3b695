// prepare_activations: activations in int8 (and their tables) once for several matmuls; with what precedes
// them, a row at a time, so that neither the normalized nor the gated rows go through memory.
#include <algorithm>
#include <cmath>

#include "../../base/backend.h"
#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "../elementwise/kernel.h"
#include "../norm/kernel.h"
#include "prepared.h"

namespace bitloom {
namespace {

constexpr int64_t kSerialElements = int64_t{1} << 14;  // as activations.cc
constexpr int64_t kMaxTasks = 16;                      // bounds the scratch

bool has_gate(const bl_prepare_activations_args& args) {
  return args.gate.data != nullptr || args.gate.rank != 0;
}

bl_status check_outside(const bl_prepare_activations_args& args, uint64_t bytes, const char* name,
                        const bl_tensor& input, bl_error* error) {
  BL_CHECK(!overlaps(args.output, bytes, input.data, input.data == nullptr ? 0 : input.bytes),
           invalid_argument, "prepare_activations: output overlaps %s", name);
  return BL_STATUS_ok;
}

bl_status validate(const bl_prepare_activations_args& args, bl_error* error) {
  const char* op = "prepare_activations";
  BL_RETURN_IF_ERROR(check_tensor({op, "x"}, args.x, kFloatTypes, 1, BL_MAX_RANK, error));
  if (has_gate(args)) {
    BL_RETURN_IF_ERROR(check_tensor({op, "gate"}, args.gate, kFloatTypes, 1, BL_MAX_RANK, error));
    BL_RETURN_IF_ERROR(check_same_shape({op, "gate"}, args.gate, "x", args.x, error));
  }
  const int64_t cols = args.x.shape[args.x.rank - 1];
  BL_CHECK(args.norm == 0 || args.norm == 1, invalid_argument, "%s: norm is %d, expected 0 or 1", op,
           args.norm);
  BL_CHECK(args.norm == 1 || args.norm_weight.data == nullptr, invalid_argument,
           "%s: norm_weight is given, expected none where norm is 0", op);
  BL_RETURN_IF_ERROR(
      check_optional_vector({op, "norm_weight"}, args.norm_weight, kFloatTypes, cols, "columns of x", error));
  BL_CHECK(args.norm == 0 || (std::isfinite(args.epsilon) && args.epsilon >= 0), invalid_argument,
           "%s: epsilon is %g, expected a finite number of at least 0", op,
           static_cast<double>(args.epsilon));
  BL_CHECK((args.tables & ~kAllTables) == 0, invalid_argument, "%s: tables is %d, expected 0 to 15", op,
           args.tables);
  const uint64_t bytes = PreparedLayout(Rows(args.x).count, cols, args.tables).bytes;
  BL_CHECK(bytes != 0, invalid_shape, "%s: x is too large", op);
  BL_CHECK(args.output != nullptr, invalid_argument, "%s: output is null", op);
  BL_CHECK(args.output_bytes >= bytes, buffer_too_small, "%s: output has %llu bytes, expected %llu", op,
           static_cast<unsigned long long>(args.output_bytes), static_cast<unsigned long long>(bytes));
  BL_CHECK(reinterpret_cast<uintptr_t>(args.output) % alignof(PreparedHeader) == 0, invalid_argument,
           "%s: output is at an address that is no multiple of %zu", op, alignof(PreparedHeader));
  BL_RETURN_IF_ERROR(check_outside(args, bytes, "x", args.x, error));
  if (has_gate(args)) BL_RETURN_IF_ERROR(check_outside(args, bytes, "gate", args.gate, error));
  return check_outside(args, bytes, "norm_weight", args.norm_weight, error);
}

// A row of a as f32: itself where it is, or in `memory`.
const float* row_of(const Rows& rows, int64_t row, float* memory) {
  if (const float* direct = rows.direct(row)) return direct;
  rows.load(row, memory);
  return memory;
}

}  // namespace
}  // namespace bitloom

extern "C" {

bl_status bl_prepare_activations(const bl_prepare_activations_args* args, bl_error* error) {
  using namespace bitloom;
  BL_READ_ARGS(bl_prepare_activations_args, "prepare_activations", call);
  BL_RUN_ON_DEVICE(prepare_activations, call);
  BL_RETURN_IF_ERROR(validate(call, error));
  const Rows x(call.x);
  const bool gated = has_gate(call);
  const Rows gate(gated ? call.gate : call.x);
  const PreparedLayout layout(x.count, x.length, call.tables);
  uint8_t* output = static_cast<uint8_t*>(call.output);
  // Per task two rows: y, and gate where it is not f32. One more for the norm's weight.
  const uint64_t row_bytes = align_up(static_cast<uint64_t>(layout.stride) * sizeof(float));
  const int64_t tasks = x.count * x.length < kSerialElements ? 1 : std::min(x.count, kMaxTasks);
  const Scratch scratch(row_bytes * (2 * static_cast<uint64_t>(tasks) + 1));
  BL_CHECK(scratch.data() != nullptr, out_of_memory,
           "prepare_activations: cannot allocate %llu bytes of workspace",
           static_cast<unsigned long long>(row_bytes * (2 * static_cast<uint64_t>(tasks) + 1)));
  const float* weight = nullptr;
  if (call.norm_weight.data != nullptr && x.length > 0) {
    float* last = reinterpret_cast<float*>(scratch.data() + 2 * static_cast<uint64_t>(tasks) * row_bytes);
    weight = row_of(Rows(call.norm_weight), 0, last);
  }
  const PrepareKernels kernels = prepare_kernels(isa_of(call.run));
  const NormKernel norm = norm_kernel(Norm::rms_norm, "rms_norm", call.run, x.count, x.length);
  const ElementwiseKernel swiglu = elementwise_kernel(Elementwise::swiglu, isa_of(call.run));
  parallel_for(call.run, x.length == 0 ? 0 : tasks, [&](int64_t task) {
    float* y = reinterpret_cast<float*>(scratch.data() + 2 * static_cast<uint64_t>(task) * row_bytes);
    float* converted = y + row_bytes / sizeof(float);
    for (int64_t row = x.count * task / tasks; row < x.count * (task + 1) / tasks; ++row) {
      const float* in = row_of(x, row, y);
      if (gated) {
        swiglu(row_of(gate, row, converted), in, y, x.length);
        in = y;
      }
      if (call.norm != 0) {
        norm(in, weight, nullptr, y, x.length, call.epsilon);
        in = y;
      }
      prepare_row(kernels, layout, row, in, output);
    }
  });
  const PreparedHeader header{kPreparedMagic, x.count, x.length, call.tables, 0, layout.bytes, {}};
  __builtin_memcpy(output, &header, sizeof(header));
  return BL_STATUS_ok;
}

uint64_t bl_prepare_activations_bytes(int64_t m, int64_t k, int32_t tables) {
  using namespace bitloom;
  return (tables & ~kAllTables) != 0 ? 0 : PreparedLayout(m, k, tables).bytes;
}

}  // extern "C"
