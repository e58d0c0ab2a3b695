#include "activations.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../base/scratch.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "round_e4m3.h"
#include "tables.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#elif defined(__aarch64__)
#include <arm_neon.h>
#endif

namespace bitloom {
namespace {

// sums[0, count / 8) of eight codes each; count a multiple of 64.
void sum_eights(const int8_t* codes, int64_t count, int32_t* sums) {
#if defined(__SSE2__)
  // vpsadbw sums bytes without sign: 128 is added to each code and 8 * 128 subtracted. (Summing code by code
  // took 3 of the 4 microseconds of a call's preparation for 4096 activations.)
  const __m128i flip = _mm_set1_epi8(static_cast<char>(0x80));
  const __m128i excess = _mm_set1_epi32(8 * 128);
  for (int64_t k = 0; k < count; k += 32) {
    const auto pair = [&](int64_t at) {
      const __m128i x = _mm_xor_si128(_mm_loadu_si128(reinterpret_cast<const __m128i*>(codes + at)), flip);
      return _mm_castsi128_ps(_mm_sad_epu8(x, _mm_setzero_si128()));
    };
    const __m128i four = _mm_castps_si128(_mm_shuffle_ps(pair(k), pair(k + 16), _MM_SHUFFLE(2, 0, 2, 0)));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(sums + k / 8), _mm_sub_epi32(four, excess));
  }
#elif defined(__aarch64__)
  const auto fours = [codes](int64_t k) { return vpaddlq_s16(vpaddlq_s8(vld1q_s8(codes + k))); };
  for (int64_t k = 0; k < count; k += 32) vst1q_s32(sums + k / 8, vpaddq_s32(fours(k), fours(k + 16)));
#else
  for (int64_t k = 0; k < count; ++k) sums[k / 8] = (k % 8 == 0 ? 0 : sums[k / 8]) + codes[k];
#endif
}

// starts and moments of a row, per group of 8 * kEights codes.
template <int kEights>
void set_sums_of(int32_t zero, int64_t stride, const int8_t* codes, const float* scales, int32_t* starts,
                 float* moments) {
  constexpr int64_t kPiece = 512;  // codes at a time
  int32_t eights[kPiece / 8];
  for (int64_t begin = 0; begin < stride; begin += kPiece) {
    const int64_t count = std::min(kPiece, stride - begin);
    sum_eights(codes + begin, count, eights);
    const int64_t first = begin / (8 * kEights);
    for (int64_t i = 0; i < count / (8 * kEights); ++i) {
      int32_t sum = 0;
      for (int part = 0; part < kEights; ++part) sum += eights[i * kEights + part];
      starts[first + i] = -zero * sum;
      moments[first + i] = scales[begin / kGroup + i * kEights / 4] * static_cast<float>(sum);
    }
  }
}

void set_row_sums(const PanelFormat& f, int64_t g, int64_t stride, const int8_t* codes, const float* scales,
                  int32_t* starts, float* moments) {
  (g == 32   ? set_sums_of<4>
   : g == 16 ? set_sums_of<2>
             : set_sums_of<1>)(f.zero, stride, codes, scales, starts, moments);
}

// One row to codes in the caller's way.
void round_row(const RowKernels& rows, const Rounding& rounding, const float* x, int64_t k, int64_t stride,
               int8_t* codes, float* scales) {
  std::memset(codes, 0, static_cast<size_t>(stride));
  if (rounding.scale_per_row) {
    std::fill(scales, scales + stride / kGroup, quantize_group(rows, x, k, rounding.levels, codes));
    return;
  }
  for (int64_t begin = 0; begin < stride; begin += kGroup) {
    const int64_t count = std::clamp<int64_t>(k - begin, 0, kGroup);
    scales[begin / kGroup] = quantize_group(rows, x + begin, count, rounding.levels, codes + begin);
  }
}

// One row of codes as it is given.
void copy_codes(const Input& input, int64_t m, int64_t k, int64_t stride, int8_t* codes, float* scales) {
  std::memset(codes + k, 0, static_cast<size_t>(stride - k));
  std::fill(scales, scales + stride / kGroup, 0.0f);
  input.codes(m, codes, scales);
  if (input.scale_per_row()) std::fill(scales + 1, scales + stride / kGroup, scales[0]);
}

// Activations that are prepared, with the sums that belong to the format.
Activations complete_prepared(const PanelFormat& f, const ActivationsPlan& plan, const bl_run& run_in,
                              const Input& input, uint8_t* memory) {
  const PreparedLayout layout = input.prepared_layout();
  int32_t* starts = reinterpret_cast<int32_t*>(memory);
  float* moments = reinterpret_cast<float*>(memory + plan.sums_bytes);
  float* table_starts = reinterpret_cast<float*>(memory + 2 * plan.sums_bytes);
  float* table_moments = reinterpret_cast<float*>(memory + 2 * plan.sums_bytes + plan.steps_bytes);
  Activations a = activations_of(layout, input.prepared(), starts, moments);
  a.table_starts = table_starts;
  a.table_moments = table_moments;
  bl_run run = run_in;
  if (plan.m * f.cols < kSerialElements) run.threads = 1;
  parallel_for(run, plan.tasks, [&](int64_t task) {
    for (int64_t m = plan.m * task / plan.tasks; m < plan.m * (task + 1) / plan.tasks; ++m) {
      set_sums(layout, input.prepared(), f, m, starts, moments);
      if (plan.steps_bytes != 0) set_table_starts(f, a, m, table_starts, table_moments);
    }
  });
  return a;
}

}  // namespace

