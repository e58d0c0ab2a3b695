// Scales of eight rows of a panel, as panel_scale() and panel_offset() give them. Included in regions of level avx2, after
// avx2_decode.inl.

struct Scales {
  Vec scale, offset;
};

// Of group g of a panel block.
inline Scales group_scales(const PanelFormat& f, const uint8_t* block, int64_t g, int half) {
  Vec scale = load_stored(f, header_of(f, block, g, half)) * Vec::set(f.scale_factor);
  if (f.sub_bits != 0) scale = scale * load_sub_scale(f, block, g, f.sub_zero, half);
  if (f.offset_kind == OffsetKind::none) return {scale, Vec::set(0)};
  Vec offset = load_stored(f, header_of(f, block + f.offset_offset, g, half));
  const Vec sign = Vec::set(-0.0f);
  if (f.offset_kind == OffsetKind::zero_point) {
    offset = Vec{_mm256_xor_ps(scale.v, sign.v)} * (offset + Vec::set(f.zero_shift));
  } else if (f.offset_kind == OffsetKind::sub_min) {
    offset = Vec{_mm256_xor_ps(offset.v, sign.v)} * load_sub_scale(f, block, f.sub_count / 2 + g, 0, half);
  }
  return {scale, offset};
}
