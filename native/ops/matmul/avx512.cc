// matmul at level avx512. Same structure as avx2.cc, only wider.
//
// i8, per step of 64 weights of a row: unpack the codes to bytes (3 instructions for any width: bring each
// code's bytes into its 8-byte lane with vpermb, shift every code to its byte with vpmultishiftqb, mask and
// flip with one vpternlog), vpdpbusd with the activations, convert, and multiply-add with the scales.
// Eight rows at a time share the activations and give the memory eight streams.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>

#include "../../isa/avx512_begin.h"

namespace {

constexpr int64_t kChunk = 256;  // weights decoded at a time by the f32 kernel; a multiple of all blocks

// Stands in for the second block of a step where the row has an odd number of blocks.
alignas(64) const uint8_t kZeroBlock[64] = {};

inline float half_value(const uint8_t* bytes, bool bf16) {
  const uint16_t bits = load_as<uint16_t>(bytes);
  return bf16 ? bf16_to_f32(bits) : _cvtsh_ss(bits);
}

// Lanes 0-7 of a, lanes 8-15 of b.
inline __m512 pair(float a, float b) {
  return _mm512_insertf32x8(_mm512_set1_ps(a), _mm256_set1_ps(b), 1);
}

// Scales of two f16 values at a and b, 8 lanes each.
inline __m512 half_pair(const uint8_t* a, const uint8_t* b) {
  const __m256i bits = _mm256_mask_set1_epi16(_mm256_set1_epi16(load_as<int16_t>(a)), 0xff00, load_as<int16_t>(b));
  return _mm512_cvtph_ps(bits);
}

// A step's worth of a weight row: 64 codes 0 to 255, a scale per lane of 4 codes.
struct Step {
  __m512i codes;
  __m512 scale;
  __m512 zero;  // only where kZeroPoints
};

// What a format needs beside its bytes, made once per call.
struct Unpack {
  __m512i spread, shifts, mask, flip;
  int64_t stream_bytes;  // of 64 codes
  int32_t zero;          // code of the value 0, without zero points
  float zero_shift;
  bool bf16;

  explicit Unpack(const bl_format_info& info)
      : spread(_mm512_setzero_si512()), shifts(spread), mask(spread), flip(spread), stream_bytes(0), zero(0),
        zero_shift(0), bf16(info.scale_dtype == BL_DTYPE_bf16) {
    if (info.kind == BL_KIND_block) {
      zero = info.gguf_type == 8 ? 128 : 8;
      mask = _mm512_set1_epi8(15);
      flip = _mm512_set1_epi8(static_cast<char>(0x80));
      shifts = _mm512_setr_epi64(0, 0, 4, 4, 0, 0, 4, 4);
      return;
    }
    const IntegerCodes form(info);
    // Eight codes fill exactly `bits` bytes: lane i of 8 bytes gets bytes [i*bits, i*bits + 8).
    alignas(64) uint8_t index[64];
    alignas(64) uint8_t shift[64];
    for (int i = 0; i < 64; ++i) {
      const int lane = i / 8;
      int from = lane * form.bits + i % 8;
      // Groups of 32: the second block was loaded into the upper half.
      if (info.group_size == 32 && lane >= 4) from = 32 + (lane - 4) * form.bits + i % 8;
      index[i] = static_cast<uint8_t>(from & 63);
      shift[i] = static_cast<uint8_t>((i % 8 * form.bits - form.shift) & 63);
    }
    spread = _mm512_load_si512(index);
    shifts = _mm512_load_si512(shift);
    mask = _mm512_set1_epi8(static_cast<char>(form.mask));
    flip = _mm512_set1_epi8(static_cast<char>(form.flip));
    stream_bytes = 8 * form.bits;
    zero = form.zero;
    zero_shift = form.zero_shift;
  }

