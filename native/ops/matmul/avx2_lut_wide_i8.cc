// scalar_lut_wide_i8.cc at level avx2: products of 4 activations and 8 rows looked up by vpshufb, low bytes
// and high ones, each activation's table where its bytes are. Plain: nothing takes it but a call that asks
// for it.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cstring>
#include <type_traits>

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "avx2_decode.inl"
#include "avx2_group_scales.inl"

namespace {

struct Tables {
  alignas(32) uint8_t low[kChunk][16], high[kChunk][16];  // bytes of products with the values of four bits
};

void build(const PanelFormat& f, const int8_t* codes, Tables* tables) {
  alignas(32) int16_t values[16];
  for (uint32_t code = 0; code < 16; ++code) values[code] = static_cast<int16_t>(panel_value(f, code));
  const __m256i value = _mm256_load_si256(reinterpret_cast<const __m256i*>(values));
  const __m256i byte = _mm256_set1_epi16(255);
  for (int64_t k = 0; k < kChunk; ++k) {
    const __m256i product = _mm256_mullo_epi16(value, _mm256_set1_epi16(codes[k]));
    const __m256i bytes = _mm256_packus_epi16(_mm256_and_si256(product, byte), _mm256_srli_epi16(product, 8));
    const __m256i sorted = _mm256_permute4x64_epi64(bytes, 0xd8);
    _mm_store_si128(reinterpret_cast<__m128i*>(tables->low[k]), _mm256_castsi256_si128(sorted));
    _mm_store_si128(reinterpret_cast<__m128i*>(tables->high[k]), _mm256_extracti128_si256(sorted, 1));
  }
}

// Of rows 0, 1, 4, 5 and of rows 2, 3, 6, 7: two sums of int32 each.
struct Sums {
  __m256i first, second;
};

inline __m256i broadcast(const uint8_t* table) {
  return _mm256_broadcastsi128_si256(_mm_load_si128(reinterpret_cast<const __m128i*>(table)));
}

// Adds `times` the products of weights 4v to 4v + 3 of eight rows; indices of four bits in bytes 4r + j.
inline void look_up(const Tables& tables, int v, __m256i indices, int times, Sums* sums) {
  __m256i low = _mm256_setzero_si256(), high = _mm256_setzero_si256();
#pragma GCC unroll 4
  for (int j = 0; j < 4; ++j) {
    // A set top bit gives zero.
    const __m256i others = _mm256_set1_epi32(static_cast<int>(0x80808080u & ~(0xffu << (8 * j))));
    const __m256i own = _mm256_or_si256(indices, others);
    low = _mm256_or_si256(low, _mm256_shuffle_epi8(broadcast(tables.low[4 * v + j]), own));
    high = _mm256_or_si256(high, _mm256_shuffle_epi8(broadcast(tables.high[4 * v + j]), own));
  }
  const __m256i factor = _mm256_set1_epi16(static_cast<int16_t>(times));
  const __m256i first = _mm256_unpacklo_epi8(low, high), second = _mm256_unpackhi_epi8(low, high);
  sums->first = _mm256_add_epi32(sums->first, _mm256_madd_epi16(first, factor));
  sums->second = _mm256_add_epi32(sums->second, _mm256_madd_epi16(second, factor));
}

// Sums over vectors [begin, end) of half a chunk, rows in order.
template <int kBits>
inline __m256i sum_vectors(const Tables& tables, const Codes<kBits>& codes, int begin, int end) {
  Sums sums{_mm256_setzero_si256(), _mm256_setzero_si256()};
  for (int v = begin; v < end; ++v) {
    const __m256i code = codes.vector(v);
    constexpr int kLow = kBits < 4 ? kBits : 4;
    const __m256i low = _mm256_set1_epi8((1 << kLow) - 1);
    look_up(tables, v, _mm256_and_si256(code, low), 1, &sums);
    if constexpr (kBits > 4) {
      const __m256i upper = _mm256_set1_epi8((1 << (kBits - 4)) - 1);
      look_up(tables, v, _mm256_and_si256(_mm256_srli_epi16(code, 4), upper), 16, &sums);
    }
  }
  return _mm256_hadd_epi32(sums.first, sums.second);
}

template <int kBits>
void run(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int64_t g = std::min(kGroup, f.group), per_block = f.elements / kChunk;
  const bool has_offsets = f.offset_kind != OffsetKind::none;
  Tables tables;
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    for (int64_t chunk = 0; chunk * kChunk < f.cols; ++chunk) {
      const int64_t first = m * a.stride + chunk * kChunk;
      build(f, a.codes + first, &tables);
      const Vec a_scale = Vec::set(a.scales[first / kGroup]);
      for (int64_t i = 0; i < 2 * tile.panel_count; ++i) {
        const int half = static_cast<int>(i % 2);
        const uint8_t* block = tile.panels + i / 2 * tile.panel_stride + chunk / per_block * f.block_bytes;
        const Codes<kBits> codes(f.chunk(block, chunk % per_block), half);
        float* out = tile.values + (m - tile.m_begin) * tile.stride + 8 * i;
        Vec sum = chunk > 0 || tile.accumulate ? Vec::load(out) : Vec::set(0);
        for (int64_t k = 0; k < kChunk; k += g) {
          if (chunk * kChunk + k >= f.cols) break;
          const int64_t group = (first + k) / g;
          const __m256i looked =
              sum_vectors(tables, codes, static_cast<int>(k / 4), static_cast<int>((k + g) / 4));
          const __m256i integer = _mm256_add_epi32(looked, _mm256_set1_epi32(a.starts[group]));
          const Scales s = group_scales(f, block, (chunk % per_block * kChunk + k) / f.group, half);
          sum = fma(Vec{_mm256_cvtepi32_ps(integer)}, s.scale * a_scale, sum);
          if (has_offsets) sum = fma(s.offset, Vec::set(a.moments[group]), sum);
        }
        sum.store(out);
      }
    }
  }
}

}  // namespace

void matmul_lut_wide_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  switch (f.bits) {
    case 1:
      return run<1>(f, a, tile);
    case 2:
      return run<2>(f, a, tile);
    case 3:
      return run<3>(f, a, tile);
    case 4:
      return run<4>(f, a, tile);
    case 5:
      return run<5>(f, a, tile);
    case 6:
      return run<6>(f, a, tile);
    case 7:
      return run<7>(f, a, tile);
    default:
      return run<8>(f, a, tile);
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
