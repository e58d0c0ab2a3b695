#include "epilogue.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "../../base/scratch.h"
#include "../../isa/isa.h"
#include "activations.h"

namespace bitloom {
namespace {

constexpr int64_t kScaleColumns = 32;  // outputs that share a scale of c_scales

Elementwise elementwise_of(int32_t activation) {
  switch (activation) {
    case BL_ACTIVATION_gelu:
    case BL_ACTIVATION_geglu:
      return Elementwise::gelu_erf;
    case BL_ACTIVATION_gelu_tanh:
      return Elementwise::gelu_tanh;
    case BL_ACTIVATION_swiglu:
      return Elementwise::swiglu;
    default:
      return Elementwise::silu;
  }
}

// `count` values of a vector of f32 that may lie at any address.
const float* aligned(const void* data, int64_t n, int64_t count, float* buffer) {
  const uint8_t* bytes = static_cast<const uint8_t*>(data) + 4 * n;
  if (reinterpret_cast<uintptr_t>(bytes) % alignof(float) == 0) return reinterpret_cast<const float*>(bytes);
  std::memcpy(buffer, bytes, static_cast<size_t>(4 * count));
  return buffer;
}

uint8_t* address(const Rows& rows, int64_t m, int64_t n) {
  return rows.at(m) + n * rows.stride * dtype_bytes(rows.tensor.dtype);
}

}  // namespace

Epilogue::Epilogue(const bl_matmul_args& args, const Additions& additions, int64_t batches)
    : args_(args),
      additions_(additions),
      kernels_(row_kernels(isa_of(args.run))),
      add_(elementwise_kernel(Elementwise::add, isa_of(args.run))),
      mul_(elementwise_kernel(Elementwise::mul, isa_of(args.run))),
      activation_(elementwise_kernel(elementwise_of(args.activation), isa_of(args.run))),
      parts_(is_gated(args.activation) ? 2 : 1),
      n_(args.b.rows / batches),
      scale_((args.scale == 0 ? 1 : args.scale) * (args.b.tensor_scale == 0 ? 1 : args.b.tensor_scale)),
      c_(args.c),
      c_scales_(args.c_scales),
      addend_(args.addend),
      residual_(args.residual) {}

// A row of floats to convert into, then the additions' memory for each part.
uint64_t Epilogue::slot_bytes(int64_t width) const {
  return align_up(static_cast<uint64_t>(width) * sizeof(float)) +
         static_cast<uint64_t>(parts_) * additions_.slot_bytes(width);
}

void Epilogue::add_rows(const Rows& rows, int64_t m, int64_t n, int64_t count, float* values,
                        float* buffer) const {
  load_values(rows.tensor.dtype, address(rows, m, n), rows.stride, count, buffer);
  add_(values, buffer, values, count);
}

// Everything up to the activation, for the products of one part.
void Epilogue::finish_part(const Products& products, int64_t part) const {
  const int64_t count = products.count;
  const int64_t n = part * (n_ / parts_) + products.n;  // row of b within the batch
  const int64_t row_of_b = products.batch * n_ + n;
  float* buffer = reinterpret_cast<float*>(products.memory);
  float* values = products.values + part * products.part_stride;
  for (int64_t m = products.m.begin; m < products.m.end; ++m) {
    float* row = values + (m - products.m.begin) * products.stride;
    if (args_.row_scale.data != nullptr) {
      kernels_.scale(row, aligned(args_.row_scale.data, row_of_b, count, buffer), scale_, count);
    } else if (scale_ != 1) {
      kernels_.scale(row, nullptr, scale_, count);
    }
    if (args_.addend.data != nullptr) add_rows(addend_, products.m[m], n, count, row, buffer);
    if (args_.bias.data != nullptr) add_(row, aligned(args_.bias.data, row_of_b, count, buffer), row, count);
  }
  if (!additions_.any()) return;
  uint8_t* memory = products.memory + slot_bytes(products.part_stride) -
                    static_cast<uint64_t>(parts_ - part) * additions_.slot_bytes(products.part_stride);
  additions_.add({products.m, products.batch, n, count, values, products.stride, memory}, products.first);
}

void Epilogue::activate(float* gate, const float* up, int64_t count) const {
  switch (args_.activation) {
    case BL_ACTIVATION_none:
      return;
    case BL_ACTIVATION_relu:
      for (int64_t i = 0; i < count; ++i) gate[i] = gate[i] < 0 ? 0 : gate[i];  // NaN stays
      return;
    case BL_ACTIVATION_geglu:
      activation_(gate, nullptr, gate, count);
      mul_(gate, up, gate, count);
      return;
    default:
      activation_(gate, up, gate, count);
  }
}

// i8 outputs, by the scale that the caller gives or by one of every 32.
void Epilogue::store_codes(int64_t m, int64_t n, int64_t count, const float* values) const {
  for (int64_t begin = 0; begin < count; begin += kScaleColumns) {
    const int64_t columns = std::min(kScaleColumns, count - begin);
    int8_t codes[kScaleColumns];
    if (args_.c_scales.data != nullptr) {
      const float scale = quantize_group(kernels_, values + begin, columns, 127.0f, codes);
      std::memcpy(address(c_scales_, m, (n + begin) / kScaleColumns), &scale, sizeof(scale));
    } else {
      float finite[kScaleColumns];  // NaN as 0, infinities as the largest float: codes 127 and -127
      for (int64_t i = 0; i < columns; ++i) {
        const float value = values[begin + i];
        finite[i] = value != value ? 0 : std::clamp(value, -3.4028234664e38f, 3.4028234664e38f);
      }
      kernels_.encode(finite, 1.0f / args_.c_scale, columns, codes);
    }
    uint8_t* out = address(c_, m, n + begin);
    for (int64_t i = 0; i < columns; ++i) std::memcpy(out + i * c_.stride, codes + i, 1);
  }
}

void Epilogue::store(const Products& products) const {
  for (int64_t part = 0; part < parts_; ++part) finish_part(products, part);
  float* buffer = reinterpret_cast<float*>(products.memory);
  for (int64_t m = products.m.begin; m < products.m.end; ++m) {
    float* row = products.values + (m - products.m.begin) * products.stride;
    activate(row, row + products.part_stride, products.count);
    if (args_.residual.data != nullptr)
      add_rows(residual_, products.m[m], products.n, products.count, row, buffer);
    if (c_.tensor.dtype == BL_DTYPE_i8) {
      store_codes(products.m[m], products.n, products.count, row);
    } else {
      store_values(c_.tensor.dtype, address(c_, products.m[m], products.n), c_.stride, products.count, row);
    }
  }
}

}  // namespace bitloom
