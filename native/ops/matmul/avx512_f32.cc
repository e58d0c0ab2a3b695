// matmul in f32 at level avx512: decode 256 weights of 4 rows, multiply-add with all activation rows. Same
// structure as avx2_f32.cc, only wider.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "../../formats/gguf_blocks.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

#include "avx512_unpack.inl"
#include "code_blocks.inl"

namespace {

constexpr int64_t kChunk = 256;  // weights decoded at a time; a multiple of all blocks
constexpr int kActivations = 4;  // the register tile: rows of a and of b
constexpr int kRows = 4;

// Weights [first, first + 64 * steps) of a row of integer codes.
template <typename Format>
void decode_integer(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count,
                    float* values) {
  Cursor cursor(b, row);
  if (Format::kPaired) {
    cursor.next_blocks(first / kGroup);
  } else {
    cursor.next_blocks(first / b.block_elements);
    cursor.code_offset = first % b.block_elements / kStep * unpack.stream_bytes;
  }
  for (int64_t i = 0; i < count; i += kStep, Format::advance(cursor, unpack)) {
    const bool last = first + i + (Format::kPaired ? kGroup : kStep - 1) >= b.cols;
    const Step step = last ? Format::template load<true>(cursor.block, cursor, unpack)
                           : Format::template load<false>(cursor.block, cursor, unpack);
    for (int lane = 0; lane < 4; ++lane) {
      // Codes 16*lane to 16*lane + 15; their scale is that of lanes 4*lane on.
      alignas(64) uint8_t codes[64];
      _mm512_store_si512(codes, step.codes);
      const __m512i wide =
          _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(codes + 16 * lane)));
      const __m512i pick = _mm512_set1_epi32(lane < 2 ? 0 : 8);
      const __m512 scale = _mm512_permutexvar_ps(pick, step.scale);
      __m512 value;
      if (Format::kZeroPoints) {
        value = _mm512_sub_ps(_mm512_cvtepi32_ps(wide), _mm512_permutexvar_ps(pick, step.zero));
      } else {
        value = _mm512_cvtepi32_ps(_mm512_sub_epi32(wide, _mm512_set1_epi32(unpack.zero)));
      }
      _mm512_storeu_ps(values + i + 16 * lane, _mm512_mul_ps(value, scale));
    }
  }
}

// values[0, 256) of a code block. The product of scale and code is exact (native/formats/gguf_decode.cc), so
// that the sum rounds once, fused or not.
inline void decode_code_block(const CodeBlock& block, float* values) {
  for (int s = 0; s < kCodeBlock / 16; ++s) {
    const __m128i codes = _mm_load_si128(reinterpret_cast<const __m128i*>(block.codes + 16 * s));
    const __m512 level = _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes));
    _mm512_storeu_ps(values + 16 * s,
                     _mm512_fmadd_ps(level, _mm512_set1_ps(block.scales[s]), _mm512_set1_ps(block.mins[s])));
  }
}

// Weights [first, first + count) of a codebook format: unpack the codes, look each up. first is a multiple
// of kChunk, so of every group that is not the whole row.
void decode_codebook(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count,
                     float* values) {
  alignas(64) float table[16] = {};
  const bool small = b.info->bits <= 4;
  if (small) std::memcpy(table, b.codebook, sizeof(float) << b.info->bits);
  const __m512 entries = _mm512_load_ps(table);
  Cursor cursor(b, row);
  cursor.next_blocks(first / b.block_elements);
  cursor.code_offset = first % b.block_elements / kStep * unpack.stream_bytes;
  const bool narrow = b.info->group_size == kGroup;
  for (int64_t i = 0; i < count; i += kStep) {
    const bool last = first + i + (narrow ? kGroup : kStep - 1) >= b.cols;
    Step step;
    if (narrow) {
      step = last ? Grouped32<false>::load<true>(cursor.block, cursor, unpack)
                  : Grouped32<false>::load<false>(cursor.block, cursor, unpack);
      cursor.next_blocks(2);
    } else {
      step = last ? GroupedWide<false>::load<true>(cursor.block, cursor, unpack)
                  : GroupedWide<false>::load<false>(cursor.block, cursor, unpack);
      cursor.next_codes(unpack.stream_bytes);
    }
    alignas(64) uint8_t codes[64];
    _mm512_store_si512(codes, step.codes);
    for (int lane = 0; lane < 4; ++lane) {
      const __m512i index =
          _mm512_cvtepu8_epi32(_mm_load_si128(reinterpret_cast<const __m128i*>(codes + 16 * lane)));
      const __m512 level =
          small ? _mm512_permutexvar_ps(index, entries) : _mm512_i32gather_ps(index, b.codebook, 4);
      const __m512 scale = _mm512_permutexvar_ps(_mm512_set1_epi32(lane < 2 ? 0 : 8), step.scale);
      _mm512_storeu_ps(values + i + 16 * lane, _mm512_mul_ps(level, scale));
    }
  }
}

