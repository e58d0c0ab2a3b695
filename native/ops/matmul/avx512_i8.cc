// matmul in int8 at level avx512: vpdpbusd of unpacked codes and activations, convert, multiply-add with the
// scales. Eight rows at a time share the activations and give the memory eight streams. Same structure as
// avx2_i8.cc, only wider.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "../../formats/gguf_blocks.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

#include "avx512_unpack.inl"
#include "avx512_q4_0.inl"
#include "avx512_lanes.inl"
#include "code_blocks.inl"

namespace {

// One step of kRows weight rows times kActivations rows of a.
template <typename Format, bool kLast, int kActivations, int kRows>
inline void step_i8(const Activations& a, const Cursor& cursor, const Unpack& unpack, int64_t m, int64_t k,
                    __m512 (*sums)[kRows]) {
  const __m512i none = _mm512_setzero_si512();
  __m512i activations[kActivations];
  __m512i start[kActivations];  // what the product begins with: minus zero * activations
  __m512 a_scale[kActivations];
  __m512 a_sum[kActivations];
  for (int i = 0; i < kActivations; ++i) {
    const int64_t at = (m + i) * a.k_padded + k;
    activations[i] = _mm512_loadu_si512(a.codes + at);
    a_scale[i] = pair(a.scales[at / kGroup], a.scales[at / kGroup + 1]);
    if (Format::kZeroPoints) {
      start[i] = none;
      a_sum[i] = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(none, _mm512_set1_epi8(1), activations[i]));
    } else {
      const __m512i zero_code = _mm512_set1_epi8(static_cast<char>(unpack.zero));
      start[i] = _mm512_sub_epi32(none, _mm512_dpbusd_epi32(none, zero_code, activations[i]));
    }
  }
  const uint8_t* block = cursor.block;
  for (int r = 0; r < kRows; ++r, block += cursor.row_stride) {
    // Rows are a few KB: too short for the hardware's prefetcher to get ahead in each. The next kRows rows
    // are what this thread reads next.
    _mm_prefetch(reinterpret_cast<const char*>(block + kRows * cursor.row_stride), _MM_HINT_T0);
    const Step weights = Format::template load<kLast>(block, cursor, unpack);
    for (int i = 0; i < kActivations; ++i) {
      __m512 product = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start[i], weights.codes, activations[i]));
      if (Format::kZeroPoints) product = _mm512_fnmadd_ps(weights.zero, a_sum[i], product);
      sums[i][r] = _mm512_fmadd_ps(product, _mm512_mul_ps(weights.scale, a_scale[i]), sums[i][r]);
    }
  }
}

// Eight steps at once for one row of a and formats of two blocks a step: the 16 scales of a weight row are
// gathered, converted and multiplied by those of a in one go, where step_i8 spends half its instructions on
// two scales at a time. The same products and sums in the same order.
constexpr int kChunkSteps = 8;

template <typename Format, int kRows>
inline void chunk_i8(const Activations& a, Cursor& cursor, const Unpack& unpack, int64_t m, int64_t k,
                     __m512* sums) {
  alignas(64) float scales[kRows][2 * kChunkSteps];
  const __m512i lanes = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const __m512i offsets = _mm512_mullo_epi32(lanes, _mm512_set1_epi32(static_cast<int>(cursor.block_stride)));
  const int64_t at = m * a.k_padded + k;
  const __m512 a_scales = _mm512_loadu_ps(a.scales + at / kGroup);
  const uint8_t* block = cursor.block;
  for (int r = 0; r < kRows; ++r, block += cursor.row_stride) {
    const __m512i words = _mm512_i32gather_epi32(offsets, block, 1);  // a scale and two bytes of codes
    const __m512 scale = unpack.bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(words, 16))
                                     : _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));
    _mm512_store_ps(scales[r], _mm512_mul_ps(scale, a_scales));
  }
  const __m512i none = _mm512_setzero_si512();
  const __m512i zero_code = _mm512_set1_epi8(static_cast<char>(unpack.zero));
  __m512 local[kRows];  // by value, so that they stay in registers
  for (int r = 0; r < kRows; ++r) local[r] = sums[r];
  for (int step = 0; step < kChunkSteps; ++step, cursor.next_blocks(2)) {
    const __m512i activations = _mm512_loadu_si512(a.codes + at + step * kStep);
    const __m512i start = _mm512_sub_epi32(none, _mm512_dpbusd_epi32(none, zero_code, activations));
    block = cursor.block;
    for (int r = 0; r < kRows; ++r, block += cursor.row_stride) {
      _mm_prefetch(reinterpret_cast<const char*>(block + kRows * cursor.row_stride), _MM_HINT_T0);
      const __m512i codes = Format::codes(block, block + cursor.block_stride, unpack);
      const __m512 product = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, codes, activations));
      const __m512 scale = _mm512_mask_blend_ps(0xff00, _mm512_set1_ps(scales[r][2 * step]),
                                                _mm512_set1_ps(scales[r][2 * step + 1]));
      local[r] = _mm512_fmadd_ps(product, scale, local[r]);
    }
  }
  for (int r = 0; r < kRows; ++r) sums[r] = local[r];
}

