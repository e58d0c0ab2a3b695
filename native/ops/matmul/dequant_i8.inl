// The loops of matmul_dequant_i8, the same at every ISA level; included inside the region, after the level's
// Lanes (16 floats, a row of weights each), Ints (16 int32) and Unpack<Form> (codes of a chunk times activations).
//
// Streams. A core has to have some 50 cache lines on their way to read at the memory's speed, and one
// sequential stream gets two thirds of what eight get. So eight panels are read side by side, eight chunks of
// each in turn, and each asks for the lines that it needs in its next turn.

namespace {

// A family of formats that share code. Bits of a code; whether values come from a table; groups in a chunk (1:
// groups of 32 and more); sub-scales; offsets.
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
constexpr int64_t kVisit = 8;      // chunks of a stream before the next stream's turn
constexpr int64_t kAhead = 1024;   // bytes from what is read to what is asked for

inline void prefetch_lines(const uint8_t* bytes, int count) {
  for (int i = 0; i < count; ++i) _mm_prefetch(reinterpret_cast<const char*>(bytes + 64 * i), _MM_HINT_T0);
}

// The scales (or offsets) of sixteen rows, in the matrix's scale type.
inline Lanes load_stored(const PanelFormat& f, const uint8_t* bytes) {
  switch (f.scale_type) {
    case BL_DTYPE_bf16:
      return lanes_of_bf16(bytes);
    default:
      return lanes_of_f16(bytes);
  }
}

// Scales and offsets of the groups of one block, taken one chunk at a time.
template <typename F>
struct Header {
  Lanes scale[F::kParts];
  Lanes offset[F::kParts];

  // Groups of a block's chunks [at, ...): sub-scales of the whole block, or nothing.
  inline void begin_block(const PanelFormat& f, const uint8_t* block) {
    if constexpr (F::kSub) {
      block_scale_ = load_stored(f, block);
      if (F::kOffset) block_min_ = lanes_negate(load_stored(f, block + f.offset_offset));
      unpack_subs<F::kBits == 2 ? 4 : F::kBits == 6 ? 8 : 6>(block + f.sub_offset, f.sub_zero, subs_);
    }
  }
  // Whether a chunk begins new groups is the caller's to know.
  inline void begin_groups(const PanelFormat& f, const uint8_t* block, int64_t group) {
    for (int part = 0; part < F::kParts; ++part) {
      if constexpr (F::kSub) {
        // q2_k, q4_k and q5_k have as many mins, behind their scales.
        constexpr int kMins = F::kBits == 2 ? 16 : 8;
        const int8_t* sub = subs_ + kPanelRows * (group + part);
        scale[part] = lanes_mul(block_scale_, lanes_of_bytes(sub));
        if (F::kOffset) offset[part] = lanes_mul(block_min_, lanes_of_bytes(sub + kPanelRows * kMins));
      } else {
        const int64_t at = kPanelRows * (group + part) * f.scale_bytes;
        scale[part] = load_stored(f, block + at);
        if (f.scale_factor != 1.0f) scale[part] = lanes_mul(scale[part], lanes_set(f.scale_factor));
        if (F::kOffset) {
          offset[part] = load_stored(f, block + f.offset_offset + at);
          if (f.offset_kind == OffsetKind::zero_point) {
            offset[part] = lanes_mul(lanes_negate(scale[part]), lanes_add(offset[part], lanes_set(f.zero_shift)));
          }
        }
      }
    }
  }