  __m512i codes(__m512i raw) const {
    const __m512i lanes = _mm512_permutexvar_epi8(spread, raw);
    const __m512i shifted = _mm512_multishift_epi64_epi8(shifts, lanes);
    return _mm512_ternarylogic_epi64(shifted, mask, flip, 0x6a);  // (shifted & mask) ^ flip
  }
};

// Each format: the step at `cursor` of a row, `block` being that row's current block. kLast: part of the
// step lies past the row's end. kPaired: a step is two blocks of 32, not part of one block.
struct Q4_0 {
  static constexpr bool kPaired = true;
  static constexpr bool kZeroPoints = false;
  // 0-15 in the low nibbles, 16-31 in the high ones: lanes of 16 bytes shifted by 0, 4, 0, 4.
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* second = kLast ? kZeroBlock : block + cursor.block_stride;
    const __m512i both = _mm512_mask_broadcast_i32x4(
        _mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(block + 2))), 0xff00,
        _mm_loadu_si128(reinterpret_cast<const __m128i*>(second + 2)));
    const __m512i codes = _mm512_and_si512(_mm512_srlv_epi64(both, unpack.shifts), unpack.mask);
    return {codes, half_pair(block, second), _mm512_setzero_ps()};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(2); }
};

struct Q8_0 {
  static constexpr bool kPaired = true;
  static constexpr bool kZeroPoints = false;
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    const uint8_t* second = kLast ? kZeroBlock : block + cursor.block_stride;
    const __m256i low = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(block + 2));
    const __m256i high = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(second + 2));
    const __m512i codes = _mm512_xor_si512(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1), unpack.flip);
    return {codes, half_pair(block, second), _mm512_setzero_ps()};
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(2); }
};

// Groups of 32: two blocks a step.
template <bool kZero>
struct Grouped32 {
  static constexpr bool kPaired = true;
  static constexpr bool kZeroPoints = kZero;
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    constexpr int64_t kHead = kZero ? 4 : 2;
    const uint8_t* second = kLast ? kZeroBlock : block + cursor.block_stride;
    const __mmask32 bytes = static_cast<__mmask32>((uint64_t{1} << (unpack.stream_bytes / 2)) - 1);
    const __m256i low = _mm256_maskz_loadu_epi8(bytes, block + kHead);
    const __m256i high = _mm256_maskz_loadu_epi8(bytes, second + kHead);
    Step result;
    result.codes = unpack.codes(_mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1));
    result.scale = pair(half_value(block, unpack.bf16), half_value(second, unpack.bf16));
    if (kZero) {
      result.zero = _mm512_add_ps(pair(half_value(block + 2, unpack.bf16), half_value(second + 2, unpack.bf16)),
                                  _mm512_set1_ps(unpack.zero_shift));
    }
    return result;
  }
  static void advance(Cursor& cursor, const Unpack&) { cursor.next_blocks(2); }
};

// Groups of 64 and more, and whole rows: a step lies in one block.
template <bool kZero>
struct GroupedWide {
  static constexpr bool kPaired = false;
  static constexpr bool kZeroPoints = kZero;
  template <bool kLast>
  static Step load(const uint8_t* block, const Cursor& cursor, const Unpack& unpack) {
    constexpr int64_t kHead = kZero ? 4 : 2;
    // Only the last step of a `_row` block can be short.
    int64_t count = unpack.stream_bytes;
    if (kLast && cursor.block_code_bytes - cursor.code_offset < count) {
      count = cursor.block_code_bytes - cursor.code_offset;
    }
    const __mmask64 bytes = _bzhi_u64(~uint64_t{0}, static_cast<uint32_t>(count));
    Step result;
    result.codes = unpack.codes(_mm512_maskz_loadu_epi8(bytes, block + kHead + cursor.code_offset));
    result.scale = _mm512_set1_ps(half_value(block, unpack.bf16));
    if (kZero) result.zero = _mm512_set1_ps(half_value(block + 2, unpack.bf16) + unpack.zero_shift);
    return result;
  }
  static void advance(Cursor& cursor, const Unpack& unpack) { cursor.next_codes(unpack.stream_bytes); }
};

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
    const Step weights = Format::template load<kLast>(block, cursor, unpack);
    for (int i = 0; i < kActivations; ++i) {
      __m512 product = _mm512_cvtepi32_ps(_mm512_dpbusd_epi32(start[i], weights.codes, activations[i]));
      if (Format::kZeroPoints) product = _mm512_fnmadd_ps(weights.zero, a_sum[i], product);
      sums[i][r] = _mm512_fmadd_ps(product, _mm512_mul_ps(weights.scale, a_scale[i]), sums[i][r]);
    }
  }
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

// ---- f32 ----