Rounding rounding_of(const bl_matmul_args& args) {
  const bool row = args.activation_group == BL_ACTIVATION_GROUP_row;
  const bool e4m3 = args.compute == BL_COMPUTE_e4m3;
  if (e4m3) return {448.0f, args.activation_group != BL_ACTIVATION_GROUP_32, false, true};
  return {args.activation_bits == 4 ? 7.0f : 127.0f, row, args.activation_bits != 4 && !row, false};
}

float quantize_group(const RowKernels& rows, const float* x, int64_t count, float levels, int8_t* codes) {
  const float largest = rows.largest(x, count);
  // Below 127 * FLT_MIN the reciprocal overflows; such a group counts as zero.
  const bool zero = !(largest >= 1.5e-36f);
  if (zero) {
    std::memset(codes, 0, static_cast<size_t>(count));
    return std::isnan(largest) ? NAN : 0.0f;
  }
  rows.encode(x, levels / largest, count, codes);
  return largest / levels;
}

ActivationsPlan::ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, const Input& input,
                                 int64_t m_)
    : m(m_),
      stride(padded_k(f.cols)),
      tile(kernel.algorithm == BL_ALGORITHM_tile),
      row_bytes(input.prepared() != nullptr
                    ? 0
                    : align_up(static_cast<uint64_t>(std::max(stride, input.columns())) * sizeof(float))),
      tasks(std::min<int64_t>(m, 16)) {
  const uint64_t elements = static_cast<uint64_t>((tile ? (m + 15) / 16 * 16 : m) * stride);
  const uint64_t g = static_cast<uint64_t>(std::min(kGroup, f.group));
  if (kernel.algorithm == BL_ALGORITHM_lut_fast) {
    steps_bytes = align_up(static_cast<uint64_t>(m * pieces(stride, table_step_of(f))) * sizeof(float));
  }
  if (input.prepared() != nullptr) {
    sums_bytes = align_up(elements / g * sizeof(int32_t));
    return;
  }
  if (kernel.compute == BL_COMPUTE_f32) values_bytes = align_up(elements * sizeof(float));
  if (kernel.compute == BL_COMPUTE_bf16) halves_bytes = align_up(elements * sizeof(uint16_t));
  if (kernel.compute == BL_COMPUTE_i8 && tile) {
    const uint64_t blocks = static_cast<uint64_t>(m * tile_blocks(stride));
    codes_bytes = align_up(elements);
    scales_bytes = sums_bytes = align_up(blocks * sizeof(float));
    tile_sums_bytes = align_up(blocks * sizeof(TileSums));
  } else if (kernel.compute == BL_COMPUTE_i8) {
    codes_bytes = align_up(elements);
    scales_bytes = align_up(elements / kGroup * sizeof(float));
    sums_bytes = align_up(elements / g * sizeof(int32_t));
    const bool fast = kernel.algorithm == BL_ALGORITHM_lut_fast;
    if (is_lut(kernel.algorithm)) {
      negatives_bytes = align_up(elements / kGroup * sizeof(int32_t));
      for (int32_t p = 0; p < f.plane_count; ++p) {
        const int32_t bits = f.planes[p].bits;
        const int64_t bytes = fast ? fast_table_bytes(bits) : table_bytes(bits);
        tables_bytes[bits - 1] = elements / kGroup * static_cast<uint64_t>(bytes);
        if (!fast) continue;
        table_scales_bytes[bits - 1] =
            align_up(static_cast<uint64_t>(m * pieces(stride, kTableGroup)) * sizeof(float));
      }
    }
  } else if (kernel.compute == BL_COMPUTE_i1) {
    signs_bytes = align_up(elements / kChunk * sizeof(uint32_t));
    scales_bytes = align_up(static_cast<uint64_t>(m) * sizeof(float));
  }
}

uint64_t ActivationsPlan::total() const {
  return values_bytes + halves_bytes + codes_bytes + scales_bytes + 2 * sums_bytes + signs_bytes +
         tile_sums_bytes + negatives_bytes + tables_bytes[0] + tables_bytes[1] + table_scales_bytes[0] +
         table_scales_bytes[1] + 2 * steps_bytes + static_cast<uint64_t>(tasks) * task_bytes();
}