// values[i][r] = a[m + i] . b[n + r]
template <typename Format, int kActivations, int kRows>
inline void block_i8(const Activations& a, const WeightsView& b, const Unpack& unpack, int64_t m, int64_t n,
                     float* values, int64_t stride) {
  __m512 sums[kActivations][kRows];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  Cursor cursor(b, n);
  int64_t k = 0;
  if constexpr (kActivations == 1 && Format::kPaired && !Format::kZeroPoints) {
    for (; k + kChunkSteps * kStep <= b.cols; k += kChunkSteps * kStep) {
      chunk_i8<Format, kRows>(a, cursor, unpack, m, k, sums[0]);
    }
  }
  for (; k + kStep <= b.cols; k += kStep, Format::advance(cursor, unpack)) {
    step_i8<Format, false, kActivations, kRows>(a, cursor, unpack, m, k, sums);
  }
  if (k < b.cols) {
    // Blocks of 64 and more are stored whole, so only pairs of blocks and `_row` blocks can end early.
    if (Format::kPaired && k + kGroup < b.cols) {
      step_i8<Format, false, kActivations, kRows>(a, cursor, unpack, m, k, sums);
    } else {
      step_i8<Format, true, kActivations, kRows>(a, cursor, unpack, m, k, sums);
    }
  }
  for (int i = 0; i < kActivations; ++i) {
    for (int r = 0; r < kRows; ++r) values[i * stride + r] = _mm512_reduce_add_ps(sums[i][r]);
  }
}

template <typename Format>
void tile_i8(const Activations& a, const WeightsView& b, const Tile& tile) {
  const Unpack unpack(*b.info);
  const auto out = [&](int64_t m, int64_t n) {
    return tile.values + (m - tile.m_begin) * tile.stride + (n - tile.n_begin);
  };
  int64_t n = tile.n_begin;
  for (; n + 8 <= tile.n_end; n += 8) {
    int64_t m = tile.m_begin;
    for (; m + 4 <= tile.m_end; m += 4) {
      block_i8<Format, 4, 4>(a, b, unpack, m, n, out(m, n), tile.stride);
      block_i8<Format, 4, 4>(a, b, unpack, m, n + 4, out(m, n + 4), tile.stride);
    }
    for (; m < tile.m_end; ++m) block_i8<Format, 1, 8>(a, b, unpack, m, n, out(m, n), tile.stride);
  }
  for (; n < tile.n_end; ++n) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      block_i8<Format, 1, 1>(a, b, unpack, m, n, out(m, n), tile.stride);
    }
  }
}

// Products of one code block of kRows rows with all activations of the tile, added to sums[m][r].
template <int kRows>
inline void add_code_blocks(const Activations& a, const CodeBlock* blocks, bool mins, const Tile& tile,
                            int64_t k, __m512 (*sums)[kRows]) {
  // Lane i of a step of 64 weights (16 lanes of 4) has the scale of sub-block i / 4.
  const __m512i spread = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  const __m512i none = _mm512_setzero_si512();
  for (int64_t step = 0; step < kCodeBlock / kStep && k + step * kStep < a.k_padded; ++step) {
    __m512i codes[kRows];
    __m512 scale[kRows], min[kRows];
    for (int r = 0; r < kRows; ++r) {
      codes[r] = _mm512_xor_si512(_mm512_load_si512(blocks[r].codes + step * kStep), flip);  // code + 128
      const __m512 four = _mm512_castps128_ps512(_mm_load_ps(blocks[r].scales + 4 * step));
      scale[r] = _mm512_permutexvar_ps(spread, four);
      min[r] = _mm512_permutexvar_ps(spread, _mm512_castps128_ps512(_mm_load_ps(blocks[r].mins + 4 * step)));
    }
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      const int64_t at = m * a.k_padded + k + step * kStep;
      const __m512i activations = _mm512_loadu_si512(a.codes + at);
      const __m512 a_scale = pair(a.scales[at / kGroup], a.scales[at / kGroup + 1]);
      const __m512i start = _mm512_sub_epi32(none, _mm512_dpbusd_epi32(none, flip, activations));
      __m512* sum = sums[m - tile.m_begin];
      for (int r = 0; r < kRows; ++r) {
        __m512 product =
            _mm512_mul_ps(scale[r], _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start, codes[r], activations)));
        if (mins) {
          const __m512 a_sum =
              _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(none, _mm512_set1_epi8(1), activations));
          product = _mm512_fmadd_ps(min[r], a_sum, product);
        }
        sum[r] = _mm512_fmadd_ps(product, a_scale, sum[r]);
      }
    }
  }
}

