// Scales of a panel's sixteen rows, as panel_scale() and panel_offset() give them. Included in regions of levels avx512 and
// amx, after avx512_decode.inl.

struct Scales {
  __m512 scale, offset;
};

// Of group g of a panel block.
inline Scales group_scales(const PanelFormat& f, const uint8_t* block, int64_t g) {
  Vec scale = load_stored(f, header_of(f, block, g, 0)) * Vec::set(f.scale_factor);
  if (f.sub_bits != 0) scale = scale * load_sub_scale(f, block, g, f.sub_zero, 0);
  if (f.offset_kind == OffsetKind::none) return {scale.v, _mm512_setzero_ps()};
  Vec offset = load_stored(f, header_of(f, block + f.offset_offset, g, 0));
  const __m512 sign = _mm512_set1_ps(-0.0f);
  if (f.offset_kind == OffsetKind::zero_point) {
    offset = Vec{_mm512_xor_ps(scale.v, sign)} * (offset + Vec::set(f.zero_shift));
  } else if (f.offset_kind == OffsetKind::sub_min) {
    offset = Vec{_mm512_xor_ps(offset.v, sign)} * load_sub_scale(f, block, f.sub_count / 2 + g, 0, 0);
  }
  return {scale.v, offset.v};
}
