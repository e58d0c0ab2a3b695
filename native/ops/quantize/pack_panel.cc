// Panels by the tables of pack_plan.h: whole spans where they lie, the rest by way of padded copies.
#include "pack_panel.h"

#include <algorithm>
#include <cstring>

namespace bitloom {
namespace {

constexpr int64_t kMaxTargetBytes = kPanelRows * kMaxSpanBytes;

// Codes of `_row` formats past the row's end are zero in a panel: what lies past bit `bits` of a span is
// replaced by codes that become so. Their bits in a row's last byte may be anything.
void set_spare(const PackPlan& plan, int64_t bits, uint8_t* span) {
  const int64_t byte = bits / 8;
  if (byte >= plan.span_bytes) return;
  const int keep = (1 << bits % 8) - 1;
  const uint8_t* spare = plan.spare;
  span[byte] = static_cast<uint8_t>((span[byte] & keep) | (spare[byte] & ~keep));
  std::memcpy(span + byte + 1, spare + byte + 1, static_cast<size_t>(plan.span_bytes - byte - 1));
}

// The part of sixteen rows that spans cover: `bytes` bytes of each at `rows`, `target_bytes` of the panel at
// `target`.
struct Stretch {
  const uint8_t* rows;
  int64_t stride, count, bytes, code_bits;  // code_bits: where codes end, `_row` formats only, else -1
  uint8_t* target;
  int64_t target_bytes;
};

template <PackSpans kSpans>
void pack_stretch(const PackPlan& plan, const Stretch& s) {
  const uint32_t present = (1u << s.count) - 1;
  int64_t whole = std::min(s.bytes / plan.span_bytes, s.target_bytes / plan.target_bytes);
  if (s.code_bits >= 0) whole = std::min(whole, s.code_bits / (8 * plan.span_bytes));
  if (s.count == kPanelRows) kSpans(plan, s.rows, s.stride, present, whole, s.target);
  // A copy of the other spans: no row is read past its end, rows that are not there are zero.
  alignas(64) uint8_t rows[kPanelRows * kMaxSpanBytes] = {};
  alignas(64) uint8_t target[kMaxTargetBytes];
  for (int64_t span = s.count == kPanelRows ? whole : 0; span * plan.target_bytes < s.target_bytes; ++span) {
    const int64_t at = span * plan.span_bytes;
    const int64_t bytes = std::min(plan.span_bytes, s.bytes - at);
    for (int64_t row = 0; row < s.count; ++row) {
      uint8_t* copy = rows + row * plan.span_bytes;
      std::memcpy(copy, s.rows + row * s.stride + at, static_cast<size_t>(bytes));
      std::memset(copy + bytes, 0, static_cast<size_t>(plan.span_bytes - bytes));
      if (s.code_bits >= 0) set_spare(plan, s.code_bits - 8 * at, copy);
    }
    kSpans(plan, rows, plan.span_bytes, present, 1, target);
    const int64_t done = span * plan.target_bytes;
    std::memcpy(s.target + done, target,
                static_cast<size_t>(std::min(plan.target_bytes, s.target_bytes - done)));
  }
}

// Scale and zero point, or table, of `_row` formats, once per row.
void pack_row_headers(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count,
                      uint8_t* panel) {
  const size_t bytes = static_cast<size_t>(f.scale_bytes);
  std::memset(panel, 0, static_cast<size_t>(f.chunk_offset));
  if (f.value_kind == ValueKind::row_table) {
    for (int64_t lane = 0; lane < count; ++lane) pack_row_table(f, rows + lane * row_bytes, lane, panel);
    return;
  }
  for (int64_t lane = 0; lane < count; ++lane, rows += row_bytes, panel += bytes) {
    std::memcpy(panel, rows + f.canonical_scale, bytes);
    if (f.offset_kind != OffsetKind::none)
      std::memcpy(panel + f.offset_offset, rows + f.canonical_offset, bytes);
  }
}

template <PackSpans kSpans>
void pack_by_plan(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count,
                  uint8_t* panel) {
  const PackPlan& plan = *pack_plan(f);
  if (!plan.row) {
    pack_stretch<kSpans>(plan, {rows, row_bytes, count, f.canonical_row_bytes, -1, panel, f.panel_bytes});
    return;
  }
  pack_row_headers(f, rows, row_bytes, count, panel);
  pack_stretch<kSpans>(plan,
                       {rows + f.canonical_codes, row_bytes, count, f.canonical_row_bytes - f.canonical_codes,
                        f.cols * f.bits, panel + f.chunk_offset, f.panel_bytes - f.chunk_offset});
}

}  // namespace

PackPanel choose_pack_panel([[maybe_unused]] int32_t isa, [[maybe_unused]] const PanelFormat& f) {
#if defined(__x86_64__)
  // Blocks of a few weights, and the last panel block of a row not full of them: its spare codes are zero,
  // not flipped.
  const bool spare = f.flip != 0 && f.value_kind != ValueKind::floats && f.cols > 0 &&
                     f.canonical_row_bytes / f.canonical_bytes % f.canonical_per_block != 0;
  if (isa < BL_ISA_avx2 || f.cols <= 0 || spare || pack_plan(f) == nullptr) return pack_panel;
  return isa >= BL_ISA_avx512 ? pack_by_plan<avx512::pack_spans> : pack_by_plan<avx2::pack_spans>;
#else
  return pack_panel;
#endif
}

}  // namespace bitloom
