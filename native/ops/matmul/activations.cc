#include "activations.h"

#include <algorithm>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "tables.h"

namespace bitloom {
namespace {

// Elements below which waking other threads costs more than it brings.
constexpr int64_t kSerialElements = int64_t{1} << 14;

// starts and moments of a row, per g codes; and negatives where a lut kernel needs them.
void set_sums(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t stride, const int8_t* codes,
              const float* scales, int32_t* starts, float* moments, int32_t* negatives) {
  const int64_t g = std::min(kGroup, f.group), count = stride / g;
  if (g == kGroup) {
    // Where nobody needs negatives, they stand for a moment where moments will.
    kernel.sum_codes(codes, stride, starts, negatives != nullptr ? negatives : reinterpret_cast<int32_t*>(moments));
  } else {
    for (int64_t i = 0; i < count; ++i) {
      int32_t sum = 0;
      for (int64_t k = i * g; k < i * g + g; ++k) sum += codes[k];
      starts[i] = sum;
    }
  }
  for (int64_t i = 0; i < count; ++i) {
    moments[i] = scales[i * g / kGroup] * static_cast<float>(starts[i]);
    starts[i] *= -f.zero;
  }
}

}  // namespace

ActivationsPlan::ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t m_)
    : m(m_), stride(padded_k(f.cols)), values_bytes(0), halves_bytes(0), codes_bytes(0), scales_bytes(0),
      sums_bytes(0), row_bytes(align_up(static_cast<uint64_t>(stride) * sizeof(float))),
      tables_bytes{}, negatives_bytes(0), tasks(std::min<int64_t>(m, 16)) {
  const uint64_t elements = static_cast<uint64_t>(m * stride);
  if (kernel.compute == BL_COMPUTE_f32) values_bytes = align_up(elements * sizeof(float));
  if (kernel.compute == BL_COMPUTE_bf16) halves_bytes = align_up(elements * sizeof(uint16_t));
  if (kernel.compute == BL_COMPUTE_i8) {
    const uint64_t g = static_cast<uint64_t>(std::min(kGroup, f.group));
    codes_bytes = align_up(elements);
    scales_bytes = align_up(elements / kGroup * sizeof(float));
    sums_bytes = align_up(elements / g * sizeof(int32_t));
    if (kernel.algorithm == BL_ALGORITHM_lut) {
      negatives_bytes = align_up(elements / kGroup * sizeof(int32_t));
      for (int32_t p = 0; p < f.plane_count; ++p) {
        const int32_t bits = f.planes[p].bits;
        tables_bytes[bits - 1] = elements / kGroup * static_cast<uint64_t>(table_bytes(bits));
      }
    }
  }
}

uint64_t ActivationsPlan::total() const {
  const uint64_t rows = values_bytes != 0 ? 0 : static_cast<uint64_t>(tasks) * row_bytes;
  return values_bytes + halves_bytes + codes_bytes + scales_bytes + 2 * sums_bytes + negatives_bytes + tables_bytes[0] +
         tables_bytes[1] + rows;
}

Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run_in, const Rows& a, uint8_t* memory) {
  const auto take = [&memory](uint64_t bytes) {
    uint8_t* taken = bytes == 0 ? nullptr : memory;
    memory += bytes;
    return taken;
  };
  float* values = reinterpret_cast<float*>(take(plan.values_bytes));
  uint16_t* halves = reinterpret_cast<uint16_t*>(take(plan.halves_bytes));
  int8_t* codes = reinterpret_cast<int8_t*>(take(plan.codes_bytes));
  float* scales = reinterpret_cast<float*>(take(plan.scales_bytes));
  int32_t* starts = reinterpret_cast<int32_t*>(take(plan.sums_bytes));
  float* moments = reinterpret_cast<float*>(take(plan.sums_bytes));
  int32_t* negatives = reinterpret_cast<int32_t*>(take(plan.negatives_bytes));
  uint8_t* tables[2] = {take(plan.tables_bytes[0]), take(plan.tables_bytes[1])};
  uint8_t* rows_memory = memory;
  const int64_t k = f.cols, stride = plan.stride, g = std::min(kGroup, f.group);
  bl_run run = run_in;
  if (plan.m * k < kSerialElements) run.threads = 1;
  parallel_for(run, plan.tasks, [&](int64_t task) {
    float* converted = reinterpret_cast<float*>(rows_memory + static_cast<uint64_t>(task) * plan.row_bytes);
    for (int64_t m = plan.m * task / plan.tasks; m < plan.m * (task + 1) / plan.tasks; ++m) {
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
      int8_t* row_codes = codes + m * stride;
      float* row_scales = scales + m * stride / kGroup;
      kernel.pack(row, k, row_codes, row_scales);
      set_sums(kernel, f, stride, row_codes, row_scales, starts + m * stride / g, moments + m * stride / g,
               negatives == nullptr ? nullptr : negatives + m * stride / kGroup);
      for (int32_t bits = 1; bits <= 2; ++bits) {
        if (tables[bits - 1] == nullptr) continue;
        kernel.build_tables(row_codes, stride, bits, tables[bits - 1] + m * stride / kGroup * table_bytes(bits));
      }
    }
  });
  return {stride, values, halves, codes, scales, starts, moments, {tables[0], tables[1]}, negatives};
}

}  // namespace bitloom
