// rows[i] lane j becomes rows[j] lane i. Included inside the region, after simd_neon.inl.

// Transposes 4 x 4.
inline void transpose_four(float32x4_t& a, float32x4_t& b, float32x4_t& c, float32x4_t& d) {
  const float32x4_t first = vtrn1q_f32(a, b), second = vtrn2q_f32(a, b);
  const float32x4_t third = vtrn1q_f32(c, d), fourth = vtrn2q_f32(c, d);
  const auto low = [](float32x4_t x, float32x4_t y) {
    return vcombine_f32(vget_low_f32(x), vget_low_f32(y));
  };
  const auto high = [](float32x4_t x, float32x4_t y) {
    return vcombine_f32(vget_high_f32(x), vget_high_f32(y));
  };
  a = low(first, third);
  b = low(second, fourth);
  c = high(first, third);
  d = high(second, fourth);
}

// Squares of four in place, then the two off the diagonal change places.
inline void transpose(Vec (&rows)[8]) {
  transpose_four(rows[0].low, rows[1].low, rows[2].low, rows[3].low);
  transpose_four(rows[0].high, rows[1].high, rows[2].high, rows[3].high);
  transpose_four(rows[4].low, rows[5].low, rows[6].low, rows[7].low);
  transpose_four(rows[4].high, rows[5].high, rows[6].high, rows[7].high);
  for (int i = 0; i < 4; ++i) {
    const float32x4_t above = rows[i].high;
    rows[i].high = rows[i + 4].low;
    rows[i + 4].low = above;
  }
}
