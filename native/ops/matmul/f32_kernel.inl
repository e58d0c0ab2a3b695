// matmul_dequant_f32 over the Vec and the decoders of a level (decode.inl); included inside its region.
//
// The same bits at every level and for every size of tile. Per segment of min(32, group) weights, in order of k:
//   part = fma(w, a, part), from 0;  w = value - zero point, or the whole weight of formats with minimums
//   sum  = fma(scale, part, sum);    formats with minimums: sum + part
// Chains are short (32, then K / 32), so that rounding errors stay near sqrt(K / 32) * 2^-25 of the result; and
// zero points are taken off each weight, not off the sum, so that nothing cancels.
//
// One row of a: weights are decoded in registers; four panels at a time (a chain of 32 multiply-adds takes 128 cycles,
// decoding and multiplying a chunk 32 to 50), and all panels take turns block by block (a thread needs some eight
// streams to read at full speed). A few rows times weights that are floats: likewise, four rows times two panels.
// More rows: 128 weights of two vectors of rows are decoded into L1 and multiplied with all rows of a, kBlockRows at
// a time.
namespace {

constexpr int64_t kDepth = kF32Depth;
constexpr int64_t kMaxRows = kF32Rows;
constexpr int kVectors = 2;  // of weights in a block: two panels, or the halves of one
constexpr int kPanelsAtOnce = kVectors / kHalves;

template <typename Chunk, int kCount>
struct Chunks {
  Chunk at[kCount];
};
template <typename Chunk, int... kPanel>
inline __attribute__((always_inline)) Chunks<Chunk, sizeof...(kPanel)> chunks_of(
    const uint8_t* codes, int64_t step, int half, std::integer_sequence<int, kPanel...>) {
  return {{Chunk(codes + kPanel * step, half)...}};
}

// kRows rows of a (a_stride apart) times a chunk of kPanels panels: out[row][kPanels][16] += . scales, offsets: of the
// chunk's first group, panels `scale_step` apart.
template <Adjust kAdjust, int kPanels, int kRows, typename Decoder>
inline __attribute__((always_inline)) void add_chunk(const Decoder& decoder, const uint8_t* codes, int64_t panel_step,
                                                     int segment_log2, const float* scales, const float* offsets,
                                                     int64_t scale_step, const float* a, int64_t a_stride, float* out,
                                                     int64_t out_stride) {
  // What a half asks for, and a vector of it.
  constexpr int kBytes = Decoder::kBytes / kHalves, kLines = (kBytes + 63) / 64, kLinesAtOnce = (kLines + 7) / 8;
#pragma GCC unroll 1
  for (int half = 0; half < kHalves; ++half) {
    const int lane = half * static_cast<int>(Vec::kLanes);
    const auto chunks = chunks_of<typename Decoder::Chunk>(codes, panel_step, half,
                                                            std::make_integer_sequence<int, kPanels>());
    Vec parts[kRows][kPanels];
#pragma GCC unroll 8
    for (int i = 0; i < kRows * kPanels; ++i) parts[i / kPanels][i % kPanels] = Vec::set(0);
#pragma GCC unroll 8
    for (int v = 0; v < 8; ++v) {
#pragma GCC unroll 4
      for (int p = 0; p < kPanels; ++p) {
        // 1 KB ahead, as far as the measured read loop does best, and line by line between the products: a burst
        // of them would hold up the loads behind it. The scales' line comes with the rest.
#pragma GCC unroll 4
        for (int i = 0; i < kLinesAtOnce; ++i) {
          const int line = v * kLinesAtOnce + i;
          if (line >= kLines) continue;
          const uint8_t* ahead = codes + p * panel_step + 1024 + half * kBytes + 64 * line;
          __builtin_prefetch(ahead);
        }
        Vec w[4];
        adjusted_four<kAdjust>(decoder, chunks.at[p], v, segment_log2, scales + p * scale_step, offsets + p * scale_step, half,
                               w);
#pragma GCC unroll 4
        for (int j = 0; j < 4; ++j) {
#pragma GCC unroll 8
          for (int r = 0; r < kRows; ++r) {
            parts[r][p] = fma(w[j], Vec::set(a[r * a_stride + 4 * v + j]), parts[r][p]);
          }
        }
      }
      if (v % 2 == 0 || (v != 7 && (4 * v + 4) % (1 << segment_log2) != 0)) continue;
#pragma GCC unroll 8
      for (int i = 0; i < kRows * kPanels; ++i) {
        const int r = i / kPanels, p = i % kPanels;
        float* sum = out + r * out_stride + p * kPanelRows + lane;
        const float* scale = scales + p * scale_step + (4 * v >> segment_log2) * kPanelRows + lane;
        const Vec part = parts[r][p];
        (kAdjust == Adjust::min ? Vec::load(sum) + part : fma(Vec::load(scale), part, Vec::load(sum))).store(sum);
        parts[r][p] = Vec::set(0);
      }
    }
  }
}

// The chunk at hand of all panels.
struct ChunkOfPanels {
  const uint8_t* codes;
  const float *scales, *offsets;
  int64_t scale_step;
  int segment_log2;
};

// kRows rows of a from `row` of the tile on times a chunk of all panels, kPanels at a time.
template <Adjust kAdjust, int kPanels, int kRows, typename Decoder>
void add_panels(const Decoder& decoder, const ChunkOfPanels& chunk, const float* a, int64_t a_stride, int64_t row,
                const Tile& tile) {
  float* out = tile.values + row * tile.stride;
  const auto add = [&](auto panels, int64_t p) __attribute__((always_inline)) {
    add_chunk<kAdjust, panels(), kRows>(
        decoder, chunk.codes + p * tile.panel_stride, tile.panel_stride, chunk.segment_log2,
        chunk.scales + p * chunk.scale_step, chunk.offsets + p * chunk.scale_step, chunk.scale_step,
        a + row * a_stride, a_stride, out + p * kPanelRows, tile.stride);
  };
  int64_t p = 0;
  for (; p + kPanels <= tile.panel_count; p += kPanels) add(std::integral_constant<int, kPanels>(), p);
  for (; kPanels > 1 && p < tile.panel_count; ++p) add(std::integral_constant<int, 1>(), p);
}

// Up to so many rows of a are multiplied in registers. Floats: two rows take a tenth more than one, where by way of L1
// they took twice as much; at 16 rows both ways take as long.
template <typename Decoder>
constexpr int64_t kRegisterRows = Decoder::kCodes ? 1 : 8;

// A few rows of a, kRegisterRows at most, times all panels of a tile. scratch: scales and offsets of a block,
// [panels][groups][16] each.
template <Adjust kAdjust, typename Decoder>
void multiply_few(const PanelFormat& f, const Decoder& decoder, const float* a, int64_t a_stride, const Tile& tile) {
  const int64_t per_block = f.elements / kChunk;
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t group_chunks = f.group < kChunk ? 1 : f.group / kChunk;
  const int64_t rows = tile.m_end - tile.m_begin;
  ChunkOfPanels chunk;
  chunk.segment_log2 = segment_log2(f);
  chunk.scale_step = f.groups * kPanelRows;
  float* scales = reinterpret_cast<float*>(tile.scratch);
  float* offsets = scales + tile.panel_count * chunk.scale_step;
  for (int64_t first = 0; first < chunks; first += per_block) {
    const uint8_t* block = tile.panels + first / per_block * f.block_bytes;
    const int64_t count = chunks - first < per_block ? chunks - first : per_block;
    for (int64_t p = 0; p < tile.panel_count; ++p) {
      load_groups(f, block + p * tile.panel_stride, 0, f.groups, scales + p * chunk.scale_step,
                  offsets + p * chunk.scale_step);
    }
    int64_t group = 0, left = group_chunks;  // of the chunk, and chunks left in it
    for (int64_t c = 0; c < count; ++c, a += kChunk) {
      chunk.codes = f.chunk(block, c);
      chunk.scales = scales + group * kPanelRows;
      chunk.offsets = offsets + group * kPanelRows;
      int64_t m = 0;
      if constexpr (!Decoder::kCodes) {  // two panels share what is read of a
        for (; m + 4 <= rows; m += 4) add_panels<kAdjust, 2, 4>(decoder, chunk, a, a_stride, m, tile);
        for (; m + 2 <= rows; m += 2) add_panels<kAdjust, 2, 2>(decoder, chunk, a, a_stride, m, tile);
      }
      for (; m < rows; ++m) add_panels<kAdjust, 4, 1>(decoder, chunk, a, a_stride, m, tile);
      if (--left != 0) continue;
      group += kChunk >> chunk.segment_log2;
      left = group_chunks;
    }
  }
}

// kDepth weights, or what is left, of one or two vectors of rows.
struct WeightBlock {
  const float* weights;  // vector i: weight_step * i on, weight k at 16 k
  const float* scales;   // vector i: scale_step * i on, segment s at 16 s
  int64_t weight_step, scale_step;
  int64_t segment, segments;
};

// values[i][v] += kRows rows of a (kDepth apart) times kWidth vectors of rows.
template <int kRows, int kWidth>
void multiply_block(const WeightBlock& b, const float* a, float* values, int64_t stride) {
  const float* weights = b.weights;
  for (int64_t s = 0; s < b.segments; ++s, a += b.segment, weights += b.segment * kPanelRows) {
    Vec parts[kRows][kWidth];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kWidth; ++v) parts[i][v] = Vec::set(0);
    }
    for (int64_t k = 0; k < b.segment; ++k) {
      Vec w[kWidth];
#pragma GCC unroll 2
      for (int v = 0; v < kWidth; ++v) w[v] = Vec::load(weights + v * b.weight_step + k * kPanelRows);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vec x = Vec::set(a[i * kDepth + k]);
#pragma GCC unroll 2
        for (int v = 0; v < kWidth; ++v) parts[i][v] = fma(w[v], x, parts[i][v]);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kWidth; ++v) {
      const Vec scale = Vec::load(b.scales + v * b.scale_step + s * kPanelRows);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        float* sum = values + i * stride + v * Vec::kLanes;
        fma(scale, parts[i][v], Vec::load(sum)).store(sum);
      }
    }
  }
}

