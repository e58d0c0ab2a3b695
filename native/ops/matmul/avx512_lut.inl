// What the lut kernels at level avx512 share; included inside the region.

#include "avx512_scales.inl"

namespace {

// Bytes from what is read to what is fetched into the L2. Panels are short streams (8 KB at 1 bit and K =
// 4096), each too short for the processor's own prefetching: measured cold, 512 ahead 220 us, 1024 190, 2048
// 170, 4096 162.
constexpr int64_t kAhead = 4096;

// What makes indices of codes, in registers.
struct IndexConstants {
  __m512i transpose, nibble, lanes;

  IndexConstants() {
    const __m512i rows = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
    lanes = _mm512_set1_epi32(0x30201000);
    transpose = _mm512_add_epi32(_mm512_mullo_epi32(rows, _mm512_set1_epi32(0x01010101)), lanes);
    nibble = _mm512_set1_epi8(15);
  }
};

// Indices into four tables of the two nibbles of a run.
struct Indices {
  __m512i half[2];
};

inline Indices indices(const uint8_t* run, const IndexConstants& k) {
  constexpr int kAndOr = 0xEA;  // (a & b) | c
  const __m512i bytes = _mm512_permutexvar_epi8(k.transpose, _mm512_loadu_si512(run));
  return {{_mm512_ternarylogic_epi32(bytes, k.nibble, k.lanes, kAndOr),
           _mm512_ternarylogic_epi32(_mm512_srli_epi16(bytes, 4), k.nibble, k.lanes, kAndOr)}};
}

inline __m512 load_halves(const uint8_t* from, bool bf16) {
  const __m256i halves = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from));
  return bf16 ? _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(halves), 16))
              : _mm512_cvtph_ps(halves);
}

// Scales of one byte (bfp) are powers of two.
inline __m512 load_scales(const PanelFormat& f, const uint8_t* from, bool bf16) {
  return f.scale_bytes == 1 ? exponent_scales(from) : load_halves(from, bf16);
}

// -scale * (stored + shift), the sign last as in panel_offset().
inline __m512 zero_point_offset(const PanelFormat& f, const uint8_t* block, __m512 scale, bool bf16) {
  const __m512 stored = load_halves(block + f.offset_offset, bf16);
  const __m512 product = _mm512_mul_ps(scale, _mm512_add_ps(stored, _mm512_set1_ps(f.zero_shift)));
  return _mm512_xor_ps(product, _mm512_set1_ps(-0.0f));
}

// How far ahead of byte `at` of each panel to fetch; past a panel's end follow this thread's next panels.
inline int64_t ahead_of(const PanelFormat& f, const Tile& tile, int64_t at) {
  return at + kAhead < f.panel_bytes ? kAhead : kAhead + (tile.panel_count - 1) * tile.panel_stride;
}

}  // namespace
