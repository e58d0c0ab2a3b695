// matmul at level avx2. Same structure as avx512.cc, a step being 32 weights.
//
// i8: codes of any width come out of the bit stream with pdep, 8 at a time (8 codes fill exactly `bits`
// bytes); vpmaddubsw and vpmaddwd multiply. vpmaddubsw adds pairs into int16: 2 * 127 * code stays below
// 2^15 for codes up to 127, so 8-bit codes go through signs instead: |w| * (sign(w) * a), at most
// 2 * 128 * 127 = 32512.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx2_begin.h"

namespace {

constexpr int64_t kChunk = 256;  // weights decoded at a time by the f32 kernel; a multiple of all blocks

inline float half_value(const uint8_t* bytes, bool bf16) {
  const uint16_t bits = load_as<uint16_t>(bytes);
  return bf16 ? bf16_to_f32(bits) : _cvtsh_ss(bits);
}

// 32 codes: 0 to 127 (kWide false), or int8 (kWide true).
struct Step {
  __m256i codes;
  float scale;
  float zero;  // of the codes as given here
};

struct Unpack {
  uint64_t mask;  // for pdep: the bits of a code in each byte
  uint64_t flip;
  int64_t code_bytes;  // of 8 codes
  float zero;
  float zero_shift;
  bool bf16, has_zero_point;

  explicit Unpack(const bl_format_info& info)
      : mask(0), flip(0), code_bytes(0), zero(0), zero_shift(0), bf16(info.scale_dtype == BL_DTYPE_bf16),
        has_zero_point(info.has_zero_point != 0) {
    if (info.kind == BL_KIND_block) {
      zero = info.gguf_type == 8 ? 0 : 8;
      return;
    }
    const IntegerCodes form(info);
    constexpr uint64_t kEachByte = 0x0101010101010101u;
    mask = form.mask * kEachByte;
    // 8-bit codes become int8 by flipping the top bit: code - 128.
    const bool wide = form.bits == 8;
    flip = static_cast<uint8_t>(form.flip ^ (wide ? 0x80 : 0)) * kEachByte;
    code_bytes = form.bits;
    zero = static_cast<float>(form.zero - (wide ? 128 : 0));
    zero_shift = form.zero_shift - (wide ? 128.0f : 0.0f);
  }

  // 8 codes from `bytes`, of which `left` may be read.
  uint64_t codes(const uint8_t* bytes, int64_t left) const {
    uint64_t raw = 0;
    if (left >= 8) {
      raw = load_as<uint64_t>(bytes);
    } else if (left > 0) {
      std::memcpy(&raw, bytes, static_cast<size_t>(left));
    }
    return _pdep_u64(raw, mask) ^ flip;
  }
};

struct Q4_0 {
  static constexpr bool kWide = false;
  static Step load(const uint8_t* block, const Cursor&, const Unpack&) {
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2));
    const __m256i both = _mm256_inserti128_si256(_mm256_castsi128_si256(bytes), _mm_srli_epi16(bytes, 4), 1);
    return {_mm256_and_si256(both, _mm256_set1_epi8(15)), half_value(block, false), 8};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(1); }
};

struct Q8_0 {
  static constexpr bool kWide = true;
  static Step load(const uint8_t* block, const Cursor&, const Unpack&) {
    return {_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 2)), half_value(block, false), 0};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(1); }
};

template <bool kWideCodes>
struct Grouped {
  static constexpr bool kWide = kWideCodes;
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* bytes = block + (unpack.has_zero_point ? 4 : 2) + cursor.code_offset;
    const int64_t left = cursor.block_code_bytes - cursor.code_offset;
    const int64_t n = unpack.code_bytes;
    Step result;
    result.codes = _mm256_setr_epi64x(static_cast<int64_t>(unpack.codes(bytes, left)),
                                      static_cast<int64_t>(unpack.codes(bytes + n, left - n)),
                                      static_cast<int64_t>(unpack.codes(bytes + 2 * n, left - 2 * n)),
                                      static_cast<int64_t>(unpack.codes(bytes + 3 * n, left - 3 * n)));
    result.scale = half_value(block, unpack.bf16);
    result.zero = unpack.has_zero_point ? half_value(block + 2, unpack.bf16) + unpack.zero_shift : unpack.zero;
    return result;
  }
  static void advance(Cursor& cursor, const Unpack& unpack) { cursor.next_codes(4 * unpack.code_bytes); }
};

// Sums of 4 products of codes and activations per 32-bit lane.
template <bool kWide>
inline __m256i multiply(__m256i codes, __m256i activations) {
  const __m256i ones = _mm256_set1_epi16(1);
  if (kWide) {
    const __m256i signed_activations = _mm256_sign_epi8(activations, codes);
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_abs_epi8(codes), signed_activations), ones);
  }
  return _mm256_madd_epi16(_mm256_maddubs_epi16(codes, activations), ones);
}

