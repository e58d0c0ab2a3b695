// Vectors of 16 for attention in integers: four rows to four numbers, floats to bytes, codes out of their dwords. Included by
// integers.inl.

namespace {

// ---- four vectors to four numbers ----

inline __m512 as_ps(__m512i x) { return _mm512_castsi512_ps(x); }
inline __m512i as_ints(__m512 x) { return _mm512_castps_si512(x); }

// How two lanes become one. Structures, not lambdas: GCC gives those the target of the file.
struct Largest {
  static __m512 join(__m512 a, __m512 b) { return _mm512_max_ps(a, b); }
};
struct Sum {
  static __m512 join(__m512 a, __m512 b) { return _mm512_add_ps(a, b); }
};
// Of magnitudes as bits, in which order NaN comes last and so stays.
struct LargestBits {
  static __m512 join(__m512 a, __m512 b) { return as_ps(_mm512_max_epi32(as_ints(a), as_ints(b))); }
};
struct IntegerSum {
  static __m512 join(__m512 a, __m512 b) { return as_ps(_mm512_add_epi32(as_ints(a), as_ints(b))); }
};

// Element r: the lanes of rows[r] together.
template <typename How>
inline __m128 join_lanes(const __m512 (&rows)[kGroup]) {
  const __m512 low = How::join(_mm512_unpacklo_ps(rows[0], rows[1]), _mm512_unpackhi_ps(rows[0], rows[1]));
  const __m512 high = How::join(_mm512_unpacklo_ps(rows[2], rows[3]), _mm512_unpackhi_ps(rows[2], rows[3]));
  const __m512 all = How::join(_mm512_shuffle_ps(low, high, 0x44), _mm512_shuffle_ps(low, high, 0xee));
  const __m512 half = How::join(all, _mm512_shuffle_f32x4(all, all, 0x4e));
  return _mm512_castps512_ps128(How::join(half, _mm512_shuffle_f32x4(half, half, 0xb1)));
}

// levels / largest, or 0 where that is not finite (largest 0, too small, not finite itself).
inline __m128 inverse_of(__m128 largest, float levels) {
  const __m128 inverse = _mm_div_ps(_mm_set1_ps(levels), largest);
  return _mm_maskz_mov_ps(_mm_cmp_ps_mask(inverse, _mm_set1_ps(__builtin_inff()), _CMP_LT_OQ), inverse);
}

// 64 numbers, rounded to nearest even, as bytes in their order.
template <bool kSigned>
inline __m512i to_bytes(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
  const __m512i ints[4] = {_mm512_cvtps_epi32(a), _mm512_cvtps_epi32(b), _mm512_cvtps_epi32(c), _mm512_cvtps_epi32(d)};
  if constexpr (kSigned) {
    const __m512i low = _mm512_packs_epi32(ints[0], ints[1]);
    return _mm512_permutexvar_epi32(order, _mm512_packs_epi16(low, _mm512_packs_epi32(ints[2], ints[3])));
  } else {
    const __m512i low = _mm512_packus_epi32(ints[0], ints[1]);
    return _mm512_permutexvar_epi32(order, _mm512_packus_epi16(low, _mm512_packus_epi32(ints[2], ints[3])));
  }
}

// 2^x, 0 below -160, NaN for NaN: minimax polynomial of degree 5 on [0, 1), relative error 7.5e-8 and its rounding.
inline __m512 exp2_of(__m512 x) {
  x = _mm512_max_ps(_mm512_set1_ps(-160.0f), x);  // in this order a NaN x stays
  const __m512 r = _mm512_reduce_ps(x, 1);        // x - floor(x)
  __m512 p = _mm512_set1_ps(0.0018775766948238015f);
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.008989340625703335f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.05582631751894951f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.24015361070632935f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.6931530833244324f));
  p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(0.9999999403953552f));
  return _mm512_scalef_ps(p, x);
}

// ---- codes ----

// Part `part` of dwords of codes, a code in each byte: from 0 (kSigned false), or with zero_of() taken off.
// One affine map over GF(2) for each byte: shift, mask and sign at once.
template <int kBits, bool kSigned>
inline __m512i codes_of(__m512i dwords, int part) {
  if constexpr (kBits == 8) {
    return kSigned ? dwords : _mm512_xor_si512(dwords, _mm512_set1_epi8(static_cast<char>(0x80)));
  } else if constexpr (kBits == 4) {
    constexpr int64_t kMatrix = kSigned ? 0x0102040808080808 : 0x0102040800000000;
    return _mm512_gf2p8affine_epi64_epi8(dwords, _mm512_set1_epi64(kMatrix << (4 * part)), kSigned ? 0xf8 : 0);
  } else {
    constexpr int64_t kMatrix = kSigned ? 0x0102020202020202 : 0x0102000000000000;
    return _mm512_gf2p8affine_epi64_epi8(dwords, _mm512_set1_epi64(kMatrix << (2 * part)), kSigned ? 0xfe : 0);
  }
}

}  // namespace
