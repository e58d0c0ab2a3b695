// rows[i] lane j becomes rows[j] lane i. Included inside the region, after simd_avx512.inl.

// Pairs of rows, fours, then quarters of vectors in two steps: 64 shuffles.
inline void transpose(Vec (&rows)[16]) {
  __m512 fours[16];  // fours[4 g + i]: lanes i, i + 4, i + 8, i + 12 of rows 4 g to 4 g + 3
  for (int i = 0; i < 16; i += 4) {
    const __m512 low01 = _mm512_unpacklo_ps(rows[i].v, rows[i + 1].v);
    const __m512 high01 = _mm512_unpackhi_ps(rows[i].v, rows[i + 1].v);
    const __m512 low23 = _mm512_unpacklo_ps(rows[i + 2].v, rows[i + 3].v);
    const __m512 high23 = _mm512_unpackhi_ps(rows[i + 2].v, rows[i + 3].v);
    fours[i] = _mm512_shuffle_ps(low01, low23, 0x44);
    fours[i + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
    fours[i + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
    fours[i + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
  }
  for (int i = 0; i < 4; ++i) {
    const __m512 low = _mm512_shuffle_f32x4(fours[i], fours[i + 4], 0x44);   // quarters 0 1 of each
    const __m512 high = _mm512_shuffle_f32x4(fours[i], fours[i + 4], 0xee);  // quarters 2 3
    const __m512 low2 = _mm512_shuffle_f32x4(fours[i + 8], fours[i + 12], 0x44);
    const __m512 high2 = _mm512_shuffle_f32x4(fours[i + 8], fours[i + 12], 0xee);
    rows[i].v = _mm512_shuffle_f32x4(low, low2, 0x88);
    rows[i + 4].v = _mm512_shuffle_f32x4(low, low2, 0xdd);
    rows[i + 8].v = _mm512_shuffle_f32x4(high, high2, 0x88);
    rows[i + 12].v = _mm512_shuffle_f32x4(high, high2, 0xdd);
  }
}
