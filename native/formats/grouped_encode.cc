#include <numeric>

#include "block_writer.h"
#include "codebook_levels.h"
#include "element_encode.h"
#include "formats.h"
#include "grouped.h"
#include "scale_search.h"

namespace bitloom {
namespace {

// u<b>, i<b>, t2: levels low to high, code = level + offset.
void encode_integers(const bl_format_info& info, const float* values, int64_t count, int32_t method,
                     BlockWriter& block) {
  const Extent extent(values, count);
  const bool ternary = info.kind == BL_KIND_ternary;
  const int half = 1 << (info.bits - 1);
  const IntegerLevels levels = ternary ? IntegerLevels{-1, 1} : IntegerLevels{-half, half - 1};
  const int offset = ternary ? 1 : info.kind == BL_KIND_unsigned_int ? half : 0;
  const StoredScale round{info.scale_dtype, ternary ? 1.0f : static_cast<float>(half)};
  const double onto_low = static_cast<double>(extent.signed_max) / levels.low;
  const double onto_high = extent.largest() / levels.high;
  const double mean = extent.mean_magnitude;

  Fit fit = ternary ? best_scale(values, count, levels, round, {mean})
                    : best_scale(values, count, levels, round, {onto_low, onto_high});
  if (method == BL_QUANTIZE_mse) {
    // A Gaussian's best ternary scale is 1.53 times its mean magnitude.
    fit = ternary ? search_scale(values, count, levels, round, fit, {mean, 1.5 * mean, onto_high})
                  : search_scale(values, count, levels, round, fit, {onto_low, onto_high});
  }
  block.scale(fit.scale);
  for (int64_t i = 0; i < count; ++i) {
    block.code(i, static_cast<int>(levels.nearest(values[i], fit.scale)) + offset);
  }
}

// u1, i1: for given signs the mean magnitude has the least squared error, whatever the method.
void encode_signs(const bl_format_info& info, const float* values, int64_t count, BlockWriter& block) {
  const StoredScale round{info.scale_dtype, 1.0f};
  const float scale = round(Extent(values, count).mean_magnitude);
  const int negative = info.kind == BL_KIND_signed_int ? 1 : 0;
  block.scale(scale);
  for (int64_t i = 0; i < count; ++i) {
    const bool is_negative = scale != 0 && values[i] < 0;
    block.code(i, is_negative ? negative : 1 - negative);
  }
}

struct OffsetFit {
  Fit fit;
  float zero_point;
};

// Keeps the better of `best` and this scale and zero point; whether it is this one.
bool try_offset(const float* values, int64_t count, const OffsetLevels& levels, float scale,
                OffsetFit& best) {
  const Fit fit = measure(values, count, scale, levels);
  if (!(fit.error < best.fit.error)) return false;
  best = {fit, levels.zero_point};
  return true;
}

// uz, iz of two bits and more: a grid of scales, each with the zero points that put the lower end, the
// upper end or the middle of the range where minmax has it; then least squares, and the zero points next
// to the best one.
void search_offsets(const float* values, int64_t count, const StoredScale& round, int low, int high,
                    double min, double max, OffsetFit& best) {
  const double base = (max - min) / (high - low);
  for (int step = kFirstFraction; step <= kLastFraction; ++step) {
    const float scale = round(base * step / 32);
    if (scale == 0) continue;
    const double at_low = low - min / scale;
    const double at_high = high - max / scale;
    for (const double zero_point : {at_low, (at_low + at_high) / 2, at_high}) {
      const float rounded = static_cast<float>(round_even(clamp(zero_point, low, high)));
      try_offset(values, count, {low, high, rounded}, scale, best);
    }
  }
  for (int iteration = 0; iteration < 6; ++iteration) {
    bool better = false;
    const float zero_point = best.zero_point;
    if (best.fit.level_level > 0) {
      const float scale = round(best.fit.value_level / best.fit.level_level);
      better = try_offset(values, count, {low, high, zero_point}, scale, best);
    }
    for (const float next : {zero_point - 1, zero_point + 1}) {
      if (next < low || next > high) continue;
      better |= try_offset(values, count, {low, high, next}, best.fit.scale, best);
    }
    if (!better) break;
  }
}

// u1z, i1z: two free levels, found by Lloyd's iteration from the ends and from the halves' means.
void search_two_levels(const float* values, int64_t count, const StoredScale& round, int low,
                       const Extent& extent, OffsetFit& best) {
  const double middles[] = {0.5 * extent.min + 0.5 * extent.max, 0.0,
                            std::accumulate(values, values + count, 0.0) / static_cast<double>(count)};
  for (double middle : middles) {
    for (int iteration = 0; iteration < 8; ++iteration) {
      double sum[2] = {0, 0};
      double number[2] = {0, 0};
      for (int64_t i = 0; i < count; ++i) {
        const int above = values[i] > middle;
        sum[above] += values[i];
        number[above] += 1;
      }
      if (number[0] == 0 || number[1] == 0) break;
      const double below_level = sum[0] / number[0];
      const double above_level = sum[1] / number[1];
      const float scale = round(above_level - below_level);
      if (scale == 0) break;
      const float zero_point = StoredScale{round.dtype, 1.0f}(low - below_level / scale);
      try_offset(values, count, {low, low + 1, zero_point}, scale, best);
      middle = (below_level + above_level) / 2;
    }
  }
}

void encode_offsets(const bl_format_info& info, const float* values, int64_t count, int32_t method,
                    BlockWriter& block) {
  const Extent extent(values, count);
  const int low = info.kind == BL_KIND_signed_int ? -(1 << (info.bits - 1)) : 0;
  const int high = low + (1 << info.bits) - 1;
  const double min = std::min(0.0f, extent.min);
  const double max = std::max(0.0f, extent.max);
  const StoredScale round{info.scale_dtype, static_cast<float>(high - low)};

  const float scale = round((max - min) / (high - low));
  float zero_point = 0;
  if (scale != 0) {
    const double exact = clamp(low - min / scale, low, high);
    zero_point =
        info.bits == 1 ? StoredScale{info.scale_dtype, 1.0f}(exact) : static_cast<float>(round_even(exact));
  }
  OffsetFit best{measure(values, count, scale, OffsetLevels{low, high, zero_point}), zero_point};
  if (method == BL_QUANTIZE_mse && scale != 0) {
    if (info.bits == 1) {
      search_two_levels(values, count, round, low, extent, best);
    } else {
      search_offsets(values, count, round, low, high, min, max, best);
    }
  }
  const OffsetLevels levels{low, high, best.zero_point};
  block.scale(best.fit.scale);
  block.zero_point(best.zero_point);
  for (int64_t i = 0; i < count; ++i) {
    block.code(i, static_cast<int>(levels.code(values[i], best.fit.scale)));
  }
}

void encode_codebook(const bl_format_info& info, const float* values, int64_t count, const float* codebook,
                     int32_t method, BlockWriter& block) {
  const CodebookLevels levels(codebook, 1 << info.bits);
  const StoredScale round{info.scale_dtype, levels.largest()};
  const double base = levels.largest() > 0 ? Extent(values, count).largest() / levels.largest() : 0.0;
  Fit fit = best_scale(values, count, levels, round, {base});
  if (method == BL_QUANTIZE_mse) {
    fit = search_scale(values, count, levels, round, fit, {base, -base});
  }
  block.scale(fit.scale);
  for (int64_t i = 0; i < count; ++i) {
    block.code(i, static_cast<int>(levels.code(values[i], fit.scale)));
  }
}

// cbs: the table and its scale of the least squared error, the first of equals.
void encode_chosen(const bl_format_info& info, const float* values, int64_t count, const Codebooks& codebook,
                   int32_t method, BlockWriter& block) {
  const Extent extent(values, count);
  Fit best{0, std::numeric_limits<double>::infinity(), 0, 0};
  int chosen = 0;
  for (int number = 0; number < codebook.count; ++number) {
    const CodebookLevels levels(codebook.table(number, info.bits), 1 << info.bits);
    const StoredScale round{info.scale_dtype, levels.largest()};
    const double base = levels.largest() > 0 ? extent.largest() / levels.largest() : 0.0;
    const double cover = std::max(levels.max() > 0 ? extent.max / levels.max() : base,
                                  levels.min() < 0 ? extent.min / levels.min() : base);
    Fit fit = best_scale(values, count, levels, round, {base, cover});
    if (method == BL_QUANTIZE_mse) {
      fit = search_scale(values, count, levels, round, fit, {base, -base});
    }
    if (!(fit.error < best.error)) continue;
    best = fit;
    chosen = number;
  }
  const CodebookLevels levels(codebook.table(chosen, info.bits), 1 << info.bits);
  block.scale(best.scale);
  block.table(chosen);
  for (int64_t i = 0; i < count; ++i) {
    block.code(i, static_cast<int>(levels.code(values[i], best.scale)));
  }
}

}  // namespace

void encode_grouped(const bl_format_info& info, const float* values, int64_t count, int64_t elements,
                    const Codebooks& codebook, int32_t method, uint8_t* bytes) {
  BlockWriter block(info, elements, bytes);
  switch (info.kind) {
    case BL_KIND_unsigned_int:
    case BL_KIND_signed_int:
      if (info.has_zero_point != 0) return encode_offsets(info, values, count, method, block);
      if (info.bits == 1) return encode_signs(info, values, count, block);
      return encode_integers(info, values, count, method, block);
    case BL_KIND_ternary:
      return encode_integers(info, values, count, method, block);
    case BL_KIND_nf4:
    case BL_KIND_fp4:
    case BL_KIND_codebook:
      return encode_codebook(info, values, count, codebook.values, method, block);
    case BL_KIND_codebooks:
      return encode_chosen(info, values, count, codebook, method, block);
    case BL_KIND_bfp:
    case BL_KIND_mxint8:
    case BL_KIND_e2m1:
    case BL_KIND_e2m3:
    case BL_KIND_e3m2:
    case BL_KIND_e4m3:
    case BL_KIND_e5m2:
      return encode_elements(info, values, count, method, block);
    default:
      return;
  }
}

}  // namespace bitloom