// 16 weights of a code width up to 4 bits by table, others by arithmetic; see decode_grouped.
inline __m512 decode_floats_f16(const uint8_t* bytes) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)));
}

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

// Decodes `count` <= kChunk weights from `first` (a multiple of kChunk) and pads with zeros to kStep.
void decode(const WeightsView& b, const Unpack& unpack, int64_t row, int64_t first, int64_t count, float* values) {
  const bl_format_info& info = *b.info;
  const int64_t padded = padded_k(count);
  if (has_integer_codes(info)) {
    const bool narrow = info.group_size == 32;
    if (info.gguf_type == 8) {
      decode_integer<Q8_0>(b, unpack, row, first, count, values);
    } else if (info.gguf_type == 2) {
      decode_integer<Q4_0>(b, unpack, row, first, count, values);
    } else if (info.has_zero_point) {
      (narrow ? decode_integer<Grouped32<true>> : decode_integer<GroupedWide<true>>)(b, unpack, row, first, count,
                                                                                       values);
    } else {
      (narrow ? decode_integer<Grouped32<false>> : decode_integer<GroupedWide<false>>)(b, unpack, row, first, count,
                                                                                         values);
    }
  } else if (b.layout == BL_LAYOUT_canonical && info.gguf_type == 1 && count % 16 == 0) {
    const uint8_t* bytes = b.block(row, first);
    for (int64_t i = 0; i < count; i += 16) _mm512_storeu_ps(values + i, decode_floats_f16(bytes + 2 * i));
  } else if (b.layout == BL_LAYOUT_canonical && info.gguf_type == 0) {
    std::memcpy(values, b.block(row, first), static_cast<size_t>(count) * sizeof(float));
  } else {
    decode_row(b, row, first, count, values);
  }
  std::memset(values + count, 0, static_cast<size_t>(padded - count) * sizeof(float));
}

// values[i][r] += a[m + i][k, k + padded) . weights[r]
template <int kActivations, int kRows>
inline void block_f32(const Activations& a, const float (*weights)[kChunk], int64_t m, int64_t k, int64_t padded,
                      float* values, int64_t stride) {
  __m512 sums[kActivations][kRows];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  for (int64_t i = 0; i < padded; i += 16) {
    __m512 w[kRows];
    for (int r = 0; r < kRows; ++r) w[r] = _mm512_loadu_ps(weights[r] + i);
    for (int j = 0; j < kActivations; ++j) {
      const __m512 x = _mm512_loadu_ps(a.values + (m + j) * a.k_padded + k + i);
      for (int r = 0; r < kRows; ++r) sums[j][r] = _mm512_fmadd_ps(x, w[r], sums[j][r]);
    }
  }
  for (int j = 0; j < kActivations; ++j) {
    for (int r = 0; r < kRows; ++r) values[j * stride + r] += _mm512_reduce_add_ps(sums[j][r]);
  }
}

}  // namespace

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const __m512 magnitude_limit = _mm512_set1_ps(3.4028235e38f);
  for (int64_t begin = 0; begin < padded_k(k); begin += kGroup) {
    const int64_t count = begin >= k ? 0 : (k - begin < kGroup ? k - begin : kGroup);
    const __mmask16 low_mask = static_cast<__mmask16>(count >= 16 ? 0xffff : (1 << count) - 1);
    const __mmask16 high_mask = static_cast<__mmask16>(count >= 32 ? 0xffff : count <= 16 ? 0 : (1 << (count - 16)) - 1);
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

void matmul_i8(const Activations& a, const WeightsView& b, const Tile& tile) {
  const bl_format_info& info = *b.info;
  if (info.gguf_type == 8) return tile_i8<Q8_0>(a, b, tile);
  if (info.gguf_type == 2) return tile_i8<Q4_0>(a, b, tile);
  if (info.group_size == 32) {
    return info.has_zero_point ? tile_i8<Grouped32<true>>(a, b, tile) : tile_i8<Grouped32<false>>(a, b, tile);
  }
  return info.has_zero_point ? tile_i8<GroupedWide<true>>(a, b, tile) : tile_i8<GroupedWide<false>>(a, b, tile);
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
        for (; m + 4 <= tile.m_end; m += 4) {
          block_f32<4, kRows>(a, weights, m, k, padded_k(count), out + (m - tile.m_begin) * tile.stride, tile.stride);
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
