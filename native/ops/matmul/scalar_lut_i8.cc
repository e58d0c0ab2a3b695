// The specification of algorithm lut: what its tables hold and how they are looked up. Results have the bits
// of matmul_dequant_i8.
#include <cmath>

#include "kernel.h"
#include "tables.h"

namespace bitloom::scalar {

void build_tables(const int8_t* codes, int64_t stride, int32_t bits, uint8_t* tables) {
  const int32_t largest = (1 << bits) - 1;
  for (int64_t begin = 0; begin < stride; begin += kGroup) {
    for (int64_t run = 0; run < bits; ++run) {
      for (int64_t half = 0; half < 2; ++half, tables += 128) {
        for (int64_t i = 0; i < 64; ++i) {
          const int8_t* a = codes + begin + table_first(bits, run, half, i / 16);
          int32_t entry = 0;
          for (int32_t at = 0; at < 4; at += bits) {
            const int32_t activation = a[at / bits * table_step(bits)];
            entry += (static_cast<int32_t>(i % 16) >> at & largest) * activation;
            if (activation < 0) entry -= largest * activation;
          }
          tables[i] = static_cast<uint8_t>(entry % kTableHigh);
          tables[64 + i] = static_cast<uint8_t>(entry / kTableHigh);
        }
      }
    }
  }
}

void sum_codes(const int8_t* codes, int64_t stride, int32_t* sums, int32_t* negatives) {
  for (int64_t i = 0; i < stride / kGroup; ++i, codes += kGroup) {
    sums[i] = negatives[i] = 0;
    for (int64_t k = 0; k < kGroup; ++k) {
      sums[i] += codes[k];
      if (codes[k] < 0) negatives[i] -= codes[k];
    }
  }
}

namespace {

// The sum of what a plane's 32 codes of a row look up.
int32_t look_up(const uint8_t* plane, int32_t bits, int64_t lane, const uint8_t* tables) {
  int32_t sum = 0;
  for (int64_t run = 0; run < bits; ++run) {
    for (int64_t half = 0; half < 2; ++half, tables += 128) {
      for (int64_t j = 0; j < 4; ++j) {
        const int32_t nibble = plane[64 * run + 16 * j + lane] >> (4 * half) & 15;
        sum += tables[16 * j + nibble] + kTableHigh * tables[64 + 16 * j + nibble];
      }
    }
  }
  return sum;
}

}  // namespace

void matmul_lut_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int64_t groups = a.stride / kGroup;
  const int64_t block_chunks = f.elements / kChunk;
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
      const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
      const int64_t lane = n % kPanelRows;
      float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
      float sum = tile.accumulate ? *out : 0.0f;
      for (int64_t i = 0; i * kChunk < f.cols; ++i) {
        const uint8_t* chunk = f.chunk(panel + i / block_chunks * f.block_bytes, i % block_chunks);
        const int64_t at = m * groups + i;
        int32_t looked_up = 0;
        for (int32_t p = 0; p < f.plane_count; ++p) {
          const Plane& plane = f.planes[p];
          const uint8_t* tables = a.tables[plane.bits - 1] + at * table_bytes(plane.bits);
          looked_up += look_up(chunk + plane.chunk_offset, plane.bits, lane, tables) << plane.shift;
        }
        const int32_t integer = static_cast<int32_t>(static_cast<uint32_t>(lut_start(f, a, at)) +
                                                     static_cast<uint32_t>(looked_up << f.shift));
        const float both = panel_scale(f, panel, lane, i * kChunk) * a.scales[at];
        sum = std::fma(static_cast<float>(integer), both, sum);
        if (f.offset_kind != OffsetKind::none) {
          sum = std::fma(panel_offset(f, panel, lane, i * kChunk), a.moments[at], sum);
        }
      }
      *out = sum;
    }
  }
}

}  // namespace bitloom::scalar