using MultiplyBlock = void (*)(const WeightBlock&, const float*, float*, int64_t);
template <int kWidth, int... kRows>
MultiplyBlock multiply_block_of(int64_t rows, std::integer_sequence<int, kRows...>) {
  static constexpr MultiplyBlock kTable[] = {multiply_block<kRows + 1, kWidth>...};
  return kTable[rows - 1];
}

// Where things stand in the scratch of several rows, floats; f32_scratch() counts them.
struct F32Scratch {
  float* weights;  // [kVectors][kDepth][16]
  float* scales;   // [kVectors][kDepth / 8][16]
  float* offsets;  // likewise
  float* a;        // [rows][kDepth], copied so that rows a power of two apart do not meet in one set of L1
  explicit F32Scratch(uint8_t* memory)
      : weights(reinterpret_cast<float*>(memory)),
        scales(weights + kVectors * kDepth * kPanelRows),
        offsets(scales + kVectors * kDepth / 8 * kPanelRows),
        a(offsets + kVectors * kDepth / 8 * kPanelRows) {}
};

// Values and scales of chunks [chunk, chunk + count) of a panel, as multiply_block wants them.
template <typename Decoder>
void decode_block(const PanelFormat& f, const Decoder& decoder, const uint8_t* panel, int64_t chunk, int64_t count,
                  float* weights, float* scales, float* offsets) {
  const int64_t per_block = f.elements / kChunk;
  const int64_t segments = f.group < kChunk ? kChunk / f.group : 1;
  for (int64_t c = 0; c < count; ++c) {
    const uint8_t* block = panel + (chunk + c) / per_block * f.block_bytes;
    const int64_t in_block = (chunk + c) % per_block;
    load_groups(f, block, group_of(f, in_block), segments, scales, offsets);
    with_adjust<Decoder>(f, [&](auto adjust) {
      decode_weights<adjust(), false>(f, decoder, f.chunk(block, in_block), scales, offsets, weights);
    });
    if (adjust_of(f) == Adjust::min) {
      for (int64_t i = 0; i < segments * kPanelRows; ++i) scales[i] = 1;
    }
    weights += kChunk * kPanelRows;
    scales += segments * kPanelRows;
  }
}

