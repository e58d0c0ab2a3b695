// Algorithm tile, compute bf16, where the processor has no products of bf16: f32 multiply-adds on values rounded to
// bf16. Over Vec and decode_chunk() of a level, which also gives kRows, rows of a at a time, and add_product().
//
// 128 weights of two vectors of rows (two panels, or the halves of one) are decoded into L1 (16 KB); the same columns of
// kRows rows of a are widened beside them. Sums run in order of k, in f32.
namespace {

constexpr int64_t kDepth = 128;
constexpr int kPanelsAtOnce = 2 / kHalves;

struct Memory {
  alignas(64) float weights[2][kDepth * kPanelRows];
  alignas(64) float a[kRows][kDepth];
};
static_assert(sizeof(Memory) <= size_t{1} << 17);

// f32 rounded to bf16 and back, as f32_to_bf16.
inline void round_values(float* values, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, 4);
    const uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    bits = (bits & 0x7fffffffu) > 0x7f800000u ? (bits & 0xffff0000u) | 0x400000u : rounded;
    std::memcpy(values + i, &bits, 4);
  }
}

// Columns of kRows rows of a, from a tile on, to f32.
inline void widen(const uint16_t* halves, int64_t depth, float a[][kDepth]) {
  for (int64_t k = 0; k < depth; k += kStep / 2) {
    for (int r = 0; r < kRows; ++r) {
      const uint16_t* from = halves + tile_at(r, k, 0, kStep / 2);
      for (int i = 0; i < kStep / 2; ++i) {
        const uint32_t bits = static_cast<uint32_t>(from[i]) << 16;
        std::memcpy(&a[r][k + i], &bits, 4);
      }
    }
  }
}

// values[r][v] += rows of a times vectors of weights.
inline void multiply(const Memory& memory, int64_t depth, int64_t rows, int64_t vectors, float* values, int64_t stride) {
  constexpr int64_t kStepOf = kHalves == 2 ? Vec::kLanes : kDepth * kPanelRows;
  Vec sums[kRows][2];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      sums[r][v] = r < rows && v < vectors ? Vec::load(values + r * stride + v * Vec::kLanes) : Vec::set(0);
    }
  }
  const float* weights = memory.weights[0];
  for (int64_t k = 0; k < depth; ++k, weights += kPanelRows) {
    const Vec low = Vec::load(weights), high = Vec::load(weights + kStepOf);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      const Vec x = Vec::set(memory.a[r][k]);
      add_product(sums[r][0], low, x);
      add_product(sums[r][1], high, x);
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 2
    for (int v = 0; v < 2; ++v) {
      if (r < rows && v < vectors) sums[r][v].store(values + r * stride + v * Vec::kLanes);
    }
  }
}

}  // namespace

void matmul_tile_bf16(const PanelFormat& f, const Activations& a, const Tile& tile) {
  Memory& memory = *reinterpret_cast<Memory*>(tile.scratch);
  for (int64_t m = 0; m < tile.m_end - tile.m_begin && !tile.accumulate; ++m) {
    std::memset(tile.values + m * tile.stride, 0, static_cast<size_t>(tile.panel_count * kPanelRows) * sizeof(float));
  }
  const int64_t per_block = f.elements / kChunk;
  for (int64_t begin = 0; begin < f.cols; begin += kDepth) {
    const int64_t depth = std::min(kDepth, f.cols - begin);
    for (int64_t panel = 0; panel < tile.panel_count; panel += kPanelsAtOnce) {
      const int64_t panels = std::min<int64_t>(kPanelsAtOnce, tile.panel_count - panel);
      for (int64_t p = 0; p < panels; ++p) {
        for (int64_t k = 0; k < depth; k += kChunk) {
          const int64_t chunk = (begin + k) / kChunk;
          const uint8_t* block =
              tile.panels + (panel + p) * tile.panel_stride + chunk / per_block * f.block_bytes;
          decode_chunk(f, block, chunk % per_block, memory.weights[p] + k * kPanelRows);
        }
        round_values(memory.weights[p], (depth + kChunk - 1) / kChunk * kChunk * kPanelRows);
      }
      for (int64_t m = tile.m_begin; m < tile.m_end; m += kRows) {
        widen(a.halves + tile_at(m, begin, a.stride, kStep / 2), depth, memory.a);
        multiply(memory, depth, std::min<int64_t>(kRows, tile.m_end - m), panels * kHalves,
                 tile.values + (m - tile.m_begin) * tile.stride + panel * kPanelRows, tile.stride);
      }
    }
  }
}