template <int kRows>
inline void tile_code_blocks(const Activations& a, const WeightsView& b, const Tile& tile, int64_t n) {
  __m512 sums[kMaxTileM][kRows];
  const int64_t height = tile.m_end - tile.m_begin;
  for (int64_t m = 0; m < height; ++m) {
    for (__m512& sum : sums[m]) sum = _mm512_setzero_ps();
  }
  CodeBlock blocks[kRows];
  for (int64_t k = 0; k < b.cols; k += kCodeBlock) {
    const int64_t count = b.cols - k < kCodeBlock ? b.cols - k : kCodeBlock;
    for (int r = 0; r < kRows; ++r) unpack_code_block(b, n + r, k, count, &blocks[r]);
    add_code_blocks<kRows>(a, blocks, has_mins(*b.info), tile, k, sums);
  }
  for (int64_t m = 0; m < height; ++m) {
    float* values = tile.values + m * tile.stride + (n - tile.n_begin);
    for (int r = 0; r < kRows; ++r) values[r] = _mm512_reduce_add_ps(sums[m][r]);
  }
}

}  // namespace

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const __m512 magnitude_limit = _mm512_set1_ps(3.4028235e38f);
  for (int64_t begin = 0; begin < padded_k(k); begin += kGroup) {
    const int64_t count = begin >= k ? 0 : (k - begin < kGroup ? k - begin : kGroup);
    const __mmask16 low_mask = static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
    const __mmask16 high_mask = static_cast<__mmask16>(count >= 32   ? 0xffff
                                                       : count <= 16 ? 0
                                                                     : (1 << (count - 16)) - 1);
    const __m512 low = _mm512_maskz_loadu_ps(low_mask, x + begin);
    const __m512 high = _mm512_maskz_loadu_ps(high_mask, x + begin + 16);
    const __m512 low_abs = _mm512_abs_ps(low);
    const __m512 high_abs = _mm512_abs_ps(high);
    const bool finite = (_mm512_cmp_ps_mask(low_abs, magnitude_limit, _CMP_NLE_UQ) |
                         _mm512_cmp_ps_mask(high_abs, magnitude_limit, _CMP_NLE_UQ)) == 0;
    const float largest = _mm512_reduce_max_ps(_mm512_max_ps(low_abs, high_abs));
    const float inverse = !finite || largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    const __m512 factor = _mm512_set1_ps(inverse);
    __m512i low_codes = _mm512_cvtps_epi32(_mm512_mul_ps(low, factor));
    __m512i high_codes = _mm512_cvtps_epi32(_mm512_mul_ps(high, factor));
    if (!finite) low_codes = high_codes = _mm512_setzero_si512();
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + begin), _mm512_cvtepi32_epi8(low_codes));
    _mm_storeu_si128(reinterpret_cast<__m128i*>(codes + begin + 16), _mm512_cvtepi32_epi8(high_codes));
  }
}

void matmul_i8(const Activations& a, const WeightsView& b, const Tile& whole) {
  const bl_format_info& info = *b.info;
  Tile tile = whole;
  if (b.layout == BL_LAYOUT_lanes16) {
    tile.n_begin = info.gguf_type == 2 ? tile_lanes<true>(a, b, whole) : tile_lanes<false>(a, b, whole);
    tile.values += tile.n_begin - whole.n_begin;  // what is left is canonical
    if (tile.n_begin == tile.n_end) return;
  }
  if (info.gguf_type == 8) return tile_i8<Q8_0>(a, b, tile);
  if (info.gguf_type == 2) return tile_q4_0(a, b, tile);
  if (is_code_block_format(info)) {
    int64_t n = tile.n_begin;
    for (; n + 4 <= tile.n_end; n += 4) tile_code_blocks<4>(a, b, tile, n);
    for (; n < tile.n_end; ++n) tile_code_blocks<1>(a, b, tile, n);
    return;
  }
  if (info.group_size == 32) {
    return info.has_zero_point ? tile_i8<Grouped32<true>>(a, b, tile) : tile_i8<Grouped32<false>>(a, b, tile);
  }
  return info.has_zero_point ? tile_i8<GroupedWide<true>>(a, b, tile)
                             : tile_i8<GroupedWide<false>>(a, b, tile);
}

#include "../../isa/end.h"
#endif  // __x86_64__
