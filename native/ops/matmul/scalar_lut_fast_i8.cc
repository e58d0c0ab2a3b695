// The specification of algorithm lut with tables of bytes: what they hold and how they are looked up.
#include <algorithm>
#include <cmath>

#include "kernel.h"
#include "tables.h"

namespace bitloom {

void set_table_starts(const PanelFormat& f, const Activations& a, int64_t m, float* starts, float* moments) {
  const int64_t step = table_step_of(f), groups = a.stride / kGroup, steps = pieces(a.stride, step);
  const int32_t largest = ((1 << f.bits) - 1) << f.shift;
  for (int64_t s = 0; s < steps; ++s) {
    float start = 0, moment = 0;
    for (int64_t i = s * step / kGroup; i < std::min((s + 1) * step / kGroup, groups); ++i) {
      const int64_t at = m * groups + i;
      const float scale = a.scales[at];
      int32_t negatives = a.negatives[at];
      if (scale < 0) {  // codes count with the other sign
        negatives = 0;
        for (int64_t k = 0; k < kGroup; ++k) {
          negatives += std::max<int32_t>(a.codes[m * a.stride + i * kGroup + k], 0);
        }
      }
      // Unsigned: a foreign buffer of prepared activations may hold any number.
      const uint32_t counted = static_cast<uint32_t>(largest) * static_cast<uint32_t>(negatives);
      start += scale * static_cast<float>(a.starts[at]);
      start -= std::fabs(scale) * static_cast<float>(static_cast<int32_t>(counted));
      moment += a.moments[at];
    }
    starts[m * steps + s] = start;
    moments[m * steps + s] = moment;
  }
}

namespace scalar {
namespace {

// Entries of the table of half `half` and byte `j` of a run, at its 32 codes.
void entries_of(const int8_t* codes, int32_t bits, int64_t run, int64_t half, int64_t j, bool negate,
                int32_t* entries) {
  const int32_t most = (1 << bits) - 1;
  const int8_t* a = codes + table_first(bits, run, half, j);
  for (int32_t x = 0; x < 16; ++x) {
    entries[x] = 0;
    for (int32_t at = 0; at < 4; at += bits) {
      const int32_t code = a[at / bits * table_step(bits)], activation = negate ? -code : code;
      entries[x] += (x >> at & most) * activation;
      if (activation < 0) entries[x] -= most * activation;
    }
  }
}

template <typename Body>
void for_each_table(int32_t bits, Body&& body) {
  for (int64_t run = 0; run < bits; ++run) {
    for (int64_t half = 0; half < 2; ++half) {
      for (int64_t j = 0; j < 4; ++j) body(run, half, j);
    }
  }
}

}  // namespace

void build_fast_tables(const int8_t* codes, const float* scales, int64_t stride, int32_t bits,
                       uint8_t* tables, float* table_scales) {
  int32_t entries[16];
  for (int64_t begin = 0; begin < stride; begin += kTableGroup, ++table_scales) {
    const int64_t count = std::min(kTableGroup, stride - begin) / kGroup;
    int32_t largest[kTableGroup / kGroup] = {}, m[kTableGroup / kGroup];
    for (int64_t i = 0; i < count; ++i) {
      for_each_table(bits, [&](int64_t run, int64_t half, int64_t j) {
        entries_of(codes + begin + i * kGroup, bits, run, half, j, false, entries);
        largest[i] = std::max(largest[i], *std::max_element(entries, entries + 16));
      });
    }
    *table_scales = fast_table_scale(scales + begin / kGroup, largest, count, m);
    for (int64_t i = 0; i < count; ++i) {
      for_each_table(bits, [&](int64_t run, int64_t half, int64_t j) {
        entries_of(codes + begin + i * kGroup, bits, run, half, j, m[i] < 0, entries);
        for (int64_t x = 0; x < 16; ++x) {
          *tables++ = static_cast<uint8_t>((entries[x] * std::abs(m[i]) + 2048) >> 12);
        }
      });
    }
  }
}

void matmul_lut_fast_i8(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int64_t step = table_step_of(f), steps = pieces(a.stride, step), groups = a.stride / kGroup;
  const int64_t block_chunks = f.elements / kChunk, chunks = pieces(f.cols, kChunk);
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    for (int64_t n = 0; n < tile.panel_count * kPanelRows; ++n) {
      const uint8_t* panel = tile.panels + n / kPanelRows * tile.panel_stride;
      const int64_t lane = n % kPanelRows;
      float* out = tile.values + (m - tile.m_begin) * tile.stride + n;
      float sum = tile.accumulate ? *out : 0.0f;
      for (int64_t s = 0; s * step < f.cols; ++s) {
        float looked = a.table_starts[m * steps + s];
        for (int32_t p = 0; p < f.plane_count; ++p) {
          const Plane& plane = f.planes[p];
          int32_t total = 0;
          for (int64_t i = s * step / kChunk; i < std::min((s + 1) * step / kChunk, chunks); ++i) {
            const uint8_t* codes =
                f.chunk(panel + i / block_chunks * f.block_bytes, i % block_chunks) + plane.chunk_offset;
            const uint8_t* tables =
                a.fast_tables[plane.bits - 1] + (m * groups + i) * fast_table_bytes(plane.bits);
            for_each_table(plane.bits, [&](int64_t run, int64_t half, int64_t j) {
              total += tables[codes[64 * run + 16 * j + lane] >> (4 * half) & 15];
              tables += 16;
            });
          }
          const float scale =
              a.table_scales[plane.bits - 1][m * pieces(a.stride, kTableGroup) + s * step / kTableGroup];
          looked = std::fma(static_cast<float>(total),
                            scale * static_cast<float>(1 << (plane.shift + f.shift)), looked);
        }
        sum = std::fma(panel_scale(f, panel, lane, s * step), looked, sum);
        if (f.offset_kind != OffsetKind::none) {
          sum = std::fma(panel_offset(f, panel, lane, s * step), a.table_moments[m * steps + s], sum);
        }
      }
      *out = sum;
    }
  }
}

}  // namespace scalar
}  // namespace bitloom
