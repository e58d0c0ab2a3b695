#include "weights.h"

#include <algorithm>
#include <cmath>

#include "../../../native/base/float16.h"
#include "../../tile/table_layout.h"

namespace bitloom::cuda::gemm {
namespace {

int32_t log2_of(int64_t x) { return 63 - __builtin_clzll(static_cast<uint64_t>(x)); }

Second second_of(const PanelFormat& f) {
  if (f.value_kind == ValueKind::chosen_table) return Second::table_number;
  switch (f.offset_kind) {
    case OffsetKind::zero_point:
      return Second::zero_point;
    case OffsetKind::min:
      return Second::min;
    case OffsetKind::sub_min:
      return Second::sub_min;
    default:
      return Second::none;
  }
}

const char* integer_kernel(const PanelFormat& f) {
  static constexpr const char* kNames[] = {"", "z1", "z2", "z3", "z4", "z5", "z6", "z7", "z8"};
  const bool centred = f.offset_kind == OffsetKind::none && f.sub_bits == 0 && f.scale_bytes == 2;
  if (centred && f.bits == 4) return "c4";
  if (centred && f.bits == 8) return "c8";
  return kNames[f.bits];
}

// Elements: sign, exponent and mantissa bits to f16's places; the scale makes up for the exponent's bias.
void plan_elements(const PanelFormat& f, PlannedWeights* plan) {
  FragmentWeights& b = plan->weights;
  plan->product = f.bits == 4 ? "e4" : f.bits == 6 ? "e6" : "e8";
  const int32_t kind = f.info->kind;
  const int mantissa = kind == BL_KIND_e2m3 || kind == BL_KIND_e4m3   ? 3
                       : kind == BL_KIND_e3m2 || kind == BL_KIND_e5m2 ? 2
                                                                      : 1;
  const int exponent = f.bits - 1 - mantissa;
  b.exponent_shift = 10 - mantissa;
  b.factor = std::ldexp(1.0f, 15 - ((1 << (exponent - 1)) - 1));
}

// A weight, or a code less its zero where the group's scale can come after, must be a bf16 number. Not e5m2:
// its infinities and NaN are f16's.
const char* bf16_kernel(const PanelFormat& f) {
  const char* integers = f.value_kind == ValueKind::integer ? integer_kernel(f) : "";
  if (f.format == BL_FORMAT_bf16) return "bf16_weights";
  if (integers[0] == 'c' && f.group >= 32 && f.zero == 1 << (f.bits - 1) && f.scale_factor == 1) {
    return f.bits == 4 ? "bf16_c4" : "bf16_c8";
  }
  if (!has_elements(f) || f.scale_bytes != 1 || f.info->kind == BL_KIND_e5m2) return nullptr;
  return f.bits == 4 ? "bf16_e4" : f.bits == 6 ? "bf16_e6" : "bf16_e8";
}

// Entries as f16 of at most 2 in magnitude; a power of two goes to the scale.
void plan_tables(const PanelFormat& f, PlannedWeights* plan) {
  FragmentWeights& b = plan->weights;
  float values[64];
  const float* tables = f.value_kind == ValueKind::chosen_table ? f.tables.values : f.float_table;
  b.tables = f.value_kind == ValueKind::chosen_table ? f.tables.count : 1;
  plan->unpack = UnpackKind::table;
  plan->entries = tables;
  plan->entry_count = b.tables << f.bits;
  static constexpr int kMostTables[] = {0, 0, 16, 4, 4};  // in 32 KB of shared memory
  if (f.bits < 2 || f.bits > 4 || b.tables > kMostTables[f.bits]) return;
  if (f.value_kind == ValueKind::table) {  // integers
    for (int i = 0; i < 1 << f.bits; ++i) values[i] = static_cast<float>(f.table[i] - f.zero);
    tables = values;
  }
  const bool several = f.bits == 4 && b.tables > 1;
  plan->product = several ? "s4" : f.bits == 4 ? "t4" : f.bits == 3 ? "t3" : "t2";
  float largest = 0;
  for (int i = 0; i < plan->entry_count; ++i) largest = std::max(largest, std::fabs(tables[i]));
  const int exponent = largest > 0 ? std::clamp(std::ilogb(largest), -100, 100) : 0;
  for (int i = 0; i < plan->entry_count; ++i) b.table[i] = f32_to_f16(std::ldexp(tables[i], -exponent));
  b.factor = std::ldexp(1.0f, exponent);
  plan->table_bytes = b.tables * pair_table_bytes(f.bits, several ? 8 : f.bits == 4 ? 16 : 32);
}

void plan_codes(const PanelFormat& f, PlannedWeights* plan) {
  FragmentWeights& b = plan->weights;
  b.factor = f.scale_factor;
  b.zero = static_cast<float>(f.zero);
  b.zero_shift = f.zero_shift;
  b.sub_zero = static_cast<float>(f.sub_zero);
  b.tables = 1;
  if (f.value_kind == ValueKind::floats) {
    plan->unpack = f.format == BL_FORMAT_f32 ? UnpackKind::f32 : UnpackKind::bf16;
    if (f.format == BL_FORMAT_f16) plan->product = "f16";
    return;
  }
  if (f.value_kind == ValueKind::row_table) {
    plan->unpack = UnpackKind::row_table;
    return;
  }
  if (has_elements(f)) return plan_elements(f, plan);
  if (f.value_kind != ValueKind::integer) return plan_tables(f, plan);
  plan->product = integer_kernel(f);
  if (f.shift != 0) {  // signs: 2 * code - 1 = 2 * (code - 1/2)
    b.factor *= 2;
    b.zero /= 2;
  }
}

}  // namespace

PlannedWeights plan_weights(const bl_weights& given) {
  const WeightsView view(given);
  const PanelFormat& f = view.panel;
  const FragmentsShape shape(f, given.rows);
  PlannedWeights plan{};
  plan.bits = f.bits;
  FragmentWeights& b = plan.weights;
  const char* data = static_cast<const char*>(given.data);
  b.header = reinterpret_cast<const float*>(data);
  b.codes = data + kFragmentsHeaderBytes;
  b.records = data + shape.records_offset;
  b.supers = data + shape.supers_offset;
  b.tile_codes = shape.units * shape.unit_bytes;
  b.tile_records = shape.groups * shape.record_bytes;
  b.tile_supers = shape.supers * shape.super_bytes;
  b.row_tiles = static_cast<int32_t>(shape.row_tiles);
  b.units = static_cast<int32_t>(shape.units);
  b.unit_bytes = static_cast<int32_t>(shape.unit_bytes);
  b.group_shift = shape.group == 0 ? 31 : log2_of(shape.group);
  b.record_bytes = static_cast<int32_t>(shape.record_bytes);
  b.second_offset = static_cast<int32_t>(shape.second_offset);
  b.super_bytes = shape.supers != 0 ? static_cast<int32_t>(shape.super_bytes) : 0;
  b.super_shift = 2;  // 256 weights
  b.scale_type = f.scale_type;
  b.second = second_of(f);
  plan_codes(f, &plan);
  plan.bf16 = bf16_kernel(f);
  return plan;
}

FragmentWeights unpacked_weights(const FragmentWeights& b, const void* data) {
  FragmentWeights to{};
  to.header = b.header;
  to.codes = data;
  to.row_tiles = b.row_tiles;
  to.units = b.units;
  to.unit_bytes = 2048;
  to.tile_codes = static_cast<int64_t>(b.units) * 2048;
  to.group_shift = 31;
  to.tables = 1;
  return to;
}

}  // namespace bitloom::cuda::gemm
