// The specification of matmul: what every other kernel is compared with.
#include <cmath>
#include <cstring>

#include "../../base/float16.h"
#include "kernel.h"

namespace bitloom::scalar {

namespace {

constexpr int64_t kChunk = 256;  // a multiple of every block size

float scale_value(const bl_format_info& info, const uint8_t* bytes) {
  const uint16_t bits = load_as<uint16_t>(bytes);
  return info.scale_dtype == BL_DTYPE_bf16 ? bf16_to_f32(bits) : f16_to_f32(bits);
}

// Code i of a bit stream, least significant bit first.
uint32_t stream_code(const uint8_t* bytes, int64_t i, int32_t bits) {
  uint32_t code = 0;
  for (int32_t b = 0; b < bits; ++b) {
    const int64_t position = i * bits + b;
    code |= static_cast<uint32_t>(bytes[position / 8] >> (position % 8) & 1) << b;
  }
  return code;
}

// Weights [first, first + count) of a row, all of one block: scale * (codes[i] - zero).
struct CodeRun {
  float scale;
  float zero;
};

CodeRun read_codes(const WeightsView& b, int64_t row, int64_t first, int64_t count, int32_t* codes) {
  const bl_format_info& info = *b.info;
  const uint8_t* block = b.block(row, first / b.block_elements);
  const int64_t offset = first % b.block_elements;
  if (info.kind == BL_KIND_block) {  // q8_0, q4_0: scale, then codes
    for (int64_t i = 0; i < count; ++i) {
      const int64_t at = offset + i;
      codes[i] = info.gguf_type == 8 ? static_cast<int8_t>(block[2 + at])
                                     : (block[2 + at % 16] >> (at < 16 ? 0 : 4) & 15) - 8;
    }
    return {f16_to_f32(load_as<uint16_t>(block)), 0};
  }
  const IntegerCodes form(info);
  const uint8_t* stream = block + (info.has_zero_point ? 4 : 2);
  for (int64_t i = 0; i < count; ++i) {
    codes[i] = static_cast<int32_t>(stream_code(stream, offset + i, form.bits) << form.shift ^ form.flip);
  }
  const float zero =
      info.has_zero_point ? scale_value(info, block + 2) + form.zero_shift : static_cast<float>(form.zero);
  return {scale_value(info, block), zero};
}

}  // namespace

void pack_activations_i8(const float* x, int64_t k, int8_t* codes, float* scales) {
  const int64_t padded = padded_k(k);
  std::memset(codes, 0, static_cast<size_t>(padded));
  for (int64_t begin = 0; begin < padded; begin += kGroup) {
    const int64_t end = begin + kGroup < k ? begin + kGroup : k;
    float largest = 0;
    bool finite = true;
    for (int64_t i = begin; i < end; ++i) {
      finite = finite && std::isfinite(x[i]);
      largest = std::fmax(largest, std::fabs(x[i]));
    }
    // Below 127 * FLT_MIN the reciprocal overflows; such a group counts as zero.
    const float inverse = largest < 1.5e-36f ? 0 : 127.0f / largest;
    scales[begin / kGroup] = finite ? (inverse == 0 ? 0 : largest / 127.0f) : NAN;
    if (!finite) continue;
    for (int64_t i = begin; i < end; ++i) codes[i] = static_cast<int8_t>(std::nearbyint(x[i] * inverse));
  }
}

void matmul_i8(const Activations& a, const WeightsView& b, const Tile& tile) {
  int32_t codes[kGroup];
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    for (int64_t n = tile.n_begin; n < tile.n_end; ++n) {
      double sum = 0;
      for (int64_t k = 0; k < b.cols; k += kGroup) {
        const int64_t count = k + kGroup < b.cols ? kGroup : b.cols - k;
        const CodeRun run = read_codes(b, n, k, count, codes);
        const int8_t* activation = a.codes + m * a.k_padded + k;
        int32_t products = 0;
        int32_t activations = 0;
        for (int64_t i = 0; i < count; ++i) {
          products += codes[i] * activation[i];
          activations += activation[i];
        }
        const double a_scale = a.scales[(m * a.k_padded + k) / kGroup];
        sum += a_scale * run.scale * (products - static_cast<double>(run.zero) * activations);
      }
      tile.values[(m - tile.m_begin) * tile.stride + n - tile.n_begin] = static_cast<float>(sum);
    }
  }
}

void matmul_f32(const Activations& a, const WeightsView& b, const Tile& tile) {
  float weights[kChunk];
  for (int64_t n = tile.n_begin; n < tile.n_end; ++n) {
    for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
      double sum = 0;
      for (int64_t k = 0; k < b.cols; k += kChunk) {
        const int64_t count = k + kChunk < b.cols ? kChunk : b.cols - k;
        decode_row(b, n, k, count, weights);
        for (int64_t i = 0; i < count; ++i) {
          sum += static_cast<double>(a.values[m * a.k_padded + k + i]) * weights[i];
        }
      }
      tile.values[(m - tile.m_begin) * tile.stride + n - tile.n_begin] = static_cast<float>(sum);
    }
  }
}

}  // namespace bitloom::scalar
