// What panels look like: one description per format, sizes.
#include "panel.h"

#include <initializer_list>

#include "elements.h"
#include "formats.h"
#include "gguf_blocks.h"
#include "grouped.h"

namespace bitloom {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 62;

void set_table(PanelFormat* f, const int32_t* values, int32_t count) {
  f->value_kind = ValueKind::table;
  int32_t least = 0, largest = 0;
  for (int32_t i = 0; i < count; ++i) {
    least = values[i] < least ? values[i] : least;
    largest = values[i] > largest ? values[i] : largest;
  }
  for (int32_t i = 0; i < count; ++i) f->table[i] = static_cast<uint8_t>(values[i] - least);
  f->zero = -least;
  f->max_value = largest - least;
}

// Elements of OCP Microscaling that are integers times a power of two.
void set_elements(PanelFormat* f, int32_t kind, int32_t count, int32_t factor) {
  const float* elements = element_table(kind);
  int32_t values[64];
  for (int32_t i = 0; i < count; ++i)
    values[i] = static_cast<int32_t>(static_cast<float>(factor) * elements[i]);
  set_table(f, values, count);
  f->float_table = elements;
  f->scale_factor = 1.0f / static_cast<float>(factor);
}

// scale * (code - zero), codes of `bits` bits.
void set_integer(PanelFormat* f, int32_t bits, int32_t zero) {
  f->value_kind = ValueKind::integer;
  f->bits = bits;
  f->zero = zero;
  f->max_value = ((1 << bits) - 1) << f->shift;
}

struct BlockShape {
  CodeOrder order;
  int32_t bits, zero, scale, offset, sub, codes, sub_bits, sub_count, sub_zero;
};

// GGUF's integer blocks: where things stand in them (gguf_blocks.h); -1: there is none.
BlockShape block_shape(int32_t format) {
  switch (format) {
    case BL_FORMAT_q8_0:
      return {CodeOrder::stream, 8, 128, 0, -1, 0, 2, 0, 0, 0};
    case BL_FORMAT_q4_0:
    case BL_FORMAT_iq4_nl:
      return {CodeOrder::q4_0, 4, 8, 0, -1, 0, 2, 0, 0, 0};
    case BL_FORMAT_q4_1:
      return {CodeOrder::q4_0, 4, 0, 0, 2, 0, 4, 0, 0, 0};
    case BL_FORMAT_q5_0:
      return {CodeOrder::q5_0, 5, 16, 0, -1, 0, 2, 0, 0, 0};
    case BL_FORMAT_q5_1:
      return {CodeOrder::q5_0, 5, 0, 0, 2, 0, 4, 0, 0, 0};
    case BL_FORMAT_q2_k:
      return {CodeOrder::q2_k, 2, 0, 80, 82, 0, 16, 4, 32, 0};
    case BL_FORMAT_q3_k:
      return {CodeOrder::q3_k, 3, 4, 108, -1, 96, 0, 6, 16, 32};
    case BL_FORMAT_q4_k:
      return {CodeOrder::q4_k, 4, 0, 0, 2, 4, 16, 6, 16, 0};
    case BL_FORMAT_q5_k:
      return {CodeOrder::q5_k, 5, 0, 0, 2, 4, 16, 6, 16, 0};
    case BL_FORMAT_q6_k:
      return {CodeOrder::q6_k, 6, 32, 208, -1, 192, 0, 8, 16, 128};
    case BL_FORMAT_tq1_0:
      return {CodeOrder::tq1_0, 2, 1, 52, -1, 0, 0, 0, 0, 0};
    case BL_FORMAT_mxfp4:
      return {CodeOrder::q4_0, 4, 0, 0, -1, 0, 1, 0, 0, 0};
    case BL_FORMAT_nvfp4:
      return {CodeOrder::nvfp4, 4, 0, 0, -1, 0, 4, 0, 0, 0};
    default:  // tq2_0
      return {CodeOrder::tq2_0, 2, 1, 64, -1, 0, 0, 0, 0, 0};
  }
}

void describe_block(PanelFormat* f) {
  if (f->format == BL_FORMAT_f32 || f->format == BL_FORMAT_f16 || f->format == BL_FORMAT_bf16) {
    f->order = CodeOrder::floats;
    f->value_kind = ValueKind::floats;
    f->bits = f->format == BL_FORMAT_f32 ? 32 : 16;
    f->elements = f->group = kChunk;
    f->scale_bytes = 0;
    return;
  }
  const BlockShape shape = block_shape(f->format);
  set_integer(f, shape.bits, shape.zero);
  f->order = shape.order;
  f->flip = f->format == BL_FORMAT_q8_0 ? 128 : 0;
  f->canonical_scale = shape.scale;
  f->canonical_offset = shape.offset;
  f->canonical_sub = shape.sub;
  f->canonical_codes = shape.codes;
  f->sub_bits = shape.sub_bits;
  f->sub_count = shape.sub_count;
  f->sub_zero = shape.sub_zero;
  if (shape.offset >= 0) f->offset_kind = shape.sub_bits != 0 ? OffsetKind::sub_min : OffsetKind::min;
  if (f->format == BL_FORMAT_iq4_nl) {
    int32_t values[16];
    for (int i = 0; i < 16; ++i) values[i] = kIq4Nl[i];
    set_table(f, values, 16);
  }
  if (f->format == BL_FORMAT_mxfp4 || f->format == BL_FORMAT_nvfp4) {
    set_elements(f, BL_KIND_e2m1, 16, 2);
    f->scale_type = f->format == BL_FORMAT_mxfp4 ? BL_SCALE_e8m0 : BL_SCALE_e4m3;
    f->scale_bytes = 1;
  }
  f->elements = f->canonical_elements;
  if (f->format == BL_FORMAT_nvfp4) {
    f->header_elements = f->group = 16;
    return;
  }
  const int32_t scales = f->sub_bits == 0                     ? 1
                         : f->offset_kind == OffsetKind::none ? f->sub_count
                                                              : f->sub_count / 2;
  f->group = f->elements / scales;
}

void describe_grouped(PanelFormat* f, const Codebooks& codebook) {
  const bl_format_info& info = *f->info;
  const bool zero_point = info.has_zero_point != 0;
  const int32_t half = 1 << (info.bits - 1);
  f->order = CodeOrder::stream;
  f->bits = info.bits;
  f->canonical_offset = f->scale_bytes;
  f->canonical_codes = static_cast<int32_t>(grouped_header_bytes(info));
  switch (info.kind) {
    case BL_KIND_unsigned_int:
    case BL_KIND_signed_int:
      f->flip = info.kind == BL_KIND_signed_int ? half : 0;
      f->shift = info.bits == 1 && !zero_point ? 1 : 0;
      set_integer(f, info.bits, zero_point ? 0 : half << f->shift >> (info.bits == 1 ? 1 : 0));
      if (zero_point) {
        f->offset_kind = OffsetKind::zero_point;
        f->zero_shift = static_cast<float>(f->flip);
      }
      break;
    case BL_KIND_ternary:
      set_integer(f, info.bits, 1);
      break;
    case BL_KIND_bfp:
    case BL_KIND_mxint8:
      f->flip = half;
      set_integer(f, info.bits, half);
      if (info.kind == BL_KIND_mxint8) f->scale_factor = 1.0f / 64;
      break;
    case BL_KIND_fp4:
    case BL_KIND_e2m1:
      set_elements(f, BL_KIND_e2m1, 16, 2);
      break;
    case BL_KIND_e2m3:
      set_elements(f, BL_KIND_e2m3, 64, 8);
      break;
    case BL_KIND_codebooks:
      f->value_kind = ValueKind::chosen_table;
      f->tables = codebook;
      break;
    case BL_KIND_row_codebook:
      f->value_kind = ValueKind::row_table;
      break;
    default:
      f->value_kind = ValueKind::float_table;
      f->float_table = codebook.values;
  }
  f->group = f->canonical_elements;
  if (info.group_size == 0) f->group = (f->cols + kChunk - 1) / kChunk * kChunk;
  f->elements = f->group < kChunk ? kChunk : f->group;
}

void place(PanelFormat* f) {
  if (f->value_kind != ValueKind::floats) {
    int32_t left = f->bits, shift = 0, at = 0;
    for (int32_t width : {8, 4, 2, 1}) {
      if (left < width) continue;
      f->planes[f->plane_count++] = {width, shift, at};
      left -= width;
      shift += width;
      at += 64 * width;
    }
  }
  f->groups = f->elements / f->group;
  if (f->header_elements == 0) f->header_elements = f->canonical_elements;
  f->headers = (f->elements + f->header_elements - 1) / f->header_elements;
  if (f->info->group_size == 0) f->headers = f->value_kind == ValueKind::row_table ? 0 : 1;
  f->canonical_per_block = f->elements / f->canonical_elements;
  if (f->canonical_per_block == 0 || f->info->group_size == 0) f->canonical_per_block = 1;
  f->blocks = (f->cols + f->elements - 1) / f->elements;
  f->offset_offset = kPanelRows * f->headers * f->scale_bytes;
  f->sub_offset = f->offset_offset * (f->offset_kind == OffsetKind::none ? 1 : 2);
  f->number_offset = f->sub_offset + kPanelRows * f->sub_count * f->sub_bits / 8;
  f->chunk_offset = f->number_offset;
  if (f->value_kind == ValueKind::chosen_table) f->chunk_offset += kPanelRows;
  if (f->value_kind == ValueKind::row_table) f->chunk_offset += 2 * row_table_plane(*f);
  f->chunk_bytes = 64 * f->bits;
  f->block_bytes = f->chunk_offset + f->elements / kChunk * f->chunk_bytes;
  f->panel_bytes = f->blocks * f->block_bytes;
}

}  // namespace

