// All families of forms in one file, for levels whose code compiles fast; included inside the region.

#include "dequant_i8_groups.inl"
#include "dequant_i8_offsets.inl"
#include "dequant_i8_parts.inl"
#include "dequant_i8_subs.inl"

void matmul_dequant_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const auto family = f.sub_bits != 0                     ? dequant_i8_subs
                      : f.group < kGroup                  ? dequant_i8_parts
                      : f.offset_kind != OffsetKind::none ? dequant_i8_offsets
                                                          : dequant_i8_groups;
  family(f)(f, a, tile);
}
