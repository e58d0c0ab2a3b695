// Algorithm tile at level avx2: the int8 weights of tile.h as words, times activations as words by vpmaddwd.
// Bytes would need vpmaddubsw, whose sums of two products of int8 saturate unless signs are moved about: as
// many instructions.
//
// Two panels' block of 512 (32 KB of words) stays in L1 while all rows of a pass over it, four at a time: for
// four weights of a panel 4 loads of b, 8 broadcasts of a, 16 vpmaddwd, 16 additions: 24 products a cycle on
// three ports. Rows of a become words beside them, a sixth of the time.
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <type_traits>
#include <utility>

#include "tile.h"

#include "../../isa/avx2_begin.h"
#include "../../isa/simd_avx2.inl"
#include "avx2_decode.inl"
#include "avx2_group_scales.inl"

namespace {

constexpr int kRows = 4;

struct Memory {
  // Weights 4v, 4v + 2 of eight rows, then 4v + 1, 4v + 3: [panels][v][halves of the panel][2][8][2].
  alignas(32) int16_t weights[2][kTileDepth / 4][2][2][16];
  alignas(32) int16_t a[kTileDepth / 4][kRows][4];  // words 0, 2, 1, 3 of four
  alignas(32) int32_t m[kTileDepth / 8][16], h[kTileDepth / 8][16];
  alignas(32) int32_t x[256];
  float steps[2][16], offsets[2][16];  // [panels]
};
static_assert(sizeof(Memory) <= size_t{1} << 17);

struct Place {
  const uint8_t* panel;
  int64_t index;       // of the panel
  int64_t begin, end;  // columns
};

// Steps, m and h of a block, the low words twice.
void read_scales(const PanelFormat& f, const TileRecipe& r, const Place& at, Memory* memory) {
  const Vec centre = Vec::set(r.centre), zero = Vec::set(0);
  const uint8_t* first = at.panel + at.begin / f.elements * f.block_bytes;
  // The offset is that of value - zero = centre.
  const auto scales_of = [&](const uint8_t* block, int64_t g, int half, Vec* offset) {
    const Scales s = group_scales(f, block, g, half);
    *offset = r.has_offsets ? fma(s.scale, centre, s.offset) : zero;
    return s.scale;
  };
  for (int half = 0; half < 2; ++half) {
    Vec offset;
    if (r.exact) {
      scales_of(first, 0, half, &offset).store(memory->steps[at.index] + 8 * half);
      offset.store(memory->offsets[at.index] + 8 * half);
      continue;
    }
    Vec largest = zero, finite{_mm256_cmp_ps(zero.v, zero.v, _CMP_EQ_OQ)};
    Vec scales[kTileDepth / 8], offsets[kTileDepth / 8];
    int64_t count = 0, in_block = at.begin % f.elements / f.group;
    const uint8_t* block = first;
    for (int64_t k = at.begin; k < at.end; k += f.group, ++count) {
      scales[count] = scales_of(block, in_block, half, &offsets[count]);
      const Vec bound = fma(abs(scales[count]), Vec::set(r.spread), abs(offsets[count]));
      finite.v = _mm256_and_ps(finite.v, _mm256_cmp_ps(bound.v, Vec::set(__builtin_inff()).v, _CMP_LT_OQ));
      largest = max(largest, bound);
      if (++in_block == f.groups) {
        in_block = 0;
        block += f.block_bytes;
      }
    }
    const Vec good{_mm256_and_ps(finite.v, _mm256_cmp_ps(largest.v, Vec::set(kTileLeast).v, _CMP_GE_OQ))};
    const Vec step{_mm256_and_ps(good.v, (largest / Vec::set(r.levels)).v)};
    Vec{_mm256_blendv_ps(Vec::set(__builtin_nanf("")).v, step.v, finite.v)}.store(memory->steps[at.index] +
                                                                                  8 * half);
    const Vec multiplier{_mm256_and_ps(good.v, (Vec::set(r.unit) / step).v)};
    const Vec shift{_mm256_and_ps(good.v, (Vec::set(128) / step).v)};
    // What is no number becomes 0x80000000, of which the low word is 0.
    const auto twice = [](Vec value, int32_t bits, int32_t* to) {
      const __m256i v = _mm256_or_si256(_mm256_cvtps_epi32(value.v), _mm256_set1_epi32(bits));
      _mm256_store_si256(reinterpret_cast<__m256i*>(to),
                         _mm256_blend_epi16(v, _mm256_slli_epi32(v, 16), 0xaa));
    };
    for (int64_t g = 0; g < count; ++g) {
      twice(scales[g] * multiplier, 1, memory->m[g] + 8 * half);
      twice(offsets[g] * shift, 0, memory->h[g] + 8 * half);
    }
  }
}

// Words (x * m >> 16) + h + 64 >> 7.
inline __m256i rescale(__m256i x, __m256i m, __m256i h) {
  const __m256i y = _mm256_add_epi16(_mm256_mulhi_epi16(x, m), _mm256_add_epi16(h, _mm256_set1_epi16(64)));
  return _mm256_srai_epi16(y, 7);
}

// A block of a panel to memory->weights. x of integers is code * (x[1] - x[0]) + x[0], in words; of tables
// looked up.
template <int kBits>
void unpack(const PanelFormat& f, const TileRecipe& r, const Place& at, Memory* memory) {
  const bool integer = f.value_kind == ValueKind::integer;
  // Groups are powers of two, 8 to 256, or whole rows.
  const int shift = f.info->group_size == 0 && f.info->kind != BL_KIND_block
                        ? 62
                        : __builtin_ctzll(static_cast<uint64_t>(f.group));
  const __m256i low_mask = _mm256_set1_epi16((1 << kBits) - 1);
  const __m256i factor = _mm256_set1_epi16(static_cast<int16_t>(r.x[1] - r.x[0])),
                base = _mm256_set1_epi16(r.x[0]);
  const int64_t per_block = f.elements / kChunk;
  const int64_t last = std::min((at.end + kChunk - 1) / kChunk, f.blocks * per_block);
  for (int64_t chunk = at.begin / kChunk; chunk < last; ++chunk) {
    const uint8_t* bytes = f.chunk(at.panel + chunk / per_block * f.block_bytes, chunk % per_block);
#pragma GCC unroll 2
    for (int half = 0; half < 2; ++half) {
      const Codes<kBits> codes(bytes, half);
#pragma GCC unroll 8
      for (int v = 0; v < 8; ++v) {
        const __m256i raw = codes.vector(v);
        __m256i words[2] = {_mm256_and_si256(raw, low_mask),
                            _mm256_and_si256(_mm256_srli_epi16(raw, 8), low_mask)};
        const int64_t k = chunk * kChunk - at.begin + 4 * v;
        const int64_t group = k >> shift;
        const __m256i m = _mm256_load_si256(reinterpret_cast<const __m256i*>(memory->m[group] + 8 * half));
        const __m256i h = _mm256_load_si256(reinterpret_cast<const __m256i*>(memory->h[group] + 8 * half));
        for (int i = 0; i < 2; ++i) {
          __m256i x = words[i];
          if (integer) {
            x = _mm256_add_epi16(_mm256_mullo_epi16(x, factor), base);
          } else {
            const __m256i first =
                _mm256_i32gather_epi32(memory->x, _mm256_and_si256(x, _mm256_set1_epi32(0xffff)), 4);
            const __m256i second = _mm256_i32gather_epi32(memory->x, _mm256_srli_epi32(x, 16), 4);
            x = _mm256_blend_epi16(first, _mm256_slli_epi32(second, 16), 0xaa);
          }
          // exact: x is the int8 itself.
          if (!r.exact) x = rescale(x, m, h);
          _mm256_store_si256(reinterpret_cast<__m256i*>(memory->weights[at.index][k / 4][half][i]), x);
        }
      }
    }
  }
}

// A block's columns of kRows rows of a to words.
inline void widen(const int8_t* codes, int64_t depth, Memory* memory) {
  const __m128i order = _mm_setr_epi8(0, 1, 4, 5, 2, 3, 6, 7, 8, 9, 12, 13, 10, 11, 14, 15);
  for (int64_t k = 0; k < depth; k += 8) {
    for (int r = 0; r < kRows; ++r) {
      const int8_t* from = codes + tile_at(r, k, 0, kStep);
      const __m128i words = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(from)));
      const __m128i sorted = _mm_shuffle_epi8(words, order);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(memory->a[k / 4][r]), sorted);
      _mm_storeh_pd(reinterpret_cast<double*>(memory->a[k / 4 + 1][r]), _mm_castsi128_pd(sorted));
    }
  }
}

