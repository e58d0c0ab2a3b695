#include "input.h"

#include <algorithm>

#include "../../base/float16.h"
#include "kernel.h"

namespace bitloom {
namespace {

// A scale per row gets an axis of its own, so that both kinds are rows of scales.
Rows rows_of_scales(const bl_matmul_args& args) {
  bl_tensor scales = args.a_scales;
  if (scales.data != nullptr && scales.rank + 1 == args.a.rank) {
    scales.shape[scales.rank] = 1;
    scales.strides[scales.rank++] = 0;
  }
  return Rows(scales);
}

}  // namespace

Input::Input(const bl_matmul_args& args, const PreparedHeader& header)
    : a_(args.a),
      prepared_(static_cast<const uint8_t*>(args.prepared)),
      tables_(header.tables),
      scales_(rows_of_scales(args)),
      scale_groups_(scales_.length),
      column_scale_(args.column_scale.data),
      column_order_(args.column_order.data),
      product_columns_(args.b.cols) {}

Input::Input(const bl_tensor& a, const int32_t* gather, int64_t count)
    : a_(a),
      gather_(gather),
      prepared_(nullptr),
      tables_(0),
      scales_(bl_tensor{}),
      scale_groups_(0),
      column_scale_(nullptr),
      column_order_(nullptr),
      product_columns_(a_.length) {
  a_.count = count;
}

void Input::load_codes(int64_t m, float* buffer) const {
  const uint8_t* codes = a_.at(m);
  const uint8_t* scales = scales_.at(m);
  for (int64_t k = 0; k < a_.length; ++k) {
    const int64_t group = scale_per_row() ? 0 : k / kGroup;
    buffer[k] = static_cast<float>(load_as<int8_t>(codes + k * a_.stride)) *
                load_as<float>(scales + group * scales_.stride * 4);
  }
}

const float* Input::original(int64_t m, float* buffer) const {
  if (is_codes()) {
    load_codes(m, buffer);
    return buffer;
  }
  if (gather_ != nullptr) m = gather_[m];
  if (const float* row = a_.direct(m)) return row;
  a_.load(m, buffer);
  return buffer;
}

const float* Input::arranged(int64_t m, float* buffer, float* second) const {
  const float* row = original(m, buffer);
  if (column_scale_ != nullptr) {
    const uint8_t* scale = static_cast<const uint8_t*>(column_scale_);
    for (int64_t k = 0; k < a_.length; ++k) buffer[k] = row[k] * load_as<float>(scale + 4 * k);
    row = buffer;
  }
  if (column_order_ == nullptr) return row;
  // Indices were checked; clamped once more, so that memory that changed since can not lead outside the row.
  const uint8_t* order = static_cast<const uint8_t*>(column_order_);
  const uint32_t last = static_cast<uint32_t>(a_.length - 1);
  for (int64_t k = 0; k < product_columns_; ++k)
    second[k] = row[std::min(load_as<uint32_t>(order + 4 * k), last)];
  return second;
}

void Input::codes(int64_t m, int8_t* codes, float* scales) const {
  const uint8_t* row = a_.at(m);
  const uint8_t* order = static_cast<const uint8_t*>(column_order_);
  const uint32_t last = static_cast<uint32_t>(a_.length - 1);
  for (int64_t k = 0; k < product_columns_; ++k) {
    const int64_t from = order == nullptr ? k : std::min(load_as<uint32_t>(order + 4 * k), last);
    // Never below -127, whatever became of the memory since find_bad_row(): kernels rely on it.
    codes[k] = std::max<int8_t>(load_as<int8_t>(row + from * a_.stride), -127);
  }
  scales_.load(m, scales);
}

int64_t Input::find_bad_row() const {
  for (int64_t m = 0; m < a_.count; ++m) {
    const uint8_t* row = a_.at(m);
    int8_t least = 0;
    for (int64_t k = 0; k < a_.length; ++k) least = std::min(least, load_as<int8_t>(row + k * a_.stride));
    if (least == -128) return m;
  }
  return -1;
}

int8_t Input::code_at(int64_t m, int64_t k) const { return load_as<int8_t>(a_.at(m) + k * a_.stride); }

}  // namespace bitloom
