// The loops of matmul_dequant_i8, the same at every ISA level; included inside the region, after the level's
// Lanes (16 floats, a row of weights each), Ints (16 int32), Unpack<Form> (codes of a chunk times
// activations) and kMostRows (of a that its registers hold).
//
// Streams. A core has to have some 50 cache lines on their way to read at the memory's speed, and one
// sequential stream gets two thirds of what eight get. So eight panels are read side by side, eight chunks of
// each in turn, and each asks for the lines that it needs in its next turn.
//
// Records. What a chunk needs of the rows of a stands together in the tile's scratch, so that a visit has one
// pointer to it with constant distances, and every activation is the memory operand of its product: a core
// whose second hardware thread is busy is limited by the number of instructions, not by its ports.
//
//   | codes [rows][32] | scales [rows] | starts [rows][parts] | moments [rows][parts], if offsets |

namespace {

constexpr int64_t kStreams = 8;

// Chunks of a stream in its turn: enough to pay for the turn, few enough for level 1 of the cache to hold two
// turns of all streams. A chunk for each stream to ask for in the turns of the others.
constexpr int64_t kTurn = kStreams;

inline void prefetch_lines(const uint8_t* bytes, int count) {
  for (int i = 0; i < count; ++i) __builtin_prefetch(bytes + 64 * i);
}

// The scales (or offsets) of sixteen rows, in the matrix's scale type.
inline Lanes load_stored(int32_t type, const uint8_t* bytes) {
  if (__builtin_expect(type == BL_SCALE_f16, 1)) return lanes_of_f16(bytes);
  switch (type) {
    case BL_SCALE_bf16:
      return lanes_of_bf16(bytes);
    case BL_SCALE_e8m0:
      return lanes_of_e8m0(bytes);
    default:
      return lanes_of_e4m3(bytes);
  }
}

// Scales and offsets of the chunk at hand.
template <typename F>
struct Header {
  Lanes scale[F::kParts];
  Lanes offset[F::kParts];

  // What a block has for all its chunks.
  inline void begin_block(const PanelFormat& f, const uint8_t* block) {
    if constexpr (F::kSub) {
      block_scale_ = load_stored(f.scale_type, block);
      if (F::kOffset) block_min_ = lanes_negate(load_stored(f.scale_type, block + f.offset_offset));
      unpack_subs<F::kBits == 2 ? 4 : F::kBits == 6 ? 8 : 6>(block + f.sub_offset, f.sub_zero, subs_);
    } else if constexpr (F::kParts == 1) {
      load_group(f, block, 0, 0);
    }
  }
  // What its at-th chunk has.
  inline void begin_chunk(const PanelFormat& f, const uint8_t* block, int64_t at) {
    if constexpr (F::kSub) {
      // q2_k, q4_k and q5_k have as many mins, behind their scales.
      constexpr int kMins = F::kBits == 2 ? 16 : 8;
      for (int part = 0; part < F::kParts; ++part) {
        const int8_t* sub = subs_ + kPanelRows * (at * F::kParts + part);
        scale[part] = lanes_mul(block_scale_, lanes_of_bytes(sub));
        if (F::kOffset) offset[part] = lanes_mul(block_min_, lanes_of_bytes(sub + kPanelRows * kMins));
      }
    } else if constexpr (F::kParts > 1) {
      for (int part = 0; part < F::kParts; ++part) load_group(f, block, at * F::kParts + part, part);
    }
  }

 private:
  inline void load_group(const PanelFormat& f, const uint8_t* block, int64_t group, int part) {
    const int64_t at = kPanelRows * group * f.scale_bytes;
    scale[part] = load_stored(f.scale_type, block + at);
    // Tables hold multiples, and mxint8 counts 64ths; for the rest the factor is 1.
    if (F::kTable || F::kBits == 8) scale[part] = lanes_mul(scale[part], lanes_set(f.scale_factor));
    if constexpr (F::kOffset) {
      offset[part] = load_stored(f.scale_type, block + f.offset_offset + at);
      if (f.offset_kind == OffsetKind::zero_point) {
        offset[part] = lanes_mul(lanes_negate(scale[part]), lanes_add(offset[part], lanes_set(f.zero_shift)));
      }
    }
  }