Activations pack_activations(const MatmulKernelRow& kernel, const PanelFormat& f, const ActivationsPlan& plan,
                             const bl_run& run_in, const Input& input, const Rounding& rounding,
                             uint8_t* memory) {
  if (input.prepared() != nullptr) return complete_prepared(f, plan, run_in, input, memory);
  const auto take = [&memory](uint64_t bytes) {
    uint8_t* taken = bytes == 0 ? nullptr : memory;
    memory += bytes;
    return taken;
  };
  float* values = reinterpret_cast<float*>(take(plan.values_bytes));
  int8_t* codes = reinterpret_cast<int8_t*>(take(plan.codes_bytes));
  float* scales = reinterpret_cast<float*>(take(plan.scales_bytes));
  int32_t* starts = reinterpret_cast<int32_t*>(take(plan.sums_bytes));
  float* moments = reinterpret_cast<float*>(take(plan.sums_bytes));
  int32_t* negatives = reinterpret_cast<int32_t*>(take(plan.negatives_bytes));
  uint8_t* tables[2] = {take(plan.tables_bytes[0]), take(plan.tables_bytes[1])};
  float* table_scales[2] = {reinterpret_cast<float*>(take(plan.table_scales_bytes[0])),
                            reinterpret_cast<float*>(take(plan.table_scales_bytes[1]))};
  float* table_starts = reinterpret_cast<float*>(take(plan.steps_bytes));
  float* table_moments = reinterpret_cast<float*>(take(plan.steps_bytes));
  uint32_t* signs = reinterpret_cast<uint32_t*>(take(plan.signs_bytes));
  uint8_t* rows_memory = memory;
  const bool fast = kernel.algorithm == BL_ALGORITHM_lut_fast;
  Activations packed{};
  packed.stride = plan.stride;
  packed.values = values;
  packed.codes = codes;
  packed.scales = scales;
  packed.starts = starts;
  packed.moments = moments;
  packed.negatives = negatives;
  packed.table_starts = table_starts;
  packed.table_moments = table_moments;
  packed.signs = signs;
  for (int i = 0; i < 2; ++i) {
    (fast ? packed.fast_tables : packed.tables)[i] = tables[i];
    packed.table_scales[i] = table_scales[i];
  }
  const int64_t k = f.cols, stride = plan.stride, g = std::min(kGroup, f.group);
  const RowKernels& rows = row_kernels(isa_of(run_in));
  const PrepareKernels prepare = prepare_kernels(kernel.isa);
  const auto pack_codes = [&](const float* row, int64_t m) {
    int8_t* row_codes = codes + m * stride;
    float* row_scales = scales + m * stride / kGroup;
    if (row == nullptr) {
      copy_codes(input, m, k, stride, row_codes, row_scales);
    } else if (rounding.own) {
      kernel.pack(row, k, row_codes, row_scales);
    } else {
      round_row(rows, rounding, row, k, stride, row_codes, row_scales);
    }
    if (negatives != nullptr) {
      // The sums per 32 are those that lut's starts come from: a place for them until these are set.
      const int64_t first = m * stride / kGroup;
      prepare.sum_codes(row_codes, stride, starts + first, negatives + first);
    }
    set_row_sums(f, g, stride, row_codes, row_scales, starts + m * stride / g, moments + m * stride / g);
    for (int32_t bits = 1; bits <= 2; ++bits) {
      if (tables[bits - 1] == nullptr) continue;
      if (fast) {
        prepare.build_fast_tables(row_codes, row_scales, stride, bits,
                                  tables[bits - 1] + m * stride / kGroup * fast_table_bytes(bits),
                                  table_scales[bits - 1] + m * pieces(stride, kTableGroup));
      } else {
        prepare.build_tables(row_codes, stride, bits,
                             tables[bits - 1] + m * stride / kGroup * table_bytes(bits));
      }
    }
    if (fast) set_table_starts(f, packed, m, table_starts, table_moments);
  };
  bl_run run = run_in;
  if (plan.m * k < kSerialElements) run.threads = 1;
  parallel_for(run, plan.tasks, [&](int64_t task) {
    uint8_t* own = rows_memory + static_cast<uint64_t>(task) * plan.task_bytes();
    float* converted = reinterpret_cast<float*>(own);
    float* second = reinterpret_cast<float*>(own + plan.row_bytes);
    for (int64_t m = plan.m * task / plan.tasks; m < plan.m * (task + 1) / plan.tasks; ++m) {
      if (codes != nullptr && input.is_codes()) {
        pack_codes(nullptr, m);
        continue;
      }
      const float* row = input.arranged(m, converted, second);
      if (values != nullptr) {
        if (k > 0) std::memcpy(values + m * stride, row, static_cast<size_t>(k) * sizeof(float));
        std::memset(values + m * stride + k, 0, static_cast<size_t>(stride - k) * sizeof(float));
        if (rounding.e4m3) round_e4m3(values + m * stride, k, rounding.scale_per_row);
      } else if (signs != nullptr) {
        scales[m] = rows.signs(row, k, signs + m * stride / kChunk);
      } else {
        pack_codes(row, m);
      }
    }
  });
  return packed;
}

}  // namespace bitloom
