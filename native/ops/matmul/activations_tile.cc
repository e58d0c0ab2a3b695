// Activations for algorithm tile: in tiles of 16 rows, rows that int8 does not suit left out.
#include <algorithm>
#include <cstring>

#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "activations.h"
#include "tile.h"

namespace bitloom {
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
int64_t select_rows(int64_t stride, int64_t count, int64_t* rows, int8_t* codes, float* scales,
                    TileSums* sums) {
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

// Calls pack(memory of the task, row of the input, index) for every row.
template <typename Pack>
void for_each_row(const ActivationsPlan& plan, const bl_run& run_in, int64_t k, const int64_t* rows,
                  int64_t count, uint8_t* memory, const Pack& pack) {
  bl_run run = run_in;
  if (count * k < kSerialElements) run.threads = 1;
  const int64_t tasks = std::min(plan.tasks, count);
  parallel_for(run, tasks, [&](int64_t task) {
    uint8_t* own = memory + static_cast<uint64_t>(task) * plan.task_bytes();
    for (int64_t i = count * task / tasks; i < count * (task + 1) / tasks; ++i) pack(own, rows[i], i);
  });
}

const float* arranged(const ActivationsPlan& plan, const Input& input, int64_t m, uint8_t* own) {
  return input.arranged(m, reinterpret_cast<float*>(own), reinterpret_cast<float*>(own + plan.row_bytes));
}

// A row of codes [stride], padded with zeros, to where it begins in its tile.
void place_row(const int8_t* row, int64_t stride, int8_t* codes, TileSums* sums) {
  for (int64_t k = 0; k < stride; k += kStep)
    std::memcpy(codes + tile_at(0, k, stride, kStep), row + k, kStep);
  for (int64_t begin = 0; begin < stride; begin += kTileDepth, ++sums) {
    *sums = {};
    for (int64_t k = begin; k < std::min(begin + kTileDepth, stride); ++k) {
      sums->sum += row[k];
      sums->squares += row[k] * row[k];
      sums->nonzero += row[k] != 0;
    }
  }
}

// x to codes [stride] in the caller's way.
void round_row(const RowKernels& rows, const Rounding& rounding, const float* x, int64_t k, int64_t stride,
               int8_t* codes, float* scales) {
  std::memset(codes, 0, static_cast<size_t>(stride));
  if (rounding.scale_per_row) {
    std::fill(scales, scales + tile_blocks(stride), quantize_group(rows, x, k, rounding.levels, codes));
    return;
  }
  for (int64_t begin = 0; begin < stride; begin += kTileDepth) {
    const int64_t count = std::clamp<int64_t>(k - begin, 0, kTileDepth);
    scales[begin / kTileDepth] = quantize_group(rows, x + begin, count, rounding.levels, codes + begin);
  }
}

TileActivations pack_halves(const MatmulKernelRow& kernel, int64_t k, const ActivationsPlan& plan,
                            const bl_run& run, const Input& input, const int64_t* rows, int64_t count,
                            uint8_t* memory) {
  const int64_t stride = plan.stride;
  uint16_t* halves = reinterpret_cast<uint16_t*>(memory);
  for_each_row(
      plan, run, k, rows, count, memory + plan.halves_bytes, [&](uint8_t* own, int64_t m, int64_t i) {
        kernel.pack_tile_halves(arranged(plan, input, m, own), k, halves + tile_at(i, 0, stride, kStep / 2));
      });
  for (int64_t i = count; i < (count + 15) / 16 * 16; ++i) {
    for (int64_t at = 0; at < stride; at += kStep / 2) {
      std::memset(halves + tile_at(i, at, stride, kStep / 2), 0, kStep);
    }
  }
  Activations packed{};
  packed.stride = stride;
  packed.halves = halves;
  return {packed, count};
}

}  // namespace

TileActivations pack_tile_activations(const MatmulKernelRow& kernel, const PanelFormat& f,
                                      const ActivationsPlan& plan, const bl_run& run, const Input& input,
                                      const Rounding& rounding, int64_t* rows, int64_t count,
                                      uint8_t* memory) {
  const int64_t k = f.cols, stride = plan.stride, blocks = tile_blocks(stride);
  if (kernel.compute == BL_COMPUTE_bf16) return pack_halves(kernel, k, plan, run, input, rows, count, memory);
  int8_t* codes = reinterpret_cast<int8_t*>(memory);
  float* scales = reinterpret_cast<float*>(memory += plan.codes_bytes);
  int32_t* starts = reinterpret_cast<int32_t*>(memory += plan.scales_bytes);
  float* moments = reinterpret_cast<float*>(memory += plan.sums_bytes);
  TileSums* sums = reinterpret_cast<TileSums*>(memory += plan.sums_bytes);
  memory += plan.tile_sums_bytes;
  // Codes with a scale per 32 are no codes for tiles, which have one per kTileDepth: they are rounded anew.
  const bool given = input.is_codes() && input.scale_per_row();
  const RowKernels& kernels = row_kernels(isa_of(run));
  for_each_row(plan, run, k, rows, count, memory, [&](uint8_t* own, int64_t m, int64_t i) {
    int8_t* out = codes + tile_at(i, 0, stride, kStep);
    float* row_scales = scales + i * blocks;
    if (!given && rounding.own) {
      kernel.pack_tile_codes(arranged(plan, input, m, own), k, out, row_scales, sums + i * blocks);
      return;
    }
    int8_t* row = reinterpret_cast<int8_t*>(own + 2 * plan.row_bytes);
    if (given) {
      std::memset(row + k, 0, static_cast<size_t>(stride - k));
      input.codes(m, row, row_scales);
      std::fill(row_scales, row_scales + blocks, row_scales[0]);
    } else {
      round_row(kernels, rounding, arranged(plan, input, m, own), k, stride, row, row_scales);
    }
    place_row(row, stride, out, sums + i * blocks);
  });
  const bool keep = given || !rounding.own;
  const int64_t kept = keep ? count : select_rows(stride, count, rows, codes, scales, sums);
  for (int64_t i = 0; i < kept * blocks; ++i) {
    starts[i] = -128 * sums[i].sum;
    moments[i] = scales[i] * static_cast<float>(sums[i].sum);
  }
  for (int64_t i = count; i < (count + 15) / 16 * 16; ++i) {
    for (int64_t at = 0; at < stride; at += kStep)
      std::memset(codes + tile_at(i, at, stride, kStep), 0, kStep);
  }
  Activations packed{};
  packed.stride = stride;
  packed.codes = codes;
  packed.scales = scales;
  packed.starts = starts;
  packed.moments = moments;
  return {packed, kept};
}

}  // namespace bitloom