  Lanes block_scale_, block_min_;
  alignas(64) int8_t subs_[F::kSub ? kPanelRows * kMaxSubCount : 64];
};

// Bytes of a record.
template <typename F>
constexpr int64_t record_bytes(int64_t rows) {
  return rows * (kChunk + 4 * (1 + F::kParts * (F::kOffset ? 2 : 1)));
}

// The records of kRows rows of a from m on.
template <typename F, int kRows>
void pack_records(const Activations& a, int64_t m, int64_t chunks, uint8_t* records) {
  constexpr int kParts = F::kParts;
  const int64_t stride = a.stride, groups = stride / kGroup;
  for (int64_t c = 0; c < chunks; ++c, records += record_bytes<F>(kRows)) {
    float* scales = reinterpret_cast<float*>(records + kRows * kChunk);
    int32_t* starts = reinterpret_cast<int32_t*>(scales + kRows);
    float* moments = reinterpret_cast<float*>(starts + kRows * kParts);
    for (int r = 0; r < kRows; ++r) {
      const int64_t group = (m + r) * groups + c;
      std::memcpy(records + r * kChunk, a.codes + (m + r) * stride + c * kChunk, kChunk);
      scales[r] = a.scales[group];
      std::memcpy(starts + r * kParts, a.starts + group * kParts, kParts * sizeof(int32_t));
      if (F::kOffset) std::memcpy(moments + r * kParts, a.moments + group * kParts, kParts * sizeof(float));
    }
  }
}

// A turn of `streams` panels, `step` bytes apart: chunks [at, at + count) of the block at `block`, and of what
// follows. What to ask the memory for: some lines with each chunk, from `ahead` on; chunks and streams move on
// by so many bytes.
struct Turn {
  const uint8_t* block;
  int64_t step, streams;
  int64_t at, count;
  const uint8_t* ahead;
  int64_t ahead_chunk, ahead_stream;
};

// A turn times kRows rows of a, added to sums[kRows][sum_stride]; streams lie sum_step apart.
template <typename F, int kRows>
__attribute__((noinline)) void visit(const PanelFormat& f, const Unpack<F>& unpack, const Turn& turn,
                                     const uint8_t* records, float* sums, int64_t sum_step,
                                     int64_t sum_stride) {
  constexpr int kParts = F::kParts;
  const int64_t block_bytes = f.block_bytes, block_chunks = f.elements / kChunk;
  const int64_t chunk_offset = f.chunk_offset, ahead_chunk = turn.ahead_chunk;
  const uint8_t* first_block = turn.block;
  const uint8_t* first_ahead = turn.ahead;
  for (int64_t s = turn.streams; s > 0; --s) {
    const uint8_t* record = records;
    const uint8_t* ahead = first_ahead;
    const uint8_t* block = first_block;
    const uint8_t* chunk = block + chunk_offset + turn.at * 64 * F::kBits;
    Lanes sum[kRows];
    for (int r = 0; r < kRows; ++r) sum[r] = lanes_load(sums + r * sum_stride);
    Header<F> header;
    int64_t at = turn.at;
    header.begin_block(f, block);
    for (int64_t left = turn.count;;) {
      prefetch_lines(ahead, F::kBits + 1);  // the one more: headers
      ahead += ahead_chunk;
      header.begin_chunk(f, block, at);
      const float* scales = reinterpret_cast<const float*>(record + kRows * kChunk);
      const int32_t* starts = reinterpret_cast<const int32_t*>(scales + kRows);
      const float* moments = reinterpret_cast<const float*>(starts + kRows * kParts);
      Ints products[kRows][kParts];
      for (int r = 0; r < kRows; ++r) {
        for (int p = 0; p < kParts; ++p) products[r][p] = ints_set(starts[r * kParts + p]);
      }
      unpack.template multiply<kRows>(chunk, reinterpret_cast<const int8_t*>(record), products);
      for (int r = 0; r < kRows; ++r) {
        for (int p = 0; p < kParts; ++p) {
          const Lanes both = lanes_mul(header.scale[p], lanes_set(scales[r]));
          sum[r] = lanes_fma(lanes_of_ints(products[r][p]), both, sum[r]);
          if (F::kOffset) sum[r] = lanes_fma(header.offset[p], lanes_set(moments[r * kParts + p]), sum[r]);
        }
      }
      if (--left == 0) break;
      chunk += 64 * F::kBits;
      record += record_bytes<F>(kRows);
      if (++at == block_chunks) {
        at = 0;
        block += block_bytes;
        chunk = block + chunk_offset;
        header.begin_block(f, block);
      }
    }
    for (int r = 0; r < kRows; ++r) lanes_store(sums + r * sum_stride, sum[r]);
    first_block += turn.step;
    first_ahead += turn.ahead_stream;
    sums += sum_step;
  }
}

// Calls body(rows, m) for blocks of as many rows as registers hold, then fewer: rows is a constant.
template <typename F, typename Body>
inline void for_row_blocks(int64_t m, int64_t m_end, Body&& body) {
  const auto take = [&](auto rows) {
    for (; m + rows() <= m_end; m += rows()) body(rows, m);
  };
  // Groups of 8 and 16 without sub-scales do with less code.
  constexpr bool kCommon = F::kParts == 1 || F::kSub;
  if constexpr (kMostRows >= 8 && F::kParts == 1) take(std::integral_constant<int, 8>());
  if constexpr (kMostRows >= 4) take(std::integral_constant<int, 4>());
  if constexpr (kMostRows == 2 || kCommon) take(std::integral_constant<int, 2>());
  take(std::integral_constant<int, 1>());
}

// `streams` panels side by side, `step` bytes apart; their sums values_step apart.
template <typename F>
void run_streams(const PanelFormat& f, const Unpack<F>& unpack, const Tile& tile, const uint8_t* panels,
                 int64_t step, int64_t streams, float* values, int64_t values_step) {
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t block_chunks = f.elements / kChunk;
  const int64_t turn_blocks = block_chunks < kTurn ? kTurn / block_chunks : 1;
  const int64_t turn_chunks = block_chunks < kTurn ? turn_blocks * block_chunks : kTurn;
  const int64_t chunk_bytes = f.block_bytes / block_chunks, turn_bytes = turn_chunks * chunk_bytes;
  if (!tile.accumulate) {
    for (int64_t m = 0; m < tile.m_end - tile.m_begin; ++m) {
      for (int64_t s = 0; s < streams; ++s)
        lanes_store(values + m * tile.stride + s * values_step, lanes_set(0));
    }
  }
  // With as many chunks as streams every stream asks for an eighth of each one's next turn, so that the memory
  // sees eight streams that advance evenly; else each asks for its own.
  const bool even = streams == kStreams && turn_chunks == kTurn;
  int64_t at = 0;
  for (int64_t c = 0, count; c < chunks; c += count) {
    count = turn_blocks == 1 && block_chunks - at < turn_chunks ? block_chunks - at : turn_chunks;
    if (count > chunks - c) count = chunks - c;
    Turn turn{panels,
              step,
              streams,
              at,
              count,
              panels + at * chunk_bytes + turn_bytes,
              even ? step : chunk_bytes,
              even ? turn_bytes / kStreams : step};
    const uint8_t* records = tile.scratch;
    for_row_blocks<F>(tile.m_begin, tile.m_end, [&](auto rows, int64_t m) {
      visit<F, rows()>(f, unpack, turn, records + c * record_bytes<F>(rows()),
                       values + (m - tile.m_begin) * tile.stride, values_step, tile.stride);
      records += chunks * record_bytes<F>(rows());
      turn.ahead_chunk = turn.ahead_stream = 0;  // the next rows find the lines there
    });
    at += count;
    if (at >= block_chunks) {
      panels += turn_blocks * f.block_bytes;
      at = 0;
    }
  }
}

// The tile's panels in up to eight runs, read side by side, and what is left over one after the other.
template <typename F>
void run_form(const PanelFormat& f, const Activations& a, const Tile& tile) {
  const Unpack<F> unpack(f);
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t streams = tile.panel_count < kStreams ? tile.panel_count : kStreams;
  const int64_t length = tile.panel_count / streams;
  // The first turn, which no turn before it has asked for.
  const int lines = static_cast<int>((f.block_bytes * kTurn * kChunk / f.elements + 63) / 64);
  for (int64_t s = 0; s < streams; ++s) prefetch_lines(tile.panels + s * length * tile.panel_stride, lines);
  uint8_t* records = tile.scratch;
  for_row_blocks<F>(tile.m_begin, tile.m_end, [&](auto rows, int64_t m) {
    pack_records<F, rows()>(a, m, chunks, records);
    records += chunks * record_bytes<F>(rows());
  });
  for (int64_t i = 0; i < length; ++i) {
    run_streams<F>(f, unpack, tile, tile.panels + i * tile.panel_stride, length * tile.panel_stride, streams,
                   tile.values + i * kPanelRows, length * kPanelRows);
  }
  const int64_t done = length * streams;
  if (done < tile.panel_count) {
    run_streams<F>(f, unpack, tile, tile.panels + done * tile.panel_stride, tile.panel_stride,
                   tile.panel_count - done, tile.values + done * kPanelRows, kPanelRows);
  }
}

}  // namespace
