#include "activations.h"

#include <algorithm>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "tables.h"
#include "tile.h"

namespace bitloom {
namespace {

// Elements below which waking other threads costs more than it brings.
constexpr int64_t kSerialElements = int64_t{1} << 14;

// starts and moments of a row, per g codes.
void set_sums(const PanelFormat& f, int64_t g, int64_t stride, const int8_t* codes, const float* scales,
              int32_t* starts, float* moments) {
  for (int64_t i = 0; i < stride / g; ++i) {
    int32_t sum = 0;
    for (int64_t k = i * g; k < i * g + g; ++k) sum += codes[k];
    starts[i] = -f.zero * sum;
    moments[i] = scales[i * g / kGroup] * static_cast<float>(sum);
  }
}

void set_negatives(int64_t stride, const int8_t* codes, int32_t* negatives) {
  for (int64_t i = 0; i < stride / kGroup; ++i) {
    int32_t sum = 0;
    for (int64_t k = i * kGroup; k < (i + 1) * kGroup; ++k) sum -= std::min<int32_t>(codes[k], 0);
    negatives[i] = sum;
  }
}

}  // namespace

ActivationsPlan::ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t m_)
    : m(m_), stride(padded_k(f.cols)), tile(kernel.algorithm == BL_ALGORITHM_tile), values_bytes(0),
      halves_bytes(0), codes_bytes(0), scales_bytes(0), sums_bytes(0),
      row_bytes(align_up(static_cast<uint64_t>(stride) * sizeof(float))), tile_sums_bytes(0),
      tables_bytes{}, negatives_bytes(0), tasks(std::min<int64_t>(m, 16)) {
  const uint64_t elements = static_cast<uint64_t>((tile ? (m + 15) / 16 * 16 : m) * stride);
  if (kernel.compute == BL_COMPUTE_f32) values_bytes = align_up(elements * sizeof(float));
  if (kernel.compute == BL_COMPUTE_bf16) halves_bytes = align_up(elements * sizeof(uint16_t));
  if (kernel.compute == BL_COMPUTE_i8 && tile) {
    const uint64_t blocks = static_cast<uint64_t>(m * tile_blocks(stride));
    codes_bytes = align_up(elements);
    scales_bytes = sums_bytes = align_up(blocks * sizeof(float));
    tile_sums_bytes = align_up(blocks * sizeof(TileSums));
  } else if (kernel.compute == BL_COMPUTE_i8) {
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
  return values_bytes + halves_bytes + codes_bytes + scales_bytes + 2 * sums_bytes + tile_sums_bytes + negatives_bytes +
         tables_bytes[0] + tables_bytes[1] + rows;
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
      set_sums(f, g, stride, row_codes, row_scales, starts + m * stride / g, moments + m * stride / g);
      if (negatives != nullptr) set_negatives(stride, row_codes, negatives + m * stride / kGroup);
      for (int32_t bits = 1; bits <= 2; ++bits) {
        if (tables[bits - 1] == nullptr) continue;
        kernel.build_tables(row_codes, stride, bits, tables[bits - 1] + m * stride / kGroup * table_bytes(bits));
      }
    }
  });
  return {stride, values, halves, codes, scales, starts, moments, {tables[0], tables[1]}, negatives};
}

