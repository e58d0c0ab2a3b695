// q4_0 in int8 at level avx512; included inside the region by avx512_i8.cc.
//
// A block is 16 bytes: weights 0-15 in the low nibbles, 16-31 in the high ones. One vector holds the block of
// four rows, so that two vpdpbusd, one conversion and one multiply-add serve 4 x 32 weights:
//
//   lanes 0-3: row 0, lanes 4-7: row 1, lanes 8-11: row 2, lanes 12-15: row 3 (a lane is four codes)
//   sum = start + low nibbles . a[0, 16) + high nibbles . a[16, 32)        start = -8 * sum of a
//
// For 128 weights (72 bytes): 3 blends of broadcasting loads, and, shift, 2 products, a conversion, a shuffle
// for the scales, a multiply-add: 10 vector instructions on two ports, 5 cycles; and per 512 weights a gather
// of 16 scales and their conversion, 2.5 cycles per 128. Memory delivers 6 bytes a cycle: 12 cycles.

namespace {

// kQuads groups of 4 rows from n on; kActivations rows of a from m on. Of the weight rows only the first
// `rows` exist: the others are read as the first one, by a stride of zero, when kFull is false.
template <bool kFull, int kActivations, int kQuads>
inline void block_q4_0(const Activations& a, const WeightsView& b, int64_t m, int64_t n, int64_t rows,
                       float* values, int64_t stride) {
  constexpr int kRows = 4 * kQuads;
  constexpr int kBlocks = 4;  // per gather of scales
  const Cursor first(b, n);
  const uint8_t* block = first.block;
  const int64_t row_stride = first.row_stride;
  const int64_t block_stride = first.block_stride;
  const auto row = [&](int r) { return kFull || r < rows ? r * row_stride : 0; };
  const __m512i none = _mm512_setzero_si512();
  const __m512i mask = _mm512_set1_epi8(15);
  // A bit matrix for vgf2p8affineqb: bit i of the result is bit i + 4 of the byte.
  const __m512i shift_4 = _mm512_set1_epi64(0x1020408000000000);
  // Lane 4j + r of a gather is the scale of block j of row r; lane 4r + i of a product belongs to row r.
  const __m512i row_of_lane = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
  const __m512i four = _mm512_set1_epi32(4);
  __m512 sums[kActivations][kQuads];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  __m512i offsets[kQuads];
  for (int q = 0; q < kQuads; ++q) {
    alignas(64) int32_t lanes[16];
    for (int lane = 0; lane < 16; ++lane) {
      lanes[lane] = static_cast<int32_t>(row(4 * q + lane % 4) + lane / 4 * block_stride);
    }
    offsets[q] = _mm512_load_si512(lanes);
  }
  const int64_t blocks = b.cols / kGroup;
  for (int64_t j = 0; j < blocks; j += kBlocks) {
    const int64_t count = blocks - j < kBlocks ? blocks - j : kBlocks;
    __m512 scales[kQuads];
    for (int q = 0; q < kQuads; ++q) {
      const __mmask16 exist = static_cast<__mmask16>((1u << (4 * count)) - 1);
      const __m512i words = _mm512_mask_i32gather_epi32(none, exist, offsets[q], block, 1);
      scales[q] = _mm512_cvtph_ps(_mm512_cvtepi32_epi16(words));  // a word is a scale and two bytes of codes
      if (kActivations == 1) {
        const __m512i a_scales = broadcast_16(a.scales + m * a.k_padded / kGroup + j);
        scales[q] = _mm512_mul_ps(scales[q], _mm512_permutexvar_ps(row_of_lane, _mm512_castsi512_ps(a_scales)));
      }
    }
    for (int r = 0; r < kRows; ++r) {
      // The next rows are what this thread reads next; see step_i8. 4 blocks are 72 bytes.
      _mm_prefetch(reinterpret_cast<const char*>(block + (kRows + r) * row_stride), _MM_HINT_T0);
    }
    __m512i pick = row_of_lane;
    for (int64_t i = 0; i < count; ++i, pick = _mm512_add_epi32(pick, four), block += block_stride) {
      __m512i low[kActivations], high[kActivations];
      __m512 a_scale[kActivations];
      const int64_t group = m * a.k_padded / kGroup + j + i;
      for (int x = 0; x < kActivations; ++x) {
        const int64_t at = group + x * (a.k_padded / kGroup);
        low[x] = broadcast_16(a.codes + at * kGroup);
        high[x] = broadcast_16(a.codes + at * kGroup + 16);
        a_scale[x] = _mm512_set1_ps(a.scales[at]);
      }
      for (int q = 0; q < kQuads; ++q) {
        const auto load = [&](int r) { return broadcast_16(block + row(4 * q + r) + 2); };
        const __m512i pair_low = _mm512_mask_blend_epi64(0x0c, load(0), load(1));
        const __m512i pair_high = _mm512_mask_blend_epi64(0xc0, load(2), load(3));
        const __m512i codes = _mm512_mask_blend_epi64(0xf0, pair_low, pair_high);
        const __m512i low_codes = _mm512_and_si512(codes, mask);
        const __m512i high_codes = _mm512_gf2p8affine_epi64_epi8(codes, shift_4, 0);
        const __m512 scale = _mm512_permutexvar_ps(pick, scales[q]);
        for (int x = 0; x < kActivations; ++x) {
          __m512i product = broadcast_16(a.starts + 8 * (group + x * (a.k_padded / kGroup)));
          product = _mm512_dpbusd_epi32(product, low_codes, low[x]);
          product = _mm512_dpbusd_epi32(product, high_codes, high[x]);
          // One row of a: its scales are in already.
          const __m512 both = kActivations == 1 ? scale : _mm512_mul_ps(scale, a_scale[x]);
          sums[x][q] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product), both, sums[x][q]);
        }
      }
    }
  }
  for (int x = 0; x < kActivations; ++x) {
    for (int q = 0; q < kQuads; ++q) {
      const __m512 twos = _mm512_add_ps(sums[x][q], _mm512_permute_ps(sums[x][q], 0x4e));
      alignas(64) float fours[16];
      _mm512_store_ps(fours, _mm512_add_ps(twos, _mm512_permute_ps(twos, 0xb1)));
      for (int r = 0; r < 4 && 4 * q + r < rows; ++r) values[x * stride + 4 * q + r] = fours[4 * r];
    }
  }
}

template <bool kFull>
void rows_q4_0(const Activations& a, const WeightsView& b, const Tile& tile, int64_t n, int64_t rows) {
  float* out = tile.values + (n - tile.n_begin);
  int64_t m = tile.m_begin;
  for (; m + 4 <= tile.m_end; m += 4) {
    block_q4_0<kFull, 4, 2>(a, b, m, n, rows, out + (m - tile.m_begin) * tile.stride, tile.stride);
  }
  for (; m < tile.m_end; ++m) {
    block_q4_0<kFull, 1, 2>(a, b, m, n, rows, out + (m - tile.m_begin) * tile.stride, tile.stride);
  }
}

void tile_q4_0(const Activations& a, const WeightsView& b, const Tile& tile) {
  int64_t n = tile.n_begin;
  for (; n + 8 <= tile.n_end; n += 8) rows_q4_0<true>(a, b, tile, n, 8);
  if (n < tile.n_end) rows_q4_0<false>(a, b, tile, n, tile.n_end - n);
}

}  // namespace
