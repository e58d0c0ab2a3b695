// Scales of a panel's sixteen rows. Included in regions of levels avx512 and amx.

// Sixteen stored scales as f32.
inline __m512 stored_scales(const PanelFormat& f, const uint8_t* at) {
  if (f.scale_type == BL_SCALE_e8m0) return exponent_scales(at);
  if (f.scale_type == BL_SCALE_e4m3) return e4m3_scales(at);
  const __m256i bits = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at));
  if (f.scale_type != BL_DTYPE_bf16) return _mm512_cvtph_ps(bits);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bits), 16));
}

// Sub-scale u of sixteen rows (panel.h), as integers.
inline __m512i sub_scales(const PanelFormat& f, const uint8_t* block, int64_t u) {
  // n = sub_count * bits / 8 is a power of two, 4 to 32.
  const auto part = [&](const uint8_t* plane, int bits) {
    const int n = f.sub_count * bits / 8;
    const __m128i bytes = _mm_loadu_si128(reinterpret_cast<const __m128i*>(plane + 16 * (u & (n - 1))));
    const int64_t shift = bits * (u >> __builtin_ctz(static_cast<unsigned>(n)));
    const __m512i words = _mm512_srl_epi32(_mm512_cvtepu8_epi32(bytes), _mm_cvtsi64_si128(shift));
    return _mm512_and_si512(words, _mm512_set1_epi32((1 << bits) - 1));
  };
  const uint8_t* plane = block + f.sub_offset;
  if (f.sub_bits == 8) return part(plane, 8);
  const __m512i low = part(plane, 4);
  if (f.sub_bits == 4) return low;
  return _mm512_or_si512(low, _mm512_slli_epi32(part(plane + kPanelRows * f.sub_count / 2, 2), 4));
}

struct Scales {
  __m512 scale, offset;
  __m512 zero_point;  // of OffsetKind::zero_point, with its shift
};

// As panel_scale() and panel_offset() for group g of a panel block. Blocks with sub-scales have one scale; the others one
// a group.
inline Scales group_scales(const PanelFormat& f, const uint8_t* block, int64_t g) {
  const int64_t header = f.sub_bits != 0 ? 0 : g * 2 * kPanelRows;
  Scales s{};
  s.scale = _mm512_mul_ps(stored_scales(f, block + header), _mm512_set1_ps(f.scale_factor));
  if (f.sub_bits != 0) {
    const __m512i sub = _mm512_sub_epi32(sub_scales(f, block, g), _mm512_set1_epi32(f.sub_zero));
    s.scale = _mm512_mul_ps(s.scale, _mm512_cvtepi32_ps(sub));
  }
  if (f.offset_kind == OffsetKind::none) return s;
  const __m512 stored = stored_scales(f, block + f.offset_offset + header);
  const __m512 sign = _mm512_set1_ps(-0.0f);
  if (f.offset_kind == OffsetKind::min) {
    s.offset = stored;
  } else if (f.offset_kind == OffsetKind::zero_point) {
    s.zero_point = _mm512_add_ps(stored, _mm512_set1_ps(f.zero_shift));
    s.offset = _mm512_mul_ps(_mm512_xor_ps(s.scale, sign), s.zero_point);
  } else {
    const __m512 min = _mm512_cvtepi32_ps(sub_scales(f, block, f.sub_count / 2 + g));
    s.offset = _mm512_mul_ps(_mm512_xor_ps(stored, sign), min);
  }
  return s;
}