namespace {

// Row `from` of packed tiles to row `to`.
void move_row(int64_t from, int64_t to, int64_t stride, int8_t* codes, float* scales, TileSums* sums) {
  for (int64_t k = 0; k < stride; k += kStep) {
    std::memcpy(codes + tile_at(to, k, stride, kStep), codes + tile_at(from, k, stride, kStep), kStep);
  }
  const int64_t blocks = tile_blocks(stride);
  std::copy_n(scales + from * blocks, blocks, scales + to * blocks);
  std::copy_n(sums + from * blocks, blocks, sums + to * blocks);
}

// Leaves out the rows that int8 does not suit; the last ones take their places.
int64_t select_rows(int64_t stride, int64_t count, int64_t* rows, int8_t* codes, float* scales, TileSums* sums) {
  const int64_t blocks = tile_blocks(stride);
  const auto suits = [&](int64_t i) {
    return predicted_error(sums + i * blocks, scales + i * blocks, blocks) <= kTileWorstError;
  };
  int64_t end = count;
  for (int64_t i = 0; i < end; ++i) {
    if (suits(i)) continue;
    while (end - 1 > i && !suits(end - 1)) --end;
    --end;
    if (end > i) {
      std::swap(rows[i], rows[end]);
      move_row(end, i, stride, codes, scales, sums);
    }
  }
  return end;
}

// Calls pack(row of a as f32, index) for every row.
template <typename Pack>
void for_each_row(const ActivationsPlan& plan, const bl_run& run_in, int64_t k, const Rows& a, const int64_t* rows,
                  int64_t count, uint8_t* memory, const Pack& pack) {
  bl_run run = run_in;
  if (count * k < kSerialElements) run.threads = 1;
  const int64_t tasks = std::min(plan.tasks, count);
  parallel_for(run, tasks, [&](int64_t task) {
    float* converted = reinterpret_cast<float*>(memory + static_cast<uint64_t>(task) * plan.row_bytes);
    for (int64_t i = count * task / tasks; i < count * (task + 1) / tasks; ++i) {
      float* row = a.direct(rows[i]);
      if (row == nullptr) a.load(rows[i], row = converted);
      pack(row, i);
    }
  });
}

}  // namespace

TileActivations pack_tile_activations(const MatmulKernelRow& kernel, const PanelFormat& f,
                                      const ActivationsPlan& plan, const bl_run& run, const Rows& a, int64_t* rows,
                                      int64_t count, uint8_t* memory) {
  const int64_t k = f.cols, stride = plan.stride, blocks = tile_blocks(stride);
  const int64_t padded = (count + 15) / 16 * 16;
  if (kernel.compute == BL_COMPUTE_bf16) {
    uint16_t* halves = reinterpret_cast<uint16_t*>(memory);
    for_each_row(plan, run, k, a, rows, count, memory + plan.halves_bytes, [&](const float* row, int64_t i) {
      kernel.pack_tile_halves(row, k, halves + tile_at(i, 0, stride, kStep / 2));
    });
    for (int64_t i = count; i < padded; ++i) {
      for (int64_t at = 0; at < stride; at += kStep / 2) {
        std::memset(halves + tile_at(i, at, stride, kStep / 2), 0, kStep);
      }
    }
    return {{stride, nullptr, halves, nullptr, nullptr, nullptr, nullptr, {}, nullptr}, count};
  }
  int8_t* codes = reinterpret_cast<int8_t*>(memory);
  float* scales = reinterpret_cast<float*>(memory += plan.codes_bytes);
  int32_t* starts = reinterpret_cast<int32_t*>(memory += plan.scales_bytes);
  float* moments = reinterpret_cast<float*>(memory += plan.sums_bytes);
  TileSums* sums = reinterpret_cast<TileSums*>(memory += plan.sums_bytes);
  memory += plan.tile_sums_bytes;
  for_each_row(plan, run, k, a, rows, count, memory, [&](const float* row, int64_t i) {
    kernel.pack_tile_codes(row, k, codes + tile_at(i, 0, stride, kStep), scales + i * blocks, sums + i * blocks);
  });
  const int64_t kept = select_rows(stride, count, rows, codes, scales, sums);
  for (int64_t i = 0; i < kept * blocks; ++i) {
    starts[i] = -128 * sums[i].sum;
    moments[i] = scales[i] * static_cast<float>(sums[i].sum);
  }
  for (int64_t i = count; i < padded; ++i) {
    for (int64_t at = 0; at < stride; at += kStep) std::memset(codes + tile_at(i, at, stride, kStep), 0, kStep);
  }
  return {{stride, nullptr, nullptr, codes, scales, starts, moments, {}, nullptr}, kept};
}

}  // namespace bitloom
