#include "formats.h"

#include <cstring>

#include "../base/float16.h"
#include "elements.h"
#include "fragments.h"
#include "gguf.h"
#include "grouped.h"

namespace bitloom {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 62;

// Bytes of a bit stream of `count` codes, without overflow for any count.
constexpr int64_t code_bytes(int64_t count, int bits) {
  return count / 8 * bits + (count % 8 * bits + 7) / 8;
}

constexpr int32_t block_bytes_of_group(int32_t kind, int bits, int group_size, int32_t scale_dtype,
                                       int has_zero_point) {
  if (group_size == 0) return 0;
  return static_cast<int32_t>(header_bytes(kind, bits, scale_dtype, has_zero_point) +
                              code_bytes(group_size, bits));
}

// In ABI order. Weights of a K type share a scale in smaller sub-blocks; group_size is the block's.
constexpr bl_format_info kFormats[] = {
#define BL_BLOCK_FORMAT(name, elements, bytes, gguf_type) \
  {#name, BL_KIND_block, 0, elements, BL_SCALE_f16, 0, gguf_type, elements, bytes},
#define BL_GROUPED_FORMAT(name, kind, bits, group_size, scale_dtype, zero) \
  {#name,                                                                  \
   BL_KIND_##kind,                                                         \
   bits,                                                                   \
   group_size,                                                             \
   BL_SCALE_##scale_dtype,                                                 \
   zero,                                                                   \
   -1,                                                                     \
   group_size,                                                             \
   block_bytes_of_group(BL_KIND_##kind, bits, group_size, BL_SCALE_##scale_dtype, zero)},
#include "formats.inc"
};
static_assert(sizeof(kFormats) / sizeof(kFormats[0]) == BL_FORMAT_count);

int32_t format_id(const bl_format_info& info) { return static_cast<int32_t>(&info - kFormats); }

// The plain floats are formats with blocks of one weight: decoded `stride` bytes apart.
void decode_floats(int32_t format, const uint8_t* bytes, int64_t stride, int64_t count, float* values) {
  for (int64_t i = 0; i < count; ++i) decode_gguf_block(format, bytes + i * stride, 1, values + i);
}

}  // namespace

int64_t grouped_block_bytes(const bl_format_info& info, int64_t elements) {
  return grouped_header_bytes(info) + code_bytes(elements, info.bits);
}

WeightsView::WeightsView(const bl_weights& weights)
    : info(bl_get_format_info(weights.format)),
      data(static_cast<const uint8_t*>(weights.data)),
      rows(weights.rows),
      cols(weights.cols),
      row_bytes(static_cast<int64_t>(bl_row_bytes(weights.format, weights.cols))),
      block_bytes(info->block_bytes != 0 ? info->block_bytes : row_bytes),
      block_elements(info->block_elements != 0 ? info->block_elements : weights.cols),
      layout(weights.layout),
      codebook(codebooks_of(*info, weights.codebook, weights.codebook_size)),
      panel(panel_format(weights.format, weights.cols, codebook)),
      tensor_scale(weights.tensor_scale == 0 ? 1.0f : weights.tensor_scale) {}

void decode_block(const bl_format_info& info, const uint8_t* bytes, int64_t count, const Codebooks& codebook,
                  float* values) {
  if (info.kind == BL_KIND_block) {
    decode_gguf_block(format_id(info), bytes, count, values);
  } else {
    decode_grouped(info, bytes, 0, count, codebook, values);
  }
}

void encode_block(const bl_format_info& info, const float* values, int64_t count, int64_t elements,
                  const Codebooks& codebook, int32_t method, uint8_t* bytes) {
  if (info.kind == BL_KIND_block) {
    encode_gguf_block(format_id(info), values, method, bytes);
  } else {
    encode_grouped(info, values, count, elements, codebook, method, bytes);
  }
}

namespace {

// decode_row without the tensor scale.
void decode_blocks(const WeightsView& weights, int64_t row, int64_t first, int64_t count, float* values) {
  const bl_format_info& info = *weights.info;
  if (weights.layout == BL_LAYOUT_fragments) {
    const FragmentsShape shape(weights.panel, weights.rows);
    decode_fragments_row(weights.panel, shape, weights.data, row, first, count, values);
    return;
  }
  if (weights.in_panel(row)) {
    decode_panel_row(weights.panel, weights.panel_of(row), row % kPanelRows, first, count, values);
    return;
  }
  const uint8_t* bytes = weights.canonical_row(row);
  const int64_t elements = weights.block_elements;
  bytes += first / elements * weights.block_bytes;
  if (info.block_elements == 1) {
    decode_floats(format_id(info), bytes, weights.block_bytes, count, values);
    return;
  }
  for (; count > 0; bytes += weights.block_bytes) {
    const int64_t skip = first % elements;
    const int64_t part = count < elements - skip ? count : elements - skip;
    if (info.kind != BL_KIND_block) {
      decode_grouped(info, bytes, skip, part, weights.codebook, values);
    } else if (skip == 0) {
      decode_gguf_block(format_id(info), bytes, part, values);
    } else {
      float block[256];  // the largest GGUF block
      decode_gguf_block(format_id(info), bytes, skip + part, block);
      std::memcpy(values, block + skip, static_cast<size_t>(part) * sizeof(float));
    }
    first += part;
    count -= part;
    values += part;
  }
}

}  // namespace

void decode_row(const WeightsView& weights, int64_t row, int64_t first, int64_t count, float* values) {
  if (count <= 0) return;
  decode_blocks(weights, row, first, count, values);
  if (weights.tensor_scale == 1.0f) return;
  for (int64_t i = 0; i < count; ++i) values[i] *= weights.tensor_scale;
}

}  // namespace bitloom

extern "C" {

const bl_format_info* bl_get_format_info(int32_t format) {
  if (format < 0 || format >= BL_FORMAT_count) return nullptr;
  return &bitloom::kFormats[format];
}

int32_t bl_find_format(const char* name) {
  if (name == nullptr) return -1;
  for (int32_t format = 0; format < BL_FORMAT_count; ++format) {
    if (std::strcmp(bitloom::kFormats[format].name, name) == 0) return format;
  }
  return -1;
}

uint64_t bl_row_bytes(int32_t format, int64_t cols) {
  const bl_format_info* info = bl_get_format_info(format);
  if (info == nullptr || cols <= 0) return 0;
  uint64_t bytes = 0;
  if (info->block_elements == 0) {  // at most 2^63 + 4: no overflow
    bytes = static_cast<uint64_t>(bitloom::code_bytes(cols, info->bits)) +
            static_cast<uint64_t>(bitloom::grouped_header_bytes(*info));
  } else {
    if (info->kind == BL_KIND_block && cols % info->block_elements != 0) return 0;
    const int64_t blocks = cols / info->block_elements + (cols % info->block_elements != 0);
    if (__builtin_mul_overflow(static_cast<uint64_t>(blocks), static_cast<uint64_t>(info->block_bytes),
                               &bytes)) {
      return 0;
    }
  }
  return bytes <= bitloom::kMaxBytes ? bytes : 0;
}

uint64_t bl_weights_bytes(int32_t format, int64_t rows, int64_t cols) {
  uint64_t bytes = 0;
  if (rows <= 0 || __builtin_mul_overflow(bl_row_bytes(format, cols), static_cast<uint64_t>(rows), &bytes)) {
    return 0;
  }
  return bytes <= bitloom::kMaxBytes ? bytes : 0;
}

uint64_t bl_layout_bytes(int32_t format, int32_t layout, int64_t rows, int64_t cols) {
  if (layout == BL_LAYOUT_canonical) return bl_weights_bytes(format, rows, cols);
  if (layout == BL_LAYOUT_fragments) return bitloom::fragments_bytes(format, rows, cols);
  return layout == BL_LAYOUT_lanes16 ? bitloom::lanes_bytes(format, rows, cols) : 0;
}

}  // extern "C"