// Several rows of a.
template <typename Decoder>
void multiply_rows(const PanelFormat& f, const Decoder& decoder, const Activations& a, const Tile& tile) {
  const F32Scratch scratch(tile.scratch);
  const int64_t rows = tile.m_end - tile.m_begin;
  const int64_t segment = f.group < kChunk ? f.group : kChunk;
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  const std::make_integer_sequence<int, kBlockRows> all;
  const int64_t weight_step = kHalves == 2 ? Vec::kLanes : kDepth * kPanelRows;
  const int64_t scale_step = kHalves == 2 ? Vec::kLanes : kDepth / 8 * kPanelRows;
  for (int64_t chunk = 0; chunk < chunks; chunk += kDepth / kChunk) {
    const int64_t count = chunks - chunk < kDepth / kChunk ? chunks - chunk : kDepth / kChunk;
    for (int64_t m = 0; m < rows; ++m) {
      const float* row = a.values + (tile.m_begin + m) * a.stride + chunk * kChunk;
      std::memcpy(scratch.a + m * kDepth, row, static_cast<size_t>(count * kChunk) * sizeof(float));
      // The next block's, to L2: pieces of 512 bytes are too short for the hardware's prefetcher.
      for (int64_t i = kDepth; i < 2 * kDepth; i += 16) {
        __builtin_prefetch(row + i, 0, 2);
      }
    }
    const WeightBlock b{scratch.weights, scratch.scales, weight_step, scale_step, segment, count * kChunk / segment};
    for (int64_t p = 0; p < tile.panel_count; p += kPanelsAtOnce) {
      const int64_t panels = tile.panel_count - p < kPanelsAtOnce ? tile.panel_count - p : kPanelsAtOnce;
      for (int64_t i = 0; i < panels; ++i) {
        decode_block(f, decoder, tile.panels + (p + i) * tile.panel_stride, chunk, count,
                     scratch.weights + i * weight_step, scratch.scales + i * scale_step, scratch.offsets);
      }
      for (int64_t i = 0; i < blocks; ++i) {  // of equal heights: a low one has too few chains to be fast
        const int64_t m = rows * i / blocks, height = rows * (i + 1) / blocks - m;
        (panels * kHalves == 2 ? multiply_block_of<2>(height, all) : multiply_block_of<1>(height, all))(
            b, scratch.a + m * kDepth, tile.values + m * tile.stride + p * kPanelRows, tile.stride);
      }
    }
  }
}

}  // namespace

void matmul_dequant_f32(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const int64_t rows = tile.m_end - tile.m_begin;
  for (int64_t m = 0; m < rows && !tile.accumulate; ++m) {
    std::memset(tile.values + m * tile.stride, 0, static_cast<size_t>(tile.panel_count * kPanelRows) * sizeof(float));
  }
  if (f.cols <= 0) return;
  with_decoder(f, [&](const auto& decoder) {
    using Decoder = std::decay_t<decltype(decoder)>;
    if (rows > kRegisterRows<Decoder>) return multiply_rows(f, decoder, a, tile);
    with_adjust<Decoder>(f, [&](auto adjust) {
      multiply_few<adjust()>(f, decoder, a.values + tile.m_begin * a.stride, a.stride, tile);
    });
  });
}
