// Layout lanes16 in int8 at level avx512; included inside the region by avx512_i8.cc.
//
// A lane of 32 bits belongs to one of sixteen rows, so that sums stay in their lanes and sixteen scales convert
// at once. For 16 x 32 weights in q4_0 (288 bytes): 4 ands, 4 shifts, 8 products with four activations
// broadcast, an addition, a conversion, 2 for the scales, 2 multiplies: 22 vector instructions on two ports, 11
// cycles, where memory takes 48; q8_0 (544 bytes): 8 flips instead of the shifts and ands. Two panels at a
// time, each with the prefetch of what this thread reads next.

namespace {

inline __m512i four_activations(const int8_t* codes) { return _mm512_set1_epi32(load_as<int32_t>(codes)); }

// product[x] = sums of 32 products of each row, for the block of sixteen at `block`.
template <bool kNibbles, int kActivations>
inline void lane_products(const uint8_t* block, const int8_t* const* codes, const int32_t* const* starts,
                          __m512i* product) {
  const __m512i mask = _mm512_set1_epi8(15);
  const __m512i shift_4 = _mm512_set1_epi64(0x1020408000000000);  // as in avx512_q4_0.inl
  const __m512i flip = _mm512_set1_epi8(static_cast<char>(0x80));
  __m512i second[kActivations];  // two chains of additions are half as long
  for (int x = 0; x < kActivations; ++x) {
    product[x] = broadcast_16(starts[x] + 4);
    second[x] = _mm512_setzero_si512();
  }
  for (int i = 0; i < 4; ++i) {
    const __m512i v = _mm512_loadu_si512(block + lane_codes(0, i));
    const __m512i w = kNibbles ? v : _mm512_loadu_si512(block + lane_codes(0, i + 4));
    const __m512i low = kNibbles ? _mm512_and_si512(v, mask) : _mm512_xor_si512(v, flip);
    const __m512i high = kNibbles ? _mm512_gf2p8affine_epi64_epi8(w, shift_4, 0) : _mm512_xor_si512(w, flip);
    for (int x = 0; x < kActivations; ++x) {
      product[x] = _mm512_dpbusd_epi32(product[x], low, four_activations(codes[x] + 4 * i));
      second[x] = _mm512_dpbusd_epi32(second[x], high, four_activations(codes[x] + 16 + 4 * i));
    }
  }
  for (int x = 0; x < kActivations; ++x) product[x] = _mm512_add_epi32(product[x], second[x]);
}

// kPanels times sixteen rows from n on; kActivations rows of a from m on.
template <bool kNibbles, int kActivations, int kPanels>
inline void block_lanes(const Activations& a, const WeightsView& b, int64_t m, int64_t n, float* values,
                        int64_t stride) {
  constexpr int64_t kBytes = kLaneRows * (kNibbles ? 18 : 34);
  const uint8_t* panel = b.lane_block(n, 0);
  const int64_t panel_bytes = kLaneRows * b.row_bytes;
  __m512 sums[kActivations][kPanels];
  for (auto& row : sums) {
    for (__m512& sum : row) sum = _mm512_setzero_ps();
  }
  const int64_t groups = a.k_padded / kGroup;
  for (int64_t j = 0; j < b.cols / kGroup; ++j, panel += kBytes) {
    const int8_t* codes[kActivations];
    const int32_t* starts[kActivations];
    for (int x = 0; x < kActivations; ++x) {
      codes[x] = a.codes + ((m + x) * groups + j) * kGroup;
      starts[x] = a.starts + ((m + x) * groups + j) * 8;
    }
    for (int p = 0; p < kPanels; ++p) {
      const uint8_t* block = panel + p * panel_bytes;
      const char* next = reinterpret_cast<const char*>(block + kPanels * panel_bytes);
      for (int64_t line = 0; line < kBytes; line += 64) _mm_prefetch(next + line, _MM_HINT_T0);
      const __m512 scale = _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(block)));
      __m512i product[kActivations];
      lane_products<kNibbles, kActivations>(block, codes, starts, product);
      for (int x = 0; x < kActivations; ++x) {
        const __m512 both = _mm512_mul_ps(scale, _mm512_set1_ps(a.scales[(m + x) * groups + j]));
        sums[x][p] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(product[x]), both, sums[x][p]);
      }
    }
  }
  for (int x = 0; x < kActivations; ++x) {
    for (int p = 0; p < kPanels; ++p) _mm512_storeu_ps(values + x * stride + p * kLaneRows, sums[x][p]);
  }
}

// The rows of a tile that lie in lanes; gives the first that does not.
template <bool kNibbles>
int64_t tile_lanes(const Activations& a, const WeightsView& b, const Tile& tile) {
  int64_t n = tile.n_begin;
  for (; n + kLaneRows <= tile.n_end && b.in_lanes(n + kLaneRows - 1);) {
    const bool two = n + 2 * kLaneRows <= tile.n_end && b.in_lanes(n + 2 * kLaneRows - 1);
    float* out = tile.values + (n - tile.n_begin);
    int64_t m = tile.m_begin;
    for (; m + 4 <= tile.m_end; m += 4, out += 4 * tile.stride) {
      block_lanes<kNibbles, 4, 1>(a, b, m, n, out, tile.stride);
      if (two) block_lanes<kNibbles, 4, 1>(a, b, m, n + kLaneRows, out + kLaneRows, tile.stride);
    }
    for (; m < tile.m_end; ++m, out += tile.stride) {
      (two ? block_lanes<kNibbles, 1, 2> : block_lanes<kNibbles, 1, 1>)(a, b, m, n, out, tile.stride);
    }
    n += two ? 2 * kLaneRows : kLaneRows;
  }
  return n;
}

}  // namespace
