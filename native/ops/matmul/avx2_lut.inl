// What the lut kernels at level avx2 share; included inside the region.

#include "avx2_scales.inl"

namespace {

constexpr int kPairs = 4;  // of panels: eight streams of weights
constexpr int kRows = 4;
constexpr int64_t kAhead = 4096;  // as avx512_lut_i8.cc

// Sixteen rows of two panels: rows 4i + x of the first panel, then of the second.
struct Four {
  __m256 of[4];
};

inline __m256 widen(__m128i halves, bool bf16) {
  return bf16 ? _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(halves), 16))
              : _mm256_cvtph_ps(halves);
}

inline Four load_halves(const uint8_t* p, const uint8_t* q, bool bf16) {
  Four result;
  for (int i = 0; i < 2; ++i) {
    const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * i));
    const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16 * i));
    result.of[2 * i] = widen(_mm_unpacklo_epi64(first, second), bf16);
    result.of[2 * i + 1] = widen(_mm_unpackhi_epi64(first, second), bf16);
  }
  return result;
}

// Scales of one byte (bfp): powers of two.
inline Four load_exponents(const uint8_t* p, const uint8_t* q) {
  Four result;
  for (int i = 0; i < 4; ++i) {
    uint8_t eight[8];
    std::memcpy(eight, p + 4 * i, 4);
    std::memcpy(eight + 4, q + 4 * i, 4);
    result.of[i] = exponent_scales(eight);
  }
  return result;
}

inline Four load_scales(const PanelFormat& f, const uint8_t* p, const uint8_t* q, bool bf16) {
  return f.scale_bytes == 1 ? load_exponents(p, q) : load_halves(p, q, bf16);
}

// -(scale * (stored + shift))
inline Four zero_point_offsets(const PanelFormat& f, const uint8_t* p, const uint8_t* q, const Four& scales,
                               bool bf16) {
  Four stored = load_halves(p + f.offset_offset, q + f.offset_offset, bf16);
  for (int i = 0; i < 4; ++i) {
    const __m256 sum = _mm256_add_ps(stored.of[i], _mm256_set1_ps(f.zero_shift));
    stored.of[i] = _mm256_xor_ps(_mm256_mul_ps(scales.of[i], sum), _mm256_set1_ps(-0.0f));
  }
  return stored;
}

inline __m256i table(const uint8_t* from) {
  return _mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(from)));
}

// Byte 16j + row of a run of two panels.
inline __m256i load_run(const uint8_t* p, const uint8_t* q, int j) {
  const __m128i first = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p + 16 * j));
  const __m128i second = _mm_loadu_si128(reinterpret_cast<const __m128i*>(q + 16 * j));
  return _mm256_inserti128_si256(_mm256_castsi128_si256(first), second, 1);
}

inline void load_sums(const Tile& tile, int64_t m, int pair, Four* sums) {
  const float* values = tile.values + m * tile.stride + 2 * kPanelRows * pair;
  const int64_t second = 2 * pair + 1 < tile.panel_count ? kPanelRows : 0;
  for (int i = 0; i < 4; ++i) {
    sums->of[i] = tile.accumulate
                      ? _mm256_set_m128(_mm_loadu_ps(values + second + 4 * i), _mm_loadu_ps(values + 4 * i))
                      : _mm256_setzero_ps();
  }
}

inline void store_sums(const Tile& tile, int64_t m, int pair, const Four& sums) {
  float* values = tile.values + m * tile.stride + 2 * kPanelRows * pair;
  for (int i = 0; i < 4; ++i) {
    _mm_storeu_ps(values + 4 * i, _mm256_castps256_ps128(sums.of[i]));
    if (2 * pair + 1 == tile.panel_count) continue;
    _mm_storeu_ps(values + kPanelRows + 4 * i, _mm256_extractf128_ps(sums.of[i], 1));
  }
}

}  // namespace