// Two words everywhere. As assembly: GCC makes one load of two neighbours and takes it apart in general
// registers.
inline __m256i broadcast(const int16_t* pair) {
  __m256i v;
  __asm__("vpbroadcastd %1, %0" : "=v"(v) : "m"(*reinterpret_cast<const int16_t (*)[2]>(pair)));
  return v;
}

inline void multiply(const Memory& memory, int64_t panel, int64_t depth, __m256i sums[kRows][2]) {
#pragma GCC unroll 4
  for (int r = 0; r < kRows; ++r) sums[r][0] = sums[r][1] = _mm256_setzero_si256();
  for (int64_t v = 0; v < depth / 4; ++v) {
    const __m256i* b = reinterpret_cast<const __m256i*>(memory.weights[panel][v]);
    const __m256i b0 = b[0], b1 = b[1], b2 = b[2], b3 = b[3];
#pragma GCC unroll 4
    for (int r = 0; r < kRows; ++r) {
      const __m256i even = broadcast(memory.a[v][r]), odd = broadcast(memory.a[v][r] + 2);
      sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(b0, even));
      sums[r][0] = _mm256_add_epi32(sums[r][0], _mm256_madd_epi16(b1, odd));
      sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(b2, even));
      sums[r][1] = _mm256_add_epi32(sums[r][1], _mm256_madd_epi16(b3, odd));
    }
  }
}

