#include "activations.h"

#include <algorithm>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../base/thread_pool.h"

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

namespace bitloom {
namespace {

// Elements below which waking other threads costs more than it brings.
constexpr int64_t kSerialElements = int64_t{1} << 14;

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

void set_sums(const PanelFormat& f, int64_t g, int64_t stride, const int8_t* codes, const float* scales,
              int32_t* starts, float* moments) {
  (g == 32   ? set_sums_of<4>
   : g == 16 ? set_sums_of<2>
             : set_sums_of<1>)(f.zero, stride, codes, scales, starts, moments);
}

}  // namespace

ActivationsPlan::ActivationsPlan(const MatmulKernelRow& kernel, const PanelFormat& f, int64_t m_)
    : m(m_),
      stride(padded_k(f.cols)),
      values_bytes(0),
      halves_bytes(0),
      codes_bytes(0),
      scales_bytes(0),
      sums_bytes(0),
      row_bytes(align_up(static_cast<uint64_t>(stride) * sizeof(float))),
      tasks(std::min<int64_t>(m, 16)) {
  const uint64_t elements = static_cast<uint64_t>(m * stride);
  if (kernel.compute == BL_COMPUTE_f32) values_bytes = align_up(elements * sizeof(float));
  if (kernel.compute == BL_COMPUTE_bf16) halves_bytes = align_up(elements * sizeof(uint16_t));
  if (kernel.compute == BL_COMPUTE_i8) {
    const uint64_t g = static_cast<uint64_t>(std::min(kGroup, f.group));
    codes_bytes = align_up(elements);
    scales_bytes = align_up(elements / kGroup * sizeof(float));
    sums_bytes = align_up(elements / g * sizeof(int32_t));
  }
}

uint64_t ActivationsPlan::total() const {
  const uint64_t rows = values_bytes != 0 ? 0 : static_cast<uint64_t>(tasks) * row_bytes;
  return values_bytes + halves_bytes + codes_bytes + scales_bytes + 2 * sums_bytes + rows;
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
    }
  });
  return {stride, values, halves, codes, scales, starts, moments, nullptr, 0};
}

}  // namespace bitloom