PanelFormat panel_format(int32_t format, int64_t cols, const Codebooks& codebook) {
  PanelFormat f{};
  f.info = bl_get_format_info(format);
  f.format = format;
  f.cols = cols;
  f.canonical_elements = f.info->block_elements != 0 ? f.info->block_elements : cols;
  f.canonical_row_bytes = static_cast<int64_t>(bl_row_bytes(format, cols));
  f.canonical_bytes = f.info->block_bytes != 0 ? f.info->block_bytes : f.canonical_row_bytes;
  f.scale_type = f.info->scale_dtype;
  f.scale_bytes = static_cast<int32_t>(scale_bytes(f.scale_type));
  f.scale_factor = 1.0f;
  if (cols <= 0) {  // nothing to read: sizes zero, no division by zero
    f.elements = f.group = f.canonical_elements = f.header_elements = kChunk;
    return f;
  }
  if (f.info->kind == BL_KIND_block) {
    describe_block(&f);
  } else {
    describe_grouped(&f, codebook);
  }
  place(&f);
  return f;
}

uint64_t lanes_bytes(int32_t format, int64_t rows, int64_t cols) {
  const uint64_t canonical = bl_weights_bytes(format, rows, cols);
  if (canonical == 0) return 0;
  const PanelFormat f = panel_format(format, cols, {nullptr, 1});
  const uint64_t panels = static_cast<uint64_t>(rows / kPanelRows);
  const uint64_t tail = static_cast<uint64_t>(rows % kPanelRows);
  uint64_t bytes = 0;
  if (__builtin_mul_overflow(panels, static_cast<uint64_t>(f.panel_bytes), &bytes)) return 0;
  bytes += tail * static_cast<uint64_t>(f.canonical_row_bytes);
  return bytes <= kMaxBytes ? bytes : 0;
}

}  // namespace bitloom
