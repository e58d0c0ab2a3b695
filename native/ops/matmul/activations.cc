#include "activations.h"

#include <algorithm>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"

namespace bitloom {
namespace {

// Elements below which waking other threads costs more than it brings.
constexpr int64_t kSerialElements = int64_t{1} << 14;

}  // namespace

ActivationsPlan::ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t m_,
                                 const PreparedHeader* header)
    : m(m_),
      stride(padded_k(f.cols)),
      values_bytes(0),
      halves_bytes(0),
      packed_bytes(0),
      sums_bytes(0),
      row_bytes(align_up(static_cast<uint64_t>(stride) * sizeof(float))),
      prepared(m, f.cols,
               header != nullptr                      ? header->tables
               : kernel.algorithm == BL_ALGORITHM_lut ? table_kinds_of(f)
                                                      : 0),
      given(header != nullptr),
      tasks(std::min<int64_t>(m, 16)) {
  const uint64_t elements = static_cast<uint64_t>(m * stride);
  if (kernel.compute == BL_COMPUTE_f32) values_bytes = align_up(elements * sizeof(float));
  if (kernel.compute == BL_COMPUTE_bf16) halves_bytes = align_up(elements * sizeof(uint16_t));
  if (kernel.compute == BL_COMPUTE_i8) {
    if (!given) packed_bytes = prepared.bytes;
    sums_bytes = align_up(elements / static_cast<uint64_t>(std::min(kGroup, f.group)) * sizeof(int32_t));
  }
}

uint64_t ActivationsPlan::total() const {
  if (given) return 2 * sums_bytes;
  const uint64_t rows = values_bytes != 0 ? 0 : static_cast<uint64_t>(tasks) * row_bytes;
  return values_bytes + halves_bytes + packed_bytes + 2 * sums_bytes + rows;
}

Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run_in, const Rows& a, const void* prepared, uint8_t* memory) {
  const auto take = [&memory](uint64_t bytes) {
    uint8_t* taken = bytes == 0 ? nullptr : memory;
    memory += bytes;
    return taken;
  };
  float* values = reinterpret_cast<float*>(take(plan.values_bytes));
  uint16_t* halves = reinterpret_cast<uint16_t*>(take(plan.halves_bytes));
  int32_t* starts = reinterpret_cast<int32_t*>(take(plan.sums_bytes));
  float* moments = reinterpret_cast<float*>(take(plan.sums_bytes));
  uint8_t* packed = take(plan.packed_bytes);
  const uint8_t* read = plan.given ? static_cast<const uint8_t*>(prepared) : packed;
  uint8_t* rows_memory = memory;
  const int64_t k = f.cols, stride = plan.stride;
  const PrepareKernels kernels = prepare_kernels(kernel.isa);
  bl_run run = run_in;
  if (plan.m * k < kSerialElements) run.threads = 1;
  parallel_for(run, plan.tasks, [&](int64_t task) {
    float* converted = reinterpret_cast<float*>(rows_memory + static_cast<uint64_t>(task) * plan.row_bytes);
    for (int64_t m = plan.m * task / plan.tasks; m < plan.m * (task + 1) / plan.tasks; ++m) {
      if (plan.given) {
        set_sums(plan.prepared, read, f, m, starts, moments);
        continue;
      }
      if (values != nullptr) {
        float* row = values + m * stride;
        a.load(m, row);
        std::memset(row + k, 0, static_cast<size_t>(stride - k) * sizeof(float));
        continue;
      }
      float* row = a.direct(m);
      if (row == nullptr) a.load(m, row = converted);
      if (halves != nullptr) {
        uint16_t* out = halves + m * stride;
        for (int64_t i = 0; i < k; ++i) out[i] = f32_to_bf16(load_as<float>(row + i));
        std::memset(out + k, 0, static_cast<size_t>(stride - k) * sizeof(uint16_t));
        continue;
      }
      prepare_row(kernels, plan.prepared, m, row, packed);
      set_sums(plan.prepared, packed, f, m, starts, moments);
    }
  });
  if (read != nullptr) return activations_of(plan.prepared, read, starts, moments);
  return {stride, values, halves, nullptr, nullptr, nullptr, nullptr, {}, nullptr};
}

}  // namespace bitloom
