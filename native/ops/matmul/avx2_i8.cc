// matmul in int8 at level avx2: vpmaddubsw and vpmaddwd of unpacked codes and activations, convert,
// multiply-add with the scales.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "../../formats/gguf_blocks.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

#include "avx2_unpack.inl"
#include "code_blocks.inl"

namespace {

template <typename Format, int kActivations, int kRows>
inline void block_i8(const Activations& a, const WeightsView& b, const Unpack& unpack, int64_t m, int64_t n,
                     float* values, int64_t stride) {
  __m256 sums[kActivations][kRows];
  for (auto& row : sums) {
    for (__m256& sum : row) sum = _mm256_setzero_ps();
  }
  Cursor cursor(b, n);
  for (int64_t step = 0; step * kGroup < b.cols; ++step, Format::advance(cursor, unpack)) {
    __m256i activations[kActivations];
    __m256 a_sum[kActivations];
    float a_scale[kActivations];
    for (int i = 0; i < kActivations; ++i) {
      const int64_t at = (m + i) * a.k_padded + step * kGroup;
      activations[i] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a.codes + at));
      a_scale[i] = a.scales[at / kGroup];
      a_sum[i] = _mm256_cvtepi32_ps(multiply<false>(_mm256_set1_epi8(1), activations[i]));
    }
    for (int r = 0; r < kRows; ++r) {
      const Step weights = Format::load(cursor.block + r * cursor.row_stride, cursor, unpack);
      const __m256 zero = _mm256_set1_ps(weights.zero);
      for (int i = 0; i < kActivations; ++i) {
        const __m256 product = _mm256_cvtepi32_ps(multiply<Format::kWide>(weights.codes, activations[i]));
        const __m256 centered = _mm256_fnmadd_ps(zero, a_sum[i], product);
        sums[i][r] = _mm256_fmadd_ps(centered, _mm256_set1_ps(weights.scale * a_scale[i]), sums[i][r]);
      }
    }
  }
  for (int i = 0; i < kActivations; ++i) {
    for (int r = 0; r < kRows; ++r) values[i * stride + r] = horizontal_sum(sums[i][r]);
  }
}

template <typename Format>
void tile_i8(const Activations& a, const WeightsView& b, const Tile& tile) {
  const Unpack unpack(*b.info);
  const auto out = [&](int64_t m, int64_t n) {
    return tile.values + (m - tile.m_begin) * tile.stride + (n - tile.n_begin);
  };
  int64_t n = tile.n_begin;
  for (; n + 4 <= tile.n_end; n += 4) {
    int64_t m = tile.m_begin;
    for (; m + 2 <= tile.m_end; m += 2) block_i8<Format, 2, 4>(a, b, unpack, m, n, out(m, n), tile.stride);
    for (; m < tile.m_end; ++m) block_i8<Format, 1, 4>(a, b, unpack, m, n, out(m, n), tile.stride);
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
                            int64_t k, __m256 (*sums)[kRows]) {
  for (int64_t step = 0; step < kCodeBlock / kGroup && k + step * kGroup < a.k_padded; ++step) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      const int64_t at = m * a.k_padded + k + step * kGroup;
      const __m256i activations = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(a.codes + at));
      const __m256 a_scale = _mm256_set1_ps(a.scales[at / kGroup]);
      __m256* sum = sums[m - tile.m_begin];
      for (int r = 0; r < kRows; ++r) {
        const CodeBlock& block = blocks[r];
        const __m256i codes =
            _mm256_load_si256(reinterpret_cast<const __m256i*>(block.codes + step * kGroup));
        // Lanes 0-3 (of 4 weights each) are one sub-block of 16, lanes 4-7 the next.
        const __m256 scale =
            _mm256_set_m128(_mm_set1_ps(block.scales[2 * step + 1]), _mm_set1_ps(block.scales[2 * step]));
        __m256 product = _mm256_mul_ps(scale, _mm256_cvtepi32_ps(multiply<true>(codes, activations)));
        if (mins) {
          const __m256 min =
              _mm256_set_m128(_mm_set1_ps(block.mins[2 * step + 1]), _mm_set1_ps(block.mins[2 * step]));
          const __m256i a_sum = multiply<false>(_mm256_set1_epi8(1), activations);
          product = _mm256_fmadd_ps(min, _mm256_cvtepi32_ps(a_sum), product);
        }
        sum[r] = _mm256_fmadd_ps(product, a_scale, sum[r]);
      }
    }
  }
}