template <int kBits>
void run(const PanelFormat& f, const TileRecipe& recipe, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  TileRecipe r = recipe;
  for (int code = 0; code < 1 << kBits; ++code) {
    if (r.exact)
      r.x[code] = static_cast<int16_t>(panel_value(f, static_cast<uint32_t>(code)) - f.zero -
                                       static_cast<int32_t>(r.centre));
    memory.x[code] = r.x[code] & 0xffff;
  }
  const int64_t blocks = tile_blocks(a.stride);
  for (int64_t block = 0; block < blocks; ++block) {
    const int64_t begin = block * kTileDepth, end = std::min(begin + kTileDepth, f.cols);
    const int64_t depth = std::min((end + kChunk - 1) / kChunk * kChunk, f.blocks * f.elements) - begin;
    for (int64_t panel = 0; panel < tile.panel_count; ++panel) {
      const Place at{tile.panels + panel * tile.panel_stride, panel, begin, end};
      read_scales(f, r, at, &memory);
      unpack<kBits>(f, r, at, &memory);
    }
    for (int64_t m = tile.m_begin; m < tile.m_end; m += kRows) {
      widen(a.codes + tile_at(m, begin, a.stride, kStep), depth, &memory);
      for (int64_t panel = 0; panel < tile.panel_count; ++panel) {
        __m256i sums[kRows][2];
        multiply(memory, panel, depth, sums);
#pragma GCC unroll 4
        for (int64_t i = 0; i < kRows; ++i) {
          if (m + i >= tile.m_end) break;
          const int64_t row = (m + i) * blocks + block;
#pragma GCC unroll 2
          for (int half = 0; half < 2; ++half) {
            float* out = tile.values + (m + i - tile.m_begin) * tile.stride + 16 * panel + 8 * half;
            const Vec before = block > 0 || tile.accumulate ? Vec::load(out) : Vec::set(0);
            const Vec both = Vec::load(memory.steps[panel] + 8 * half) * Vec::set(a.scales[row]);
            Vec sum = fma(Vec{_mm256_cvtepi32_ps(sums[i][half])}, both, before);
            if (r.exact && r.has_offsets) {
              sum = fma(Vec::load(memory.offsets[panel] + 8 * half), Vec::set(a.moments[row]), sum);
            }
            sum.store(out);
          }
        }
      }
    }
  }
}

}  // namespace

void matmul_tile_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const TileRecipe r = tile_recipe(f);
  switch (f.bits) {
    case 1:
      return run<1>(f, r, a, tile);
    case 2:
      return run<2>(f, r, a, tile);
    case 3:
      return run<3>(f, r, a, tile);
    case 4:
      return run<4>(f, r, a, tile);
    case 5:
      return run<5>(f, r, a, tile);
    case 6:
      return run<6>(f, r, a, tile);
    case 7:
      return run<7>(f, r, a, tile);
    default:
      return run<8>(f, r, a, tile);
  }
}
#include "../../isa/end.h"
#endif  // __x86_64__
