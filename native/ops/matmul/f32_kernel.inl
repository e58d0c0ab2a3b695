// matmul_dequant_f32 over the Vec and the decoders of a level (decode.inl); included inside its region.
//
// Per segment of min(32, group) weights, in order of k, at every level and for every size of tile:
//   part = fma(value, a, part), from 0
//   sum  = fma(scale, part, sum), then sum = fma(offset, sum of a over the segment, sum) for formats with offsets
// Chains are short (32, then K / 32), so that rounding errors stay near sqrt(K / 32) * 2^-25 of the result.
//
// One row of a: weights are decoded in registers, panels take turns chunk by chunk (a thread needs some eight streams
// to read at full speed). More rows: 64 weights of two vectors of rows are decoded into L1 and multiplied with all of
// them, kBlockRows rows at a time.
namespace {

constexpr int64_t kDepth = 64;  // weights decoded at a time, kStep so that rows of a have no tail
constexpr int64_t kMaxRows = kF32Rows;
constexpr int kPanelsAtOnce = 2 / kHalves;  // two vectors of weights: a whole panel or two

// Where things stand in a call's scratch, floats.
struct F32Scratch {
  float* weights;  // [2][kDepth][16]
  float* scales;   // [2][kDepth / segment][16]
  float* offsets;  // likewise
  float* a;        // [rows][kDepth], copied so that rows a power of two apart do not meet in one set of L1
  float* sums;     // [rows][K / segment], formats with offsets
  explicit F32Scratch(uint8_t* memory)
      : weights(reinterpret_cast<float*>(memory)),
        scales(weights + 2 * kDepth * kPanelRows),
        offsets(scales + 2 * kDepth / 8 * kPanelRows),
        a(offsets + 2 * kDepth / 8 * kPanelRows),
        sums(a + kMaxRows * kDepth) {}
};

// sums[i] = sum of x[i * segment, (i + 1) * segment), in an order that all levels share.
inline void sum_segments(const float* x, int64_t k, int64_t segment, float* sums) {
  for (int64_t i = 0; i < k / segment; ++i, x += segment) {
    __m256 lanes = _mm256_loadu_ps(x);
    for (int64_t j = 8; j < segment; j += 8) lanes = _mm256_add_ps(lanes, _mm256_loadu_ps(x + j));
    __m128 four = _mm_add_ps(_mm256_castps256_ps128(lanes), _mm256_extractf128_ps(lanes, 1));
    four = _mm_add_ps(four, _mm_movehl_ps(four, four));
    sums[i] = _mm_cvtss_f32(_mm_add_ss(four, _mm_movehdup_ps(four)));
  }
}

// Adds group `group` of a block to sum.
inline __attribute__((always_inline)) Vec add_part(const PanelFormat& f, const uint8_t* block, int64_t group, int half,
                                                   Vec part, const float* segment_sum, Vec sum) {
  sum = fma(group_scale(f, block, group, half), part, sum);
  if (f.offset_kind == OffsetKind::none) return sum;
  return fma(group_offset(f, block, group, half), Vec::set(*segment_sum), sum);
}

// One row of a times a chunk of a panel: out[16] += . sums: of the chunk's segments.
template <typename Decoder>
inline __attribute__((always_inline)) void add_chunk(const PanelFormat& f, const Decoder& decoder,
                                                     const uint8_t* block, int64_t chunk, const float* a,
                                                     const float* sums, float* out) {
  const uint8_t* codes = f.chunk(block, chunk);
  // 1 KB ahead, as far as the measured read loop does best; the line of the scales comes with the rest.
  for (int i = 0; i < Decoder::kBytes; i += 64) _mm_prefetch(reinterpret_cast<const char*>(codes + 1024 + i), _MM_HINT_T0);
  const bool floats = f.value_kind == ValueKind::floats;
  const int64_t group = floats ? 0 : group_of(f, chunk);
  for (int half = 0; half < kHalves; ++half, out += Vec::kLanes) {
    Vec sum = Vec::load(out), part = Vec::set(0);
    int64_t done = 0;
    decoder.decode(codes, half, [&](int k, Vec w) __attribute__((always_inline)) {
      part = fma(w, Vec::set(a[k]), part);
      if (k % 8 == 7 && k != 31 && f.group < kChunk && (k + 1) % f.group == 0) {
        sum = add_part(f, block, group + done, half, part, sums + done, sum);
        part = Vec::set(0);
        ++done;
      }
    });
    (floats ? sum + part : add_part(f, block, group + done, half, part, sums + done, sum)).store(out);
  }
}

template <typename Decoder>
void multiply_row(const PanelFormat& f, const Decoder& decoder, const float* a, const float* sums, const Tile& tile) {
  const int64_t per_block = f.elements / kChunk;
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t segments = f.group < kChunk ? kChunk / f.group : 1;
  int64_t block = 0, in_block = 0;
  for (int64_t chunk = 0; chunk < chunks; ++chunk, a += kChunk, sums += segments) {
    const uint8_t* at = tile.panels + block * f.block_bytes;
    for (int64_t p = 0; p < tile.panel_count; ++p, at += tile.panel_stride) {
      add_chunk(f, decoder, at, in_block, a, sums, tile.values + p * kPanelRows);
    }
    if (++in_block == per_block) {
      in_block = 0;
      ++block;
    }
  }
}

// Weights of one or two vectors of rows, kDepth deep or the chunk that is left.
struct WeightBlock {
  const float* weights;  // vector i: at vector_step * i, weight k at 16 k of it
  const float* scales;   // vector i: at scale_step * i, segment s at 16 s of it
  const float* offsets;  // likewise; null if there are none
  int64_t weight_step, scale_step;
  int64_t segment, segments;
};

// values[i][v] += kRows rows of a (kDepth apart) times kVectors vectors of rows. sums: rows `sums_stride` apart.
template <int kRows, int kVectors>
void multiply_block(const WeightBlock& b, const float* a, const float* sums, int64_t sums_stride, float* values,
                    int64_t stride) {
  const float* weights = b.weights;
  for (int64_t s = 0; s < b.segments; ++s, a += b.segment, weights += b.segment * kPanelRows) {
    Vec parts[kRows][kVectors];
#pragma GCC unroll 16
    for (int i = 0; i < kRows; ++i) {
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) parts[i][v] = Vec::set(0);
    }
    for (int64_t k = 0; k < b.segment; ++k) {
      Vec w[kVectors];
#pragma GCC unroll 2
      for (int v = 0; v < kVectors; ++v) w[v] = Vec::load(weights + v * b.weight_step + k * kPanelRows);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        const Vec x = Vec::set(a[i * kDepth + k]);
#pragma GCC unroll 2
        for (int v = 0; v < kVectors; ++v) parts[i][v] = fma(w[v], x, parts[i][v]);
      }
    }
#pragma GCC unroll 2
    for (int v = 0; v < kVectors; ++v) {
      const Vec scale = Vec::load(b.scales + v * b.scale_step + s * kPanelRows);
#pragma GCC unroll 16
      for (int i = 0; i < kRows; ++i) {
        float* out = values + i * stride + v * Vec::kLanes;
        fma(scale, parts[i][v], Vec::load(out)).store(out);
      }
      if (b.offsets == nullptr) continue;
      const Vec offset = Vec::load(b.offsets + v * b.scale_step + s * kPanelRows);
      for (int i = 0; i < kRows; ++i) {
        float* out = values + i * stride + v * Vec::kLanes;
        fma(offset, Vec::set(sums[i * sums_stride + s]), Vec::load(out)).store(out);
      }
    }
  }
}