 private:
  Lanes block_scale_, block_min_;
  alignas(64) int8_t subs_[F::kSub ? kPanelRows * kMaxSubCount : 64];
};

// Chunks [c, end) of one panel times kRows rows of a from m on, added to sums[kRows][sum_stride]. `block` holds
// chunk c as its at-th.
template <typename F, int kRows>
inline __attribute__((always_inline)) void visit(const PanelFormat& f, const Unpack<F>& unpack,
                                                 const Activations& a, int64_t m, const uint8_t* block,
                                                 int64_t at, int64_t c, int64_t end, int64_t ahead, float* sums,
                                                 int64_t sum_stride) {
  constexpr int kParts = F::kParts;
  constexpr int64_t kPart = kGroup / kParts;
  const int8_t* codes = a.codes + m * a.stride + c * kChunk;
  const float* scales = a.scales + m * (a.stride / kGroup) + c;
  const int32_t* starts = a.starts + m * (a.stride / kPart) + c * kParts;
  const float* moments = a.moments + m * (a.stride / kPart) + c * kParts;
  const int64_t block_chunks = f.elements / kChunk;
  const int64_t group_chunks = F::kSub || kParts > 1 ? 1 : f.group / kChunk;
  Lanes sum[kRows];
  for (int r = 0; r < kRows; ++r) sum[r] = lanes_load(sums + r * sum_stride);
  Header<F> header;
  for (; c < end; block += f.block_bytes, at = 0) {
    if (ahead != 0) prefetch_lines(block + ahead, F::kSub ? 5 : 1);
    header.begin_block(f, block);
    const uint8_t* chunk = block + f.chunk_offset + at * 64 * F::kBits;
    for (int64_t stop = block_chunks - at < end - c ? c + block_chunks - at : end; c < stop;) {
      // at / group_chunks without the division: blocks have one group, or chunks their own.
      header.begin_groups(f, block, group_chunks == 1 ? at * kParts : 0);
      for (int64_t left = group_chunks < stop - c ? group_chunks : stop - c; left > 0; --left, ++c, ++at) {
        if (ahead != 0) prefetch_lines(chunk + ahead, F::kBits);
        Ints products[kRows][kParts];
        for (int r = 0; r < kRows; ++r) {
          for (int p = 0; p < kParts; ++p) products[r][p] = ints_set(starts[r * (a.stride / kPart) + p]);
        }
        unpack.template multiply<kRows>(chunk, codes, a.stride, products);
        for (int r = 0; r < kRows; ++r) {
          const Lanes a_scale = lanes_set(scales[r * (a.stride / kGroup)]);
          for (int p = 0; p < kParts; ++p) {
            sum[r] = lanes_fma(lanes_of_ints(products[r][p]), lanes_mul(header.scale[p], a_scale), sum[r]);
            if (F::kOffset) {
              sum[r] = lanes_fma(header.offset[p], lanes_set(moments[r * (a.stride / kPart) + p]), sum[r]);
            }
          }
        }
        chunk += 64 * F::kBits;
        codes += kChunk;
        scales += 1;
        starts += kParts;
        moments += kParts;
      }
    }
  }
  for (int r = 0; r < kRows; ++r) lanes_store(sums + r * sum_stride, sum[r]);
}

template <typename F, int kRows>
__attribute__((noinline)) void visit_rows(const PanelFormat& f, const Unpack<F>& unpack, const Activations& a,
                                          int64_t m, const uint8_t* block, int64_t at, int64_t c, int64_t end,
                                          int64_t ahead, float* sums, int64_t sum_stride) {
  visit<F, kRows>(f, unpack, a, m, block, at, c, end, ahead, sums, sum_stride);
}

// `streams` panels side by side, `step` bytes apart.
template <typename F>
void run_streams(const PanelFormat& f, const Unpack<F>& unpack, const Activations& a, const Tile& tile,
                 const uint8_t* panels, int64_t step, int64_t streams, float* values, int64_t values_step) {
  const int64_t chunks = (f.cols + kChunk - 1) / kChunk;
  const int64_t block_chunks = f.elements / kChunk;
  const int64_t visit_blocks = block_chunks < kVisit ? kVisit / block_chunks : 1;
  const int64_t visit_chunks = block_chunks < kVisit ? visit_blocks * block_chunks : kVisit;
  const int64_t rows = tile.m_end - tile.m_begin;
  if (!tile.accumulate) {
    for (int64_t m = 0; m < rows; ++m) {
      for (int64_t s = 0; s < streams; ++s) lanes_store(values + m * tile.stride + s * values_step, lanes_set(0));
    }
  }
  int64_t at = 0;
  for (int64_t c = 0; c < chunks;) {
    int64_t end = c + visit_chunks;
    if (block_chunks >= kVisit && at + visit_chunks > block_chunks) end = c + block_chunks - at;
    if (end > chunks) end = chunks;
    for (int64_t s = 0; s < streams; ++s) {
      const uint8_t* block = panels + s * step;
      float* sums = values + s * values_step;
      int64_t m = 0, ahead = kAhead;
      for (; m + 8 <= rows; m += 8, ahead = 0) {
        visit_rows<F, 8>(f, unpack, a, tile.m_begin + m, block, at, c, end, ahead, sums + m * tile.stride,
                         tile.stride);
      }
      for (; m + 4 <= rows; m += 4, ahead = 0) {
        visit_rows<F, 4>(f, unpack, a, tile.m_begin + m, block, at, c, end, ahead, sums + m * tile.stride,
                         tile.stride);
      }
      for (; m + 2 <= rows; m += 2, ahead = 0) {
        visit_rows<F, 2>(f, unpack, a, tile.m_begin + m, block, at, c, end, ahead, sums + m * tile.stride,
                         tile.stride);
      }
      if (m < rows) {
        visit<F, 1>(f, unpack, a, tile.m_begin + m, block, at, c, end, ahead, sums + m * tile.stride,
                    tile.stride);
      }
    }
    at += end - c;
    c = end;
    if (at >= block_chunks) {
      panels += visit_blocks * f.block_bytes;
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
    run_streams<F>(f, unpack, a, tile, tile.panels + i * tile.panel_stride, length * tile.panel_stride, streams,
                   tile.values + i * kPanelRows, length * kPanelRows);
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
  return f.offset_kind == OffsetKind::none ? run_form<Form<kBits>> : run_form<Form<kBits, false, 1, false, true>>;
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
