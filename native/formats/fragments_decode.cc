// Weights out of layout fragments, in scalar code, and what the packer derives of them for kernels.
#include <algorithm>
#include <cmath>
#include <cstring>

#include "../base/float16.h"
#include "elements.h"
#include "fragments.h"

namespace bitloom {
namespace {

// What the weights of a group of a row share: weight = scale * (value - zero) + offset, or scale * entry.
struct GroupValues {
  float scale, zero, offset;
  const float* table;
};

GroupValues group_values(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* fragments,
                         int64_t row, int64_t group) {
  const int64_t tile = row / kUnitRows, place = record_place(row % kUnitRows);
  const uint8_t* record =
      fragments + shape.records_offset + (tile * shape.groups + group) * shape.record_bytes;
  GroupValues g{0, static_cast<float>(f.zero), 0, f.float_table};
  if (f.sub_bits != 0) {
    const int64_t s = group * shape.group / f.canonical_elements;
    const uint8_t* super =
        fragments + shape.supers_offset + (tile * shape.supers + s) * shape.super_bytes + 2 * place;
    g.scale = scale_value(f.scale_type, super) * f.scale_factor *
              static_cast<float>(static_cast<int32_t>(record[place]) - f.sub_zero);
    if (f.offset_kind == OffsetKind::sub_min) {
      g.offset =
          -scale_value(f.scale_type, super + 32) * static_cast<float>(record[shape.second_offset + place]);
    }
    return g;
  }
  const uint8_t* second = record + shape.second_offset + f.scale_bytes * place;
  g.scale = scale_value(f.scale_type, record + f.scale_bytes * place);
  if (f.float_table == nullptr) g.scale *= f.scale_factor;
  if (f.offset_kind == OffsetKind::min) g.offset = scale_value(f.scale_type, second);
  if (f.offset_kind == OffsetKind::zero_point) {
    g.offset = 0;
    g.zero = scale_value(f.scale_type, second);
  }
  if (f.value_kind == ValueKind::chosen_table) {
    g.table = f.tables.table(record[shape.second_offset + place], f.bits);
  }
  return g;
}

float float_at(const PanelFormat& f, const uint8_t* bytes) {
  if (f.bits == 32) return load_as<float>(bytes);
  const uint16_t half = load_as<uint16_t>(bytes);
  return f.format == BL_FORMAT_bf16 ? bf16_to_f32(half) : f16_to_f32(half);
}

float weight_of(const PanelFormat& f, const GroupValues& g, uint32_t code) {
  if (g.table != nullptr) return g.scale * g.table[code];
  const float value = static_cast<float>(panel_value(f, code));
  if (f.offset_kind == OffsetKind::zero_point) return g.scale * ((value - f.zero_shift) - g.zero);
  const float centred = static_cast<float>(panel_value(f, code) - f.zero);
  if (f.offset_kind == OffsetKind::none) return g.scale * centred;
  return g.scale * centred + g.offset;
}

// The largest magnitude that a value can take before it is scaled.
float largest_value(const PanelFormat& f) {
  if (f.float_table != nullptr) {
    float largest = 0;
    for (int32_t i = 0; i < 1 << f.bits; ++i) {
      if (std::isfinite(f.float_table[i])) largest = std::max(largest, std::fabs(f.float_table[i]));
    }
    return largest;
  }
  if (f.value_kind == ValueKind::chosen_table) {
    float largest = 0;
    for (int32_t i = 0; i < f.tables.count << f.bits; ++i) {
      largest = std::max(largest, std::fabs(f.tables.values[i]));
    }
    return largest;
  }
  return static_cast<float>(f.max_value + (f.offset_kind == OffsetKind::zero_point ? 256 : f.zero));
}

float largest_weight(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* fragments,
                     int64_t rows) {
  float largest = 0;
  const auto see = [&](float x) {
    if (std::isfinite(x)) largest = std::max(largest, std::fabs(x));
  };
  if (f.value_kind == ValueKind::floats) {
    const int64_t count = shape.row_tiles * shape.units * kUnitRows * kUnitDepth;
    const uint8_t* codes = fragments + kFragmentsHeaderBytes;
    for (int64_t i = 0; i < count; ++i) see(float_at(f, codes + i * f.bits / 8));
    return largest;
  }
  if (f.value_kind == ValueKind::row_table) {
    const int64_t entries = shape.row_tiles * kUnitRows << f.bits;
    for (int64_t i = 0; i < entries; ++i) {
      see(scale_value(f.scale_type, fragments + shape.records_offset + 2 * i));
    }
    return largest;
  }
  const float value = largest_value(f);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t group = 0; group < shape.groups; ++group) {
      if (f.sub_bits != 0 && group * shape.group >= f.cols) break;
      const GroupValues g = group_values(f, shape, fragments, row, group);
      see(std::fabs(g.scale) * value + std::fabs(g.offset));
    }
  }
  return largest;
}

}  // namespace

void write_fragments_header(const PanelFormat& f, const FragmentsShape& shape, int64_t rows,
                            uint8_t* fragments) {
  FragmentsHeader header{};
  header.unit = header.inverse_unit = 1;
  const bool halves =
      f.format == BL_FORMAT_f16 || (f.value_kind != ValueKind::floats && f.scale_type == BL_SCALE_f16 &&
                                    f.sub_bits == 0 && !has_elements(f));
  if (!halves) {
    const float largest = largest_weight(f, shape, fragments, rows);
    if (largest > 0) {
      // Kernels take elements' bits as f16 of up to 2^14 times less, and their scales as much larger.
      const int exponent = std::clamp((has_elements(f) ? 2 : 12) - std::ilogb(largest), -120, 120);
      header.unit = std::ldexp(1.0f, exponent);
      header.inverse_unit = std::ldexp(1.0f, -exponent);
    }
  }
  std::memcpy(fragments, &header, sizeof(header));
}

void decode_fragments_row(const PanelFormat& f, const FragmentsShape& shape, const uint8_t* fragments,
                          int64_t row, int64_t first, int64_t count, float* values) {
  const int64_t tile = row / kUnitRows, in_tile = row % kUnitRows;
  const uint8_t* codes = fragments + kFragmentsHeaderBytes + tile * shape.units * shape.unit_bytes;
  GroupValues g{};
  int64_t known = -1;  // the group of g
  for (int64_t k = first; k < first + count; ++k) {
    const uint8_t* unit = codes + k / kUnitDepth * shape.unit_bytes;
    if (f.value_kind == ValueKind::floats) {
      values[k - first] = float_at(f, unit + fragment_float_byte(f, in_tile, k % kUnitDepth));
      continue;
    }
    const uint32_t code = fragment_code(f, unit, in_tile, k % kUnitDepth);
    if (f.value_kind == ValueKind::row_table) {
      const uint8_t* record = fragments + shape.records_offset + tile * shape.record_bytes;
      values[k - first] = scale_value(f.scale_type, record + 32 * code + 2 * record_place(in_tile));
      continue;
    }
    const int64_t group = shape.group == 0 ? 0 : k / shape.group;
    if (group != known) g = group_values(f, shape, fragments, row, group);
    known = group;
    values[k - first] = weight_of(f, g, code);
  }
}

}  // namespace bitloom
