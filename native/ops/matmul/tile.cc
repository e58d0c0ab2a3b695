#include "tile.h"

#include <cmath>

namespace bitloom {
namespace {

// Largest magnitude of a float table.
float largest_entry(const PanelFormat& f) {
  float largest = 0;
  for (int32_t code = 0; code < 1 << f.bits; ++code)
    largest = std::fmax(largest, std::fabs(f.float_table[code]));
  return largest;
}

}  // namespace

bool takes_tile_i8(const PanelFormat& f) {
  if (f.has_integer_values()) return true;
  if (f.value_kind != ValueKind::float_table) return false;
  for (int32_t code = 0; code < 1 << f.bits; ++code) {
    if (!std::isfinite(f.float_table[code])) return false;
  }
  const float largest = largest_entry(f);
  return largest > 1e-18f && largest < 1e18f;
}

TileRecipe tile_recipe(const PanelFormat& f) {
  TileRecipe r{};
  const int32_t count = 1 << f.bits;
  if (f.value_kind == ValueKind::float_table) {
    r.spread = largest_entry(f);
    const float factor = 32767.0f / r.spread;
    for (int32_t code = 0; code < count; ++code) {
      r.x[code] = static_cast<int16_t>(std::nearbyint(f.float_table[code] * factor));
    }
    r.unit = 8388608.0f / factor;
    r.levels = 127;
    return r;
  }
  r.exact = f.info->group_size == 0 && f.info->kind != BL_KIND_block;
  r.has_offsets = f.offset_kind != OffsetKind::none;
  // Twice the values, so that the middle of an even number of them is an integer too.
  const int32_t low = -2 * f.zero, high = 2 * (f.max_value - f.zero);
  int32_t centre = 0;
  if (r.has_offsets) centre = r.exact ? 1 << f.bits : (low + high) / 2;
  const int32_t spread = high - centre > centre - low ? high - centre : centre - low;
  // Codes of 5 bits and more are shifted into place, not looked up: C is a power of two.
  const bool shifted = f.bits >= 5 && f.value_kind == ValueKind::integer;
  const int32_t half_c = shifted ? 1 << (15 - f.bits) : 32767 / spread;  // C / 2; |x| <= 32768
  for (int32_t code = 0; code < count; ++code) {
    const int32_t value = 2 * (panel_value(f, static_cast<uint32_t>(code)) - f.zero) - centre;
    // Codes above max_value (t2's fourth has a value) do not occur in tables shorter than 2^bits.
    r.x[code] = static_cast<int16_t>(value * half_c);
  }
  r.centre = 0.5f * static_cast<float>(centre);
  r.spread = shifted ? static_cast<float>(count / 2) : 0.5f * static_cast<float>(spread);
  r.levels = 127.0f;
  if (!r.has_offsets && f.scale_type == BL_SCALE_e8m0 && r.spread <= 63.0f) {
    r.levels = r.spread;
    while (2 * r.levels <= 127.0f) r.levels *= 2;
  } else if (!r.has_offsets && spread <= 8) {
    r.levels = static_cast<float>(127 * 2 / spread * spread / 2);
  }
  r.unit = 8388608.0f / static_cast<float>(2 * half_c);
  r.exact_multiplier = static_cast<int32_t>(std::nearbyint(r.unit));
  return r;
}

float predicted_error(const TileSums* sums, const float* scales, int64_t blocks) {
  double error = 0, energy = 0;
  for (int64_t i = 0; i < blocks; ++i) {
    const double square = static_cast<double>(scales[i]) * scales[i];
    error += square * sums[i].nonzero;  // a rounded value is off by 1/12 of a squared step on average
    energy += square * sums[i].squares;
  }
  return energy > 0 ? static_cast<float>(std::sqrt(error / (12 * energy))) : 0.0f;
}

}  // namespace bitloom