using MultiplyBlock = void (*)(const WeightBlock&, const float*, const float*, int64_t, float*, int64_t);
template <int kVectors, int... kRows>
MultiplyBlock multiply_block_of(int64_t rows, std::integer_sequence<int, kRows...>) {
  static constexpr MultiplyBlock kTable[] = {multiply_block<kRows + 1, kVectors>...};
  return kTable[rows - 1];
}

// Values, scales and offsets of weights [first chunk, + chunks) of a panel; no scale is applied.
template <typename Decoder>
void decode_block(const PanelFormat& f, const Decoder& decoder, const uint8_t* panel, int64_t chunk, int64_t chunks,
                  int64_t segments, float* weights, float* scales, float* offsets) {
  const int64_t per_block = f.elements / kChunk;
  for (int64_t c = 0; c < chunks; ++c, weights += kChunk * kPanelRows) {
    const uint8_t* block = panel + (chunk + c) / per_block * f.block_bytes;
    const int64_t in_block = (chunk + c) % per_block;
    for (int half = 0; half < kHalves; ++half) {
      const int64_t lane = half * Vec::kLanes;
      decoder.decode(f.chunk(block, in_block), half, [&](int k, Vec w) __attribute__((always_inline)) {
        w.store(weights + lane + kPanelRows * k);
      });
      for (int64_t s = 0; s < segments; ++s) {
        const int64_t at = (c * segments + s) * kPanelRows + lane;
        if (f.value_kind == ValueKind::floats) {
          Vec::set(1).store(scales + at);
          continue;
        }
        const int64_t group = group_of(f, in_block) + s;
        group_scale(f, block, group, half).store(scales + at);
        if (f.offset_kind != OffsetKind::none) group_offset(f, block, group, half).store(offsets + at);
      }
    }
  }
}