inline float horizontal_sum(__m256 v) {
  const __m128 half = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  const __m128 quarter = _mm_add_ps(half, _mm_movehl_ps(half, half));
  return _mm_cvtss_f32(_mm_add_ss(quarter, _mm_movehdup_ps(quarter)));
}

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

// ---- f32 ----

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
      _mm256_storeu_ps(values + i + lane, _mm256_mul_ps(_mm256_sub_ps(_mm256_cvtepi32_ps(wide), zero), scale));
    }
  }
}

// Decodes `count` <= kChunk weights from `first` (a multiple of kChunk) and pads with zeros to kStep.
void decode(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count, float* values) {
  const bl_format_info& info = *b.info;
  if (info.gguf_type == 8) {
    decode_integer<Q8_0>(b, unpack, row, first, count, values);
  } else if (info.gguf_type == 2) {
    decode_integer<Q4_0>(b, unpack, row, first, count, values);
  } else if (has_integer_codes(info)) {
    (info.bits == 8 ? decode_integer<Grouped<true>> : decode_integer<Grouped<false>>)(b, unpack, row, first, count,
                                                                                        values);
  } else if (b.layout == BL_LAYOUT_canonical && info.gguf_type == 1 && count % 8 == 0) {
    const uint8_t* bytes = b.block(row, first);
    for (int64_t i = 0; i < count; i += 8) {
      const __m128i half = _mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes + 2 * i));
      _mm256_storeu_ps(values + i, _mm256_cvtph_ps(half));
    }
  } else if (b.layout == BL_LAYOUT_canonical && info.gguf_type == 0) {
    std::memcpy(values, b.block(row, first), static_cast<size_t>(count) * sizeof(float));
  } else {
    decode_row(b, row, first, count, values);
  }
  std::memset(values + count, 0, static_cast<size_t>(padded_k(count) - count) * sizeof(float));
}

template <int kActivations, int kRows>
inline void block_f32(const Activations& a, const float (*weights)[kChunk], int64_t m, int64_t k, int64_t padded,
                      float* values, int64_t stride) {
  __m256 sums[kActivations][kRows];
  for (auto& row : sums) {
    for (__m256& sum : row) sum = _mm256_setzero_ps();
  }
  for (int64_t i = 0; i < padded; i += 8) {
    __m256 w[kRows];
    for (int r = 0; r < kRows; ++r) w[r] = _mm256_loadu_ps(weights[r] + i);
    for (int j = 0; j < kActivations; ++j) {
      const __m256 x = _mm256_loadu_ps(a.values + (m + j) * a.k_padded + k + i);
      for (int r = 0; r < kRows; ++r) sums[j][r] = _mm256_fmadd_ps(x, w[r], sums[j][r]);
    }
  }
  for (int j = 0; j < kActivations; ++j) {
    for (int r = 0; r < kRows; ++r) values[j * stride + r] += horizontal_sum(sums[j][r]);
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
  return info.bits == 8 ? tile_i8<Grouped<true>>(a, b, tile) : tile_i8<Grouped<false>>(a, b, tile);
}

void matmul_f32(const Activations& a, const WeightsView& b, const Tile& tile) {
  constexpr int kRows = 4;
  const Unpack unpack(*b.info);
  alignas(64) float weights[kRows][kChunk];
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    std::memset(tile.values + (m - tile.m_begin) * tile.stride, 0,
                static_cast<size_t>(tile.n_end - tile.n_begin) * sizeof(float));
  }
  for (int64_t n = tile.n_begin; n < tile.n_end; n += kRows) {
    const int64_t rows = tile.n_end - n < kRows ? tile.n_end - n : kRows;
    for (int64_t k = 0; k < b.cols; k += kChunk) {
      const int64_t count = b.cols - k < kChunk ? b.cols - k : kChunk;
      for (int64_t r = 0; r < rows; ++r) decode(b, unpack, n + r, k, count, weights[r]);
      float* out = tile.values + (n - tile.n_begin);
      int64_t m = tile.m_begin;
      if (rows == kRows) {
        for (; m + 2 <= tile.m_end; m += 2) {
          block_f32<2, kRows>(a, weights, m, k, padded_k(count), out + (m - tile.m_begin) * tile.stride, tile.stride);
        }
        for (; m < tile.m_end; ++m) {
          block_f32<1, kRows>(a, weights, m, k, padded_k(count), out + (m - tile.m_begin) * tile.stride, tile.stride);
        }
      } else {
        for (; m < tile.m_end; ++m) {
          for (int64_t r = 0; r < rows; ++r) {
            block_f32<1, 1>(a, weights + r, m, k, padded_k(count), out + (m - tile.m_begin) * tile.stride + r,
                            tile.stride);
          }
        }
      }
    }
  }
}

#include "../../isa/end.h"
#endif  // __x86_64__
