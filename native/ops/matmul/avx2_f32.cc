// matmul in f32 at level avx2: decode 256 weights of 4 rows, multiply-add with all activation rows.
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

constexpr int64_t kChunk = 256;  // weights decoded at a time; a multiple of all blocks
constexpr int kActivations = 2;  // the register tile: rows of a and of b
constexpr int kRows = 4;

template <typename Format>
void decode_integer(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count,
                    float* values) {
  Cursor cursor(b, row);
  cursor.next_blocks(first / b.block_elements);
  cursor.code_offset = first % b.block_elements / 8 * unpack.code_bytes;
  for (int64_t i = 0; i < count; i += kGroup, Format::advance(cursor, unpack)) {
    const Step step = Format::load(cursor.block, cursor, unpack);
    alignas(32) uint8_t codes[32];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), step.codes);
    const __m256 zero = _mm256_set1_ps(step.zero);
    const __m256 scale = _mm256_set1_ps(step.scale);
    for (int lane = 0; lane < 32; lane += 8) {
      const __m128i bytes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + lane));
      const __m256i wide = Format::kWide ? _mm256_cvtepi8_epi32(bytes) : _mm256_cvtepu8_epi32(bytes);
      _mm256_storeu_ps(values + i + lane,
                       _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(wide), zero), scale));
    }
  }
}

// values[0, 256) of a code block. The product of scale and code is exact (native/formats/gguf_decode.cc), so
// that the sum rounds once, fused or not.
inline void decode_code_block(const CodeBlock& block, float* values) {
  for (int s = 0; s < kCodeBlock / 16; ++s) {
    const __m256 scale = _mm256_set1_ps(block.scales[s]);
    const __m256 min = _mm256_set1_ps(block.mins[s]);
    for (int i = 16 * s; i < 16 * s + 16; i += 8) {
      const __m128i codes = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(block.codes + i));
      const __m256 level = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes));
      _mm256_storeu_ps(values + i, _mm256_fmadd_ps(level, scale, min));
    }
  }
}

// Weights [first, first + count) of a codebook format: unpack the codes, look each up. first is a multiple
// of kChunk, so of every group that is not the whole row.
void decode_codebook(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count,
                     float* values) {
  Cursor cursor(b, row);
  cursor.next_blocks(first / b.block_elements);
  cursor.code_offset = first % b.block_elements / 8 * unpack.code_bytes;
  for (int64_t i = 0; i < count; i += kGroup, cursor.next_codes(4 * unpack.code_bytes)) {
    const Step step = Grouped<false>::load(cursor.block, cursor, unpack);
    alignas(32) uint8_t codes[32];
    _mm256_store_si256(reinterpret_cast<__m256i*>(codes), step.codes);
    for (int lane = 0; lane < 32; lane += 8) {
      const __m256i index =
          _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + lane)));
      const __m256 level = _mm256_i32gather_ps(b.codebook, index, 4);
      _mm256_storeu_ps(values + i + lane, _mm256_mul_ps(level, _mm256_set1_ps(step.scale)));
    }
  }
}

// 8 floats of a plain format.
inline __m256 load_floats(int32_t gguf_type, const uint8_t* bytes, int64_t i) {
  if (gguf_type == 0) return _mm256_loadu_ps(reinterpret_cast<const float*>(bytes + 4 * i));
  const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 2 * i));
  if (gguf_type == 1) return _mm256_cvtph_ps(half);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(half), 16));
}

// Decodes `count` <= kChunk weights from `first` (a multiple of kChunk) and pads with zeros to kStep.
void decode(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count,
            float* values) {
  const bl_format_info& info = *b.info;
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
  } else if (has_integer_codes(info)) {
    (info.bits == 8 ? decode_integer<Grouped<true>> : decode_integer<Grouped<false>>)(b, unpack, row, first,
                                                                                      count, values);
  } else if (info.block_elements == 1 && b.layout == BL_LAYOUT_canonical && count % 8 == 0) {
    const uint8_t* bytes = b.block(row, first);
    for (int64_t i = 0; i < count; i += 8)
      _mm256_storeu_ps(values + i, load_floats(info.gguf_type, bytes, i));
  } else {
    decode_row(b, row, first, count, values);
  }
  std::memset(values + count, 0, static_cast<size_t>(padded_k(count) - count) * sizeof(float));
}

template <int kHeight, int kWidth>
inline void block_f32(const Activations& a, const float (*weights)[kChunk], int64_t m, int64_t k,
                      int64_t padded, float* values, int64_t stride) {
  __m256 sums[kHeight][kWidth];
  for (auto& row : sums) {
    for (__m256& sum : row) sum = _mm256_setzero_ps();
  }
  for (int64_t i = 0; i < padded; i += 8) {
    __m256 w[kWidth];
    for (int r = 0; r < kWidth; ++r) w[r] = _mm256_loadu_ps(weights[r] + i);
    for (int j = 0; j < kHeight; ++j) {
      const __m256 x = _mm256_loadu_ps(a.values + (m + j) * a.k_padded + k + i);
      for (int r = 0; r < kWidth; ++r) sums[j][r] = _mm256_fmadd_ps(x, w[r], sums[j][r]);
    }
  }
  for (int j = 0; j < kHeight; ++j) {
    for (int r = 0; r < kWidth; ++r) values[j * stride + r] += horizontal_sum(sums[j][r]);
  }
}

}  // namespace

#include "f32_tile.inl"

#include "../../isa/end.h"
#endif  // __x86_64__
