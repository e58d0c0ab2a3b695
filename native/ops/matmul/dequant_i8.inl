// The loops of matmul_dequant_i8, the same at every ISA level; included inside the region, after the level's
// Lanes (16 floats, a row of weights each), Ints (16 int32), Unpack<Form> (codes of a chunk times
// activations) and kMostRows (of a that its registers hold).
//
// Streams. A core has to have some 50 cache lines on their way to read at the memory's speed, and one
// sequential stream gets two thirds of what eight get. So eight panels are read side by side, eight chunks of
// each in turn, and each asks for the lines that it needs in its next turn.

namespace {

// A family of formats that share code. Bits of a code; whether values come from a table; groups in a chunk
// (1: groups of 32 and more); sub-scales; offsets.
template <int bits, bool table = false, int parts = 1, bool sub = false, bool offset = false>
struct Form {
  static constexpr int kBits = bits;
  static constexpr bool kTable = table;
  static constexpr int kParts = parts;
  static constexpr bool kSub = sub;
  static constexpr bool kOffset = offset;
  // panel.h: signs without zero point are {0, 2} - 1.
  static constexpr int kShift = bits == 1 && !offset ? 1 : 0;
};

constexpr int64_t kStreams = 8;

// Chunks of a stream in its turn: enough to pay for the turn, few enough for level 1 of the cache to hold the
// next two turns of all streams. Blocks with sub-scales are taken whole.
template <typename F>
constexpr int64_t kTurn = F::kBits <= 2 && !F::kSub ? 16 : 8;

inline void prefetch_lines(const uint8_t* bytes, int count) {
  for (int i = 0; i < count; ++i) __builtin_prefetch(bytes + 64 * i);
}

// The scales (or offsets) of sixteen rows, in the matrix's scale type.
inline Lanes load_stored(int32_t type, const uint8_t* bytes) {
  switch (type) {
    case BL_SCALE_bf16:
      return lanes_of_bf16(bytes);
    case BL_SCALE_e8m0:
      return lanes_of_e8m0(bytes);
    case BL_SCALE_e4m3:
      return lanes_of_e4m3(bytes);
    default:
      return lanes_of_f16(bytes);
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

// A turn of a stream: chunks [c, end) of a panel, c being the at-th of the block at `block`.
struct Turn {
  const uint8_t* block;
  int64_t at, c, end;
  // What to ask the memory for: some lines with each chunk, of one stream after the other, so that the memory
  // sees eight streams that advance evenly whatever the turns are. `step`: from stream to stream, `back`: to
  // the first.
  const uint8_t* ahead;
  int64_t step, back;
};

// A turn times kRows rows of a from m on, added to sums[kRows][sum_stride].
template <typename F, int kRows>
__attribute__((noinline)) void visit(const PanelFormat& f, const Unpack<F>& unpack, const Activations& a,
                                     int64_t m, const Turn& turn, float* sums, int64_t sum_stride) {
  constexpr int kParts = F::kParts;
  constexpr int64_t kPart = kGroup / kParts;
  const int64_t stride = a.stride, groups = stride / kGroup, parts = stride / kPart;
  const int8_t* codes = a.codes + m * stride + turn.c * kChunk;
  const float* scales = a.scales + m * groups + turn.c;
  const int32_t* starts = a.starts + m * parts + turn.c * kParts;
  const float* moments = a.moments + m * parts + turn.c * kParts;
  const int64_t block_bytes = f.block_bytes, block_chunks = f.elements / kChunk;
  const int64_t step = turn.step, back = turn.back;
  const uint8_t* ahead = turn.ahead;
  int64_t stream = kStreams;
  const uint8_t* block = turn.block;
  const uint8_t* chunk = block + f.chunk_offset + turn.at * 64 * F::kBits;
  int64_t at = turn.at;
  Lanes sum[kRows];
  for (int r = 0; r < kRows; ++r) sum[r] = lanes_load(sums + r * sum_stride);
  Header<F> header;
  header.begin_block(f, block);
  for (int64_t left = turn.end - turn.c;;) {
    prefetch_lines(ahead, F::kBits + 1);  // the one more: headers
    ahead += step;
    if (--stream == 0) {
      stream = kStreams;
      ahead += back;
    }
    header.begin_chunk(f, block, at);
    Ints products[kRows][kParts];
    for (int r = 0; r < kRows; ++r) {
      for (int p = 0; p < kParts; ++p) products[r][p] = ints_set(starts[r * parts + p]);
    }
    unpack.template multiply<kRows>(chunk, codes, stride, products);
    for (int r = 0; r < kRows; ++r) {
      const Lanes a_scale = lanes_set(scales[r * groups]);
      for (int p = 0; p < kParts; ++p) {
        sum[r] = lanes_fma(lanes_of_ints(products[r][p]), lanes_mul(header.scale[p], a_scale), sum[r]);
        if (F::kOffset) sum[r] = lanes_fma(header.offset[p], lanes_set(moments[r * parts + p]), sum[r]);
      }
    }
    if (--left == 0) break;
    chunk += 64 * F::kBits;
    codes += kChunk;
    scales += 1;
    starts += kParts;
    if (F::kOffset) moments += kParts;
    if (++at == block_chunks) {
      at = 0;
      block += block_bytes;
      chunk = block + f.chunk_offset;
      header.begin_block(f, block);
    }
  }
  for (int r = 0; r < kRows; ++r) lanes_store(sums + r * sum_stride, sum[r]);
}

// `streams` panels side by side, `step` bytes apart.
template <typename F>
void run_streams(const PanelFormat& f, const Unpack<F>& unpack, const Activations& a, const Tile& tile,
                 const uint8_t* panels, int64_t step, int64_t streams, float* values, int64_t values_step) {
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t block_chunks = f.elements / kChunk;
  const int64_t turn_blocks = block_chunks < kTurn<F> ? kTurn<F> / block_chunks : 1;
  const int64_t turn_chunks = block_chunks < kTurn<F> ? turn_blocks * block_chunks : kTurn<F>;
  const int64_t chunk_bytes = f.block_bytes / block_chunks, turn_bytes = turn_chunks * chunk_bytes;
  if (!tile.accumulate) {
    for (int64_t m = 0; m < tile.m_end - tile.m_begin; ++m) {
      for (int64_t s = 0; s < streams; ++s)
        lanes_store(values + m * tile.stride + s * values_step, lanes_set(0));
    }
  }
  int64_t at = 0;
  for (int64_t c = 0, end; c < chunks; c = end) {
    end = c + (at + turn_chunks > block_chunks && turn_blocks == 1 ? block_chunks - at : turn_chunks);
    if (end > chunks) end = chunks;
    const uint8_t* next = panels + at * chunk_bytes + turn_bytes;
    for (int64_t s = 0; s < streams; ++s) {
      Turn turn{panels + s * step,
                at,
                c,
                end,
                next + s * (turn_bytes / kStreams),
                step,
                chunk_bytes - kStreams * step};
      if (streams < kStreams) turn = {panels + s * step, at, c, end, next + s * step, chunk_bytes, 0};
      float* sums = values + s * values_step;
      int64_t m = tile.m_begin;
      const auto take = [&](auto visit_rows, int64_t count) {
        for (; m + count <= tile.m_end; m += count, sums += count * tile.stride) {
          visit_rows(f, unpack, a, m, turn, sums, tile.stride);
          turn.step = turn.back = 0;  // the next rows find the lines there
        }
      };
      // Groups of 8 and 16 without sub-scales do with less code.
      constexpr bool kCommon = F::kParts == 1 || F::kSub;
      if constexpr (kCommon && kMostRows >= 8) take(visit<F, 8>, 8);
      if constexpr (kMostRows >= 4) take(visit<F, 4>, 4);
      if constexpr (kCommon || kMostRows == 2) take(visit<F, 2>, 2);
      take(visit<F, 1>, 1);
    }
    at += end - c;
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
  const int64_t streams = tile.panel_count < kStreams ? tile.panel_count : kStreams;
  const int64_t length = tile.panel_count / streams;
  for (int64_t i = 0; i < length; ++i) {
    run_streams<F>(f, unpack, a, tile, tile.panels + i * tile.panel_stride, length * tile.panel_stride,
                   streams, tile.values + i * kPanelRows, length * kPanelRows);
  }
  const int64_t done = length * streams;
  if (done < tile.panel_count) {
    run_streams<F>(f, unpack, a, tile, tile.panels + done * tile.panel_stride, tile.panel_stride,
                   tile.panel_count - done, tile.values + done * kPanelRows, kPanelRows);
  }
}

using RunForm = void (*)(const PanelFormat& f, const Activations& a, const Tile& tile);

// Groups of 32 and more without sub-scales.
template <int kBits>
RunForm form_of_groups(const PanelFormat& f) {
  return f.offset_kind == OffsetKind::none ? run_form<Form<kBits>>
                                           : run_form<Form<kBits, false, 1, false, true>>;
}

RunForm form_of_subs(const PanelFormat& f) {
  switch (f.bits) {
    case 2:
      return run_form<Form<2, false, 2, true, true>>;  // q2_k
    case 3:
      return run_form<Form<3, false, 2, true, false>>;  // q3_k
    case 4:
      return run_form<Form<4, false, 1, true, true>>;  // q4_k
    case 5:
      return run_form<Form<5, false, 1, true, true>>;  // q5_k
    default:
      return run_form<Form<6, false, 2, true, false>>;  // q6_k
  }
}

// Groups of 8 and 16.
template <int kBits, bool kTable>
RunForm form_of_parts(const PanelFormat& f) {
  return f.group == 16 ? run_form<Form<kBits, kTable, 2>> : run_form<Form<kBits, kTable, 4>>;
}

RunForm form_of(const PanelFormat& f) {
  if (f.sub_bits != 0) return form_of_subs(f);
  const bool parts = f.group < kGroup;
  if (f.value_kind == ValueKind::table) {
    if (f.bits == 4) return parts ? form_of_parts<4, true>(f) : run_form<Form<4, true>>;
    return parts ? form_of_parts<6, true>(f) : run_form<Form<6, true>>;
  }
  switch (f.bits) {
    case 1:
      return form_of_groups<1>(f);
    case 2:
      return parts ? form_of_parts<2, false>(f) : form_of_groups<2>(f);
    case 3:
      return parts ? form_of_parts<3, false>(f) : form_of_groups<3>(f);
    case 4:
      return parts ? form_of_parts<4, false>(f) : form_of_groups<4>(f);
    case 5:
      return parts ? form_of_parts<5, false>(f) : form_of_groups<5>(f);
    case 6:
      return parts ? form_of_parts<6, false>(f) : form_of_groups<6>(f);
    case 7:
      return parts ? form_of_parts<7, false>(f) : form_of_groups<7>(f);
    default:
      return parts ? form_of_parts<8, false>(f) : form_of_groups<8>(f);
  }
}

}  // namespace
