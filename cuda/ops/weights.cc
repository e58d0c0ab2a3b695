#include "weights.h"

#include "../../native/base/error.h"
#include "../../native/formats/formats.h"
#include "../../native/formats/gguf_blocks.h"
#include "../../native/formats/grouped.h"

namespace bitloom::cuda {

namespace {

// Values that codes index, or null; [*count][2^bits].
const float* table_of(const bl_weights& weights, const bl_format_info& info, int32_t* count, float* memory) {
  *count = 1;
  if (weights.format == BL_FORMAT_iq4_nl) {
    for (int i = 0; i < 16; ++i) memory[i] = kIq4Nl[i];
    return memory;
  }
  if (weights.format == BL_FORMAT_mxfp4 || weights.format == BL_FORMAT_nvfp4) return kE2m1;
  const Codebooks tables = codebooks_of(info, weights.codebook, weights.codebook_size);
  *count = tables.count;
  return tables.values;
}

}  // namespace

bl_status weights_params(const char* op, const char* name, const bl_weights& weights, Scratch& table,
                         WeightsParams* params, bl_error* error) {
  BL_CHECK(weights.layout == BL_LAYOUT_canonical, unsupported,
           "%s: %s.layout is %d, expected 0 (canonical) on device", op, name, weights.layout);
  const bl_format_info& info = *bl_get_format_info(weights.format);
  const uint64_t align = weights.format == BL_FORMAT_f32                                       ? 4
                         : weights.format == BL_FORMAT_f16 || weights.format == BL_FORMAT_bf16 ? 2
                                                                                               : 1;
  BL_CHECK(reinterpret_cast<uint64_t>(weights.data) % align == 0, unsupported,
           "%s: %s begins at no multiple of %llu bytes, expected one on device", op, name,
           static_cast<unsigned long long>(align));
  const WeightsView view(weights);
  WeightsParams all{};
  all.data = view.data;
  all.rows = view.rows;
  all.cols = view.cols;
  all.row_bytes = view.row_bytes;
  all.block_elements = view.block_elements;
  all.block_bytes = view.block_bytes;
  all.format = weights.format;
  all.kind = info.kind;
  all.bits = info.bits;
  all.scale_dtype = info.scale_dtype;
  all.has_zero_point = info.has_zero_point;
  all.tensor_scale = view.tensor_scale;
  if (info.kind != BL_KIND_block) all.header_bytes = static_cast<int32_t>(grouped_header_bytes(info));
  float memory[16];
  if (const float* values = table_of(weights, info, &all.table_count, memory); values != nullptr) {
    const int32_t bits = info.kind == BL_KIND_block ? 4 : info.bits;
    const uint64_t bytes = (static_cast<uint64_t>(all.table_count) << bits) * sizeof(float);
    BL_RETURN_IF_ERROR(table.allocate_table(values, bytes, error));
    all.table = table.as<float>();
  }
  *params = all;
  return BL_STATUS_ok;
}

}  // namespace bitloom::cuda