template <int kRows>
inline void tile_code_blocks(const Activations& a, const WeightsView& b, const Tile& tile, int64_t n) {
  __m256 sums[kMaxTileM][kRows];
  const int64_t height = tile.m_end - tile.m_begin;
  for (int64_t m = 0; m < height; ++m) {
    for (__m256& sum : sums[m]) sum = _mm256_setzero_ps();
  }
  CodeBlock blocks[kRows];
  for (int64_t k = 0; k < b.cols; k += kCodeBlock) {
    const int64_t count = b.cols - k < kCodeBlock ? b.cols - k : kCodeBlock;
    for (int r = 0; r < kRows; ++r) unpack_code_block(b, n + r, k, count, &blocks[r]);
    add_code_blocks<kRows>(a, blocks, has_mins(*b.info), tile, k, sums);
  }
  for (int64_t m = 0; m < height; ++m) {
    float* values = tile.values + m * tile.stride + (n - tile.n_begin);
    for (int r = 0; r < kRows; ++r) values[r] = horizontal_sum(sums[m][r]);
  }
}

}  // namespace

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const __m256 absolute = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
  const __m256 limit = _mm256_set1_ps(3.4028235e38f);
  alignas(32) float padded[kGroup];
  for (int64_t begin = 0; begin < padded_k(k); begin += kGroup) {
    const float* group = x + begin;
    if (begin + kGroup > k) {
      std::memset(padded, 0, sizeof(padded));
      if (begin < k) std::memcpy(padded, group, static_cast<size_t>(k - begin) * sizeof(float));
      group = padded;
    }
    __m256 values[4];
    __m256 largest8 = _mm256_setzero_ps();
    __m256 too_large = _mm256_setzero_ps();
    for (int i = 0; i < 4; ++i) {
      values[i] = _mm256_loadu_ps(group + 8 * i);
      const __m256 magnitude = _mm256_and_ps(values[i], absolute);
      too_large = _mm256_or_ps(too_large, _mm256_cmp_ps(magnitude, limit, _CMP_NLE_UQ));
      largest8 = _mm256_max_ps(largest8, magnitude);
    }
    const bool finite = _mm256_movemask_ps(too_large) == 0;
    __m128 largest4 = _mm_max_ps(_mm256_castps256_ps128(largest8), _mm256_extractf128_ps(largest8, 1));
    largest4 = _mm_max_ps(largest4, _mm_movehl_ps(largest4, largest4));
    const float largest = _mm_cvtss_f32(_mm_max_ss(largest4, _mm_movehdup_ps(largest4)));
    const float inverse = !finite || largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    const __m256 factor = _mm256_set1_ps(inverse);
    __m256i q[4];
    for (int i = 0; i < 4; ++i) {
      q[i] = finite ? _mm256_cvtps_epi32(_mm256_mul_ps(values[i], factor)) : _mm256_setzero_si256();
    }
    // The packs work within 128-bit halves; the permutation puts the groups of 4 back in order.
    const __m256i bytes = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes + begin), _mm256_permutevar8x32_epi32(bytes, order));
  }
}

void matmul_i8(const Activations& a, const WeightsView& b, const Tile& tile) {
  const bl_format_info& info = *b.info;
  if (info.gguf_type == 8) return tile_i8<Q8_0>(a, b, tile);
  if (info.gguf_type == 2) return tile_i8<Q4_0>(a, b, tile);
  if (is_code_block_format(info)) {
    int64_t n = tile.n_begin;
    for (; n + 4 <= tile.n_end; n += 4) tile_code_blocks<4>(a, b, tile, n);
    for (; n < tile.n_end; ++n) tile_code_blocks<1>(a, b, tile, n);
    return;
  }
  return info.bits == 8 ? tile_i8<Grouped<true>>(a, b, tile) : tile_i8<Grouped<false>>(a, b, tile);
}

#include "../../isa/end.h"
#endif  // __x86_64__