// 16 floats of a plain format.
inline __m512 load_floats(int32_t gguf_type, const uint8_t* bytes, int64_t i) {
  if (gguf_type == 0) return _mm512_loadu_ps(bytes + 4 * i);
  const __m256i half = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes + 2 * i));
  if (gguf_type == 1) return _mm512_cvtph_ps(half);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(half), 16));
}

// Decodes `count` <= kChunk weights from `first` (a multiple of kChunk) and pads with zeros to kStep.
void decode(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count,
            float* values) {
  const bl_format_info& info = *b.info;
  const bool narrow = info.group_size == kGroup;
  if (b.in_lanes(row)) {
    decode_row(b, row, first, count, values);  // lanes16 is for i8; here it is only correct
  } else if (is_code_block_format(info)) {
    CodeBlock block;
    unpack_code_block(b, row, first, count, &block);
    decode_code_block(block, values);
  } else if (info.gguf_type == 8) {
    decode_integer<Q8_0>(b, unpack, row, first, count, values);
  } else if (info.gguf_type == 2) {
    decode_integer<Q4_0>(b, unpack, row, first, count, values);
  } else if (info.kind == BL_KIND_nf4 || info.kind == BL_KIND_fp4 || info.kind == BL_KIND_codebook) {
    decode_codebook(b, unpack, row, first, count, values);
  } else if (has_integer_codes(info) && info.has_zero_point) {
    (narrow ? decode_integer<Grouped32<true>> : decode_integer<GroupedWide<true>>)(b, unpack, row, first,
                                                                                   count, values);
  } else if (has_integer_codes(info)) {
    (narrow ? decode_integer<Grouped32<false>> : decode_integer<GroupedWide<false>>)(b, unpack, row, first,
                                                                                     count, values);
  } else if (info.block_elements == 1 && b.layout == BL_LAYOUT_canonical && count % 16 == 0) {
    const uint8_t* bytes = b.block(row, first);
    for (int64_t i = 0; i < count; i += 16)
      _mm512_storeu_ps(values + i, load_floats(info.gguf_type, bytes, i));
  } else {
    decode_row(b, row, first, count, values);
  }
  std::memset(values + count, 0, static_cast<size_t>(padded_k(count) - count) * sizeof(float));
}

// values[i][r] += a[m + i][k, k + padded) . weights[r]
template <int kHeight, int kWidth>
inline void block_f32(const Activations& a, const float (*weights)[kChunk], int64_t m, int64_t k,
                      int64_t padded, float* values, int64_t stride) {
  __m512 sums[kHeight][kWidth];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < padded; i += 16) {
    __m512 w[kWidth];
    for (int r = 0; r < kWidth; ++r) w[r] = _mm512_loadu_ps(weights[r] + i);
    for (int j = 0; j < kHeight; ++j) {
      const __m512 x = _mm512_loadu_ps(a.values + (m + j) * a.k_padded + k + i);
      for (int r = 0; r < kWidth; ++r) sums[j][r] = _mm512_fmadd_ps(x, w[r], sums[j][r]);
    }
  }
  for (int j = 0; j < kHeight; ++j) {
    for (int r = 0; r < kWidth; ++r) values[j * stride + r] += _mm512_reduce_add_ps(sums[j][r]);
  }
}

}  // namespace

#include "f32_tile.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