// Several rows of a.
template <typename Decoder>
void multiply_rows(const PanelFormat& f, const Decoder& decoder, const Activations& a, const Tile& tile,
                   const F32Scratch& scratch) {
  const int64_t rows = tile.m_end - tile.m_begin;
  const int64_t segment = f.group < kChunk ? f.group : kChunk;
  const int64_t per_chunk = kChunk / segment;
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t blocks = (rows + kBlockRows - 1) / kBlockRows;
  const std::make_integer_sequence<int, kBlockRows> all;
  const bool offsets = f.offset_kind != OffsetKind::none;
  const int64_t sums_stride = a.stride / segment;
  const int64_t scale_step = kDepth / 8 * kPanelRows;
  for (int64_t chunk = 0; chunk < chunks; chunk += kDepth / kChunk) {
    const int64_t count = chunk + 1 < chunks ? kDepth / kChunk : 1;
    for (int64_t m = 0; m < rows; ++m) {
      std::memcpy(scratch.a + m * kDepth, a.values + (tile.m_begin + m) * a.stride + chunk * kChunk,
                  kDepth * sizeof(float));
    }
    for (int64_t p = 0; p < tile.panel_count; p += kPanelsAtOnce) {
      const int64_t panels = tile.panel_count - p < kPanelsAtOnce ? tile.panel_count - p : kPanelsAtOnce;
      for (int64_t i = 0; i < panels; ++i) {
        decode_block(f, decoder, tile.panels + (p + i) * tile.panel_stride, chunk, count, per_chunk,
                     scratch.weights + i * kDepth * kPanelRows, scratch.scales + i * scale_step,
                     scratch.offsets + i * scale_step);
      }
      const int64_t vectors = panels * kHalves;
      const WeightBlock b{scratch.weights,
                          scratch.scales,
                          offsets ? scratch.offsets : nullptr,
                          kHalves == 2 ? Vec::kLanes : kDepth * kPanelRows,
                          kHalves == 2 ? Vec::kLanes : scale_step,
                          segment,
                          count * per_chunk};
      for (int64_t i = 0; i < blocks; ++i) {  // of equal heights: a low one has too few chains to be fast
        const int64_t m = rows * i / blocks, height = rows * (i + 1) / blocks - m;
        (vectors == 2 ? multiply_block_of<2>(height, all) : multiply_block_of<1>(height, all))(
            b, scratch.a + m * kDepth, scratch.sums + m * sums_stride + chunk * per_chunk, sums_stride,
            tile.values + m * tile.stride + p * kPanelRows, tile.stride);
      }
    }
  }
}

}  // namespace

void matmul_dequant_f32(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const F32Scratch scratch(tile.scratch);
  const int64_t rows = tile.m_end - tile.m_begin;
  const int64_t segment = f.group < kChunk ? f.group : kChunk;
  for (int64_t m = 0; m < rows; ++m) {
    if (!tile.accumulate) {
      std::memset(tile.values + m * tile.stride, 0, static_cast<size_t>(tile.panel_count * kPanelRows) * sizeof(float));
    }
    if (f.offset_kind != OffsetKind::none) {
      sum_segments(a.values + (tile.m_begin + m) * a.stride, a.stride, segment, scratch.sums + m * a.stride / segment);
    }
  }
  with_decoder(f, [&](const auto& decoder) {
    if (rows == 1) {
      multiply_row(f, decoder, a.values + tile.m_begin * a.stride, scratch.sums, tile);
    } else {
      multiply_rows(f, decoder, a, tile, scratch);
    }
  });
}
