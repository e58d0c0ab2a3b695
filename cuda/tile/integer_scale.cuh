// Scales and offsets of layout fragments in f32, rounded where the CPU rounds them (panel_scale and panel_offset of
// native/formats/panel.h).
#pragma once

#include "group_scale.cuh"

namespace bitloom::cuda {

// weight = scale * (code - zero) + offset; scales times `factor`.
template <bool kCentred, int kCount>
__device__ __forceinline__ void integer_scales(const FragmentWeights& b, const GroupBits<kCount>& bits,
                                               float (&scale)[kCount], float (&offset)[kCount]) {
  if (!kCentred && b.super_bytes != 0) {
#pragma unroll
    for (int i = 0; i < kCount; ++i) {
      const float super = ptx::f32_of_f16(static_cast<uint16_t>(bits.super_scale[i]));
      const float min = ptx::f32_of_f16(static_cast<uint16_t>(bits.super_min[i]));
      scale[i] = super * (static_cast<float>(bits.scale[i]) - b.sub_zero);
      offset[i] = -min * static_cast<float>(bits.second[i]);
    }
    return;
  }
  scale_values(b.scale_type, bits.scale, scale);
#pragma unroll
  for (int i = 0; i < kCount; ++i) scale[i] *= b.factor, offset[i] = 0;
  if (kCentred || b.second == Second::none) return;
  scale_values(b.scale_type, bits.second, offset);
  if (b.second == Second::min) return;
#pragma unroll
  for (int i = 0; i < kCount; ++i) offset[i] = -scale[i] * (offset[i] + b.zero_shift);
}

}  // namespace bitloom::cuda
