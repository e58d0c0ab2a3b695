// Sixteen keys or values (a unit) in f32, wherever they stand: rows of a tensor, or pages of any format. Included inside
// an ISA region after its Vec, Ints, load_vec and transpose.
//
//   keys    panel [head_dim][16]: a vector holds one channel of many keys, which is how pages have them too
//   values  rows [16][value_stride]
//
// What stands where no token is may be anything: it is computed with and never read.

namespace {

constexpr int64_t kLanes = Vec::kLanes;
constexpr int64_t kUnit = kKvUnit;

inline int64_t padded16(int64_t n) { return (n + 15) / 16 * 16; }

}  // namespace

#include "rotate.inl"

namespace {

// ---- tensors ----

// Rows of one head of a tensor, from one on. Those of a tile further on are fetched while they are read: rows are far apart, so
// that the processor's own prefetcher does not foresee them; to L2, because such rows share few sets of L1.
struct HeadRows {
  const uint8_t* data;
  int64_t row_bytes;

  HeadRows(const bl_tensor& tensor, int64_t first, int64_t head) {
    const int64_t bytes = tensor.dtype == BL_DTYPE_f32 ? 4 : 2;
    row_bytes = tensor.strides[0] * bytes;
    data = static_cast<const uint8_t*>(tensor.data) + first * row_bytes + head * tensor.strides[1] * bytes;
  }
  const uint8_t* at(int64_t row, int64_t byte) const { return data + row * row_bytes + byte; }
  // May lie behind the tensor.
  __attribute__((always_inline)) void fetch_ahead(int64_t row, int64_t byte) const {
    const uintptr_t address = reinterpret_cast<uintptr_t>(data) + static_cast<uintptr_t>((row + kKeyTile) * row_bytes + byte);
    __builtin_prefetch(reinterpret_cast<const void*>(address), 0, 2);
  }
};

// values: the same rows of the other tensor, fetched too.
template <int32_t kType>
void turn_rows(const HeadRows& from, const HeadRows& values, int64_t count, int64_t dim, float* panel) {
  constexpr int64_t kBytes = kType == BL_DTYPE_f32 ? 4 : 2;
  for (int64_t s = 0; s < kUnit; s += kLanes) {
    for (int64_t i = 0; i < dim; i += kLanes) {
      const int64_t n = dim - i < kLanes ? dim - i : kLanes;
      Vec rows[kLanes];
      for (int64_t j = 0; j < kLanes; ++j) {
        const uint8_t* row = from.at(s + j, i * kBytes);
        from.fetch_ahead(s + j, i * kBytes);
        values.fetch_ahead(s + j, i * kBytes);
        rows[j] = s + j >= count ? Vec::set(0) : n == kLanes ? load_vec<kType>(row) : load_vec<kType>(row, n);
      }
      transpose(rows);
      for (int64_t j = 0; j < n; ++j) rows[j].store(panel + (i + j) * kUnit + s);
    }
  }
}

template <int32_t kType>
void copy_rows(const bl_tensor& tensor, int64_t first, int64_t head, int64_t count, int64_t dim, int64_t stride,
               float* rows) {
  constexpr int64_t kBytes = kType == BL_DTYPE_f32 ? 4 : 2;
  const uint8_t* data =
      static_cast<const uint8_t*>(tensor.data) + (first * tensor.strides[0] + head * tensor.strides[1]) * kBytes;
  for (int64_t s = 0; s < count; ++s) {
    const uint8_t* row = data + s * tensor.strides[0] * kBytes;
    float* copy = rows + s * stride;
    int64_t i = 0;
    for (; i + kLanes <= dim; i += kLanes) load_vec<kType>(row + i * kBytes).store(copy + i);
    if (i < dim) load_vec<kType>(row + i * kBytes, dim - i).store(copy + i);
  }
}

// ---- pages ----

// Calls emit(row, part, j, values) for the elements j of each dword row, `parts` vectors in a row: values are codes, or
// floats where the format has those. The same line of `ahead` is asked for beside each that is read.
template <int32_t kFormat, typename Emit>
inline void for_each_element(const uint8_t* unit, const uint8_t* ahead, int64_t rows, int64_t parts, Emit&& emit) {
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t part = 0; part < parts; ++part) {
      const int64_t at = (row * parts + part) * kLanes * 4;
      __builtin_prefetch(ahead + at);
      const Ints x = load_ints(unit + at);
      if constexpr (kFormat == BL_KV_FORMAT_f32) {
        emit(row, part, 0, as_float(x));
      } else if constexpr (kFormat == BL_KV_FORMAT_f16) {
        emit(row, part, 0, half_low(x));
        emit(row, part, 1, half_high(x));
      } else if constexpr (kFormat == BL_KV_FORMAT_bf16) {
        emit(row, part, 0, as_float(shift_left(x, 16)));
        emit(row, part, 1, as_float(mask(x, 0xffff0000u)));
      } else if constexpr (kFormat == BL_KV_FORMAT_f8e4m3) {
        // As an f16 whose exponent is 8 too small: bits 7 up, the sign beside. All ones is NaN.
        for (int j = 0; j < 4; ++j) {
          const Ints byte = mask(shift_right(x, 8 * j), 0xff);
          const Ints half = either(shift_left(mask(byte, 0x7f), 7), shift_left(mask(byte, 0x80), 8));
          emit(row, part, j, nan_where(mask(byte, 0x7f), 0x7f, half_low(half) * Vec::set(256)));
        }
      } else if constexpr (kFormat == BL_KV_FORMAT_i8 || kFormat == BL_KV_FORMAT_bfp8) {
        for (int j = 0; j < 4; ++j) emit(row, part, j, to_float(shift_right_signed(shift_left(x, 24 - 8 * j), 24)));
      } else if constexpr (kFormat == BL_KV_FORMAT_bfp4) {
        for (int j = 0; j < 8; ++j) {
          const int low = 8 * (j % 4) + 4 * (j / 4);
          emit(row, part, j, to_float(shift_right_signed(shift_left(x, 28 - low), 28)));
        }
      } else if constexpr (kFormat == BL_KV_FORMAT_i4) {
        for (int j = 0; j < 8; ++j) emit(row, part, j, to_float(mask(shift_right(x, 8 * (j % 4) + 4 * (j / 4)), 15)));
      } else {
        static_assert(kFormat == BL_KV_FORMAT_i2);
        for (int j = 0; j < 16; ++j) emit(row, part, j, to_float(mask(shift_right(x, 8 * (j % 4) + 2 * (j / 4)), 3)));
      }
    }
  }
}

// 2^(exponent - 127), NaN for 255.
inline float block_scale(uint8_t exponent) {
  const uint32_t bits = exponent == 0 ? 0x00400000u : exponent == 255 ? 0x7fc00000u : static_cast<uint32_t>(exponent) << 23;
  float scale;
  std::memcpy(&scale, &bits, 4);
  return scale;
}

// scale and offset of a channel's keys in f32, [head_dim] each.
inline void load_channel_scales(const KvPage& layout, const uint8_t* page, float* scales) {
  for (int64_t half = 0; half < 2; ++half) {
    const uint8_t* from = page + half * layout.dim * 2;
    float* to = scales + half * layout.dim;
    int64_t i = 0;
    for (; i + kLanes <= layout.dim; i += kLanes) load_vec<BL_DTYPE_f16>(from + 2 * i).store(to + i);
    for (; i < layout.dim; ++i) {
      uint16_t bits;
      std::memcpy(&bits, from + 2 * i, 2);
      to[i] = f16_to_f32(bits);
    }
  }
}

constexpr KvScale scale_of(int32_t format) {
  constexpr KvScale kScales[] = {
#define BL_KV_FORMAT(name, bits, scale) KvScale::scale,
#include "../../formats/kv_formats.inc"
#undef BL_KV_FORMAT
  };
  return kScales[format];
}

template <int32_t kFormat>
void decode_keys(const KvPage& layout, const uint8_t* page, int64_t unit, const uint8_t* ahead,
                 const float* channel_scales, float* panel) {
  constexpr int64_t kParts = kUnit / kLanes;
  constexpr KvScale kScale = scale_of(kFormat);
  const int64_t n = layout.per_dword;
  Vec token_scale[kParts];
  for (int64_t part = 0; part < kParts; ++part) {
    token_scale[part] = kScale == KvScale::token
                            ? Vec::load(reinterpret_cast<const float*>(page) + unit * kUnit + part * kLanes)
                            : Vec::set(1);
  }
  alignas(64) float block_scales[kMaxKvDim / kKvBlock * kUnit];  // [group][16 tokens]
  const int64_t groups = (layout.dim + kKvBlock - 1) / kKvBlock;
  if constexpr (kScale == KvScale::block) {
    for (int64_t t = 0; t < kUnit; ++t) {
      for (int64_t g = 0; g < groups; ++g) {
        block_scales[g * kUnit + t] = block_scale(page[(unit * kUnit + t) * groups + g]);
      }
    }
  }
  for_each_element<kFormat>(layout.unit(page, unit), ahead, layout.rows, kParts,
                            [&](int64_t row, int64_t part, int64_t j, Vec value) {
                              const int64_t channel = row * n + j;
                              if (channel >= layout.dim) return;
                              if constexpr (kScale == KvScale::token) {
                                value = value * token_scale[part];
                              } else if constexpr (kScale == KvScale::channel) {
                                value = fma(value, Vec::set(channel_scales[channel]),
                                            Vec::set(channel_scales[layout.dim + channel]));
                              } else if constexpr (kScale == KvScale::block) {
                                value = value * Vec::load(block_scales + channel / kKvBlock * kUnit + part * kLanes);
                              }
                              value.store(panel + channel * kUnit + part * kLanes);
                            });
}

template <int32_t kFormat>
void decode_values(const KvPage& layout, const uint8_t* page, int64_t unit, const uint8_t* ahead, float* rows) {
  constexpr KvScale kScale = scale_of(kFormat);
  const int64_t n = layout.per_dword;
  const int64_t groups = layout.groups;
  // [16 tokens][groups] scale, offset
  float scales[2 * (kMaxKvDim / kKvBlock) * kUnit];
  if constexpr (kScale == KvScale::channel) {
    for (int64_t i = 0; i < kUnit * groups * 2; ++i) {
      uint16_t bits;
      std::memcpy(&bits, page + (unit * kUnit * groups * 2 + i) * 2, 2);
      scales[i] = f16_to_f32(bits);
    }
  } else if constexpr (kScale == KvScale::block) {
    for (int64_t i = 0; i < kUnit * groups; ++i) scales[i] = block_scale(page[unit * kUnit * groups + i]);
  }
  const float* token_scales = reinterpret_cast<const float*>(page) + unit * kUnit;
  for_each_element<kFormat>(
      layout.unit(page, unit), ahead, layout.rows, layout.lanes / kLanes, [&](int64_t row, int64_t part, int64_t j, Vec value) {
        const int64_t token = row * n + j;
        if constexpr (kScale == KvScale::token) {
          value = value * Vec::set(token_scales[token]);
        } else if constexpr (kScale == KvScale::channel) {
          const float* scale = scales + (token * groups + part * kLanes / kKvValueGroup) * 2;
          value = fma(value, Vec::set(scale[0]), Vec::set(scale[1]));
        } else if constexpr (kScale == KvScale::block) {
          value = value * Vec::set(scales[token * groups + part * kLanes / kKvBlock]);
        }
        value.store(rows + token * layout.lanes + part * kLanes);
      });
}

#define BL_FOR_KV_FORMAT(format, body)                                        \
  switch (format) {                                                           \
    case BL_KV_FORMAT_f32: body(BL_KV_FORMAT_f32); break;                     \
    case BL_KV_FORMAT_f16: body(BL_KV_FORMAT_f16); break;                     \
    case BL_KV_FORMAT_bf16: body(BL_KV_FORMAT_bf16); break;                   \
    case BL_KV_FORMAT_f8e4m3: body(BL_KV_FORMAT_f8e4m3); break;               \
    case BL_KV_FORMAT_i8: body(BL_KV_FORMAT_i8); break;                       \
    case BL_KV_FORMAT_i4: body(BL_KV_FORMAT_i4); break;                       \
    case BL_KV_FORMAT_i2: body(BL_KV_FORMAT_i2); break;                       \
    case BL_KV_FORMAT_bfp8: body(BL_KV_FORMAT_bfp8); break;                   \
    case BL_KV_FORMAT_bfp4: body(BL_KV_FORMAT_bfp4); break;                   \
    default: break;                                                           \
  }

// ---- either ----

// The keys of one kv head of one sequence, in one segment.
class Units {
 public:
  // scales: room for 2 head_dim floats; spare: for spare_floats()
  Units(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment, float* scales, float* spare)
      : call_(call),
        sequence_(sequence),
        kv_head_(kv_head),
        segment_(segment),
        count_(call.segment_keys(segment, sequence, kv_head)),
        stride_(padded16(call.value_dim)),
        before_(segment == 0 ? 0 : call.segment_keys(0, sequence, kv_head)),
        scales_(scales),
        spare_(spare),
        rotation_(call.rope, spare + row_floats(call) + kUnit * call.head_dim),
        positions_(call.rope == nullptr ? nullptr : call.positions_of_keys(sequence, kv_head)) {}

  static int64_t spare_floats(const AttentionCall& call) {
    return row_floats(call) + kUnit * call.head_dim + Rotation::floats(call);
  }

  int64_t count() const { return count_; }

  // Keys [first, first + 16), first a multiple of 16, to the panel, or where they stand already. With rope: turned.
  const float* keys(int64_t first, float* panel) {
    ahead_ = nullptr;
    const float* stored = stored_keys(first, panel);
    if (rotation_.none()) return stored;
    if (positions_ == nullptr) {
      rotation_.keys(before_ + first, call_.head_dim, stored, panel);
    } else {
      const int64_t present = count_ - first < kUnit ? count_ - first : kUnit;
      rotation_.keys(positions_ + before_ + first, present, call_.head_dim, stored, panel);
    }
    return panel;
  }

  // The same as they are stored.
  const float* stored_keys(int64_t first, float* panel) {
    if (call_.segments[segment_].paged == nullptr) {
      const int64_t present = count_ - first < kUnit ? count_ - first : kUnit;
      const int64_t row = call_.first_key(sequence_) + first;
      const HeadRows from(call_.k, row, kv_head_), values(call_.v, row, kv_head_);
      if (call_.k.dtype == BL_DTYPE_f32) {
        turn_rows<BL_DTYPE_f32>(from, values, present, call_.head_dim, panel);
      } else if (call_.k.dtype == BL_DTYPE_f16) {
        turn_rows<BL_DTYPE_f16>(from, values, present, call_.head_dim, panel);
      } else {
        turn_rows<BL_DTYPE_bf16>(from, values, present, call_.head_dim, panel);
      }
      return panel;
    }
    return paged_keys(first, panel);
  }

  // Values [first, first + 16) to rows [16][value_stride], or where they stand.
  const float* values(int64_t first, float* rows, bool copy) {
    ahead_ = nullptr;
    const KeySegment& segment = call_.segments[segment_];
    if (segment.paged == nullptr) {
      const int64_t present = count_ - first < kUnit ? count_ - first : kUnit;
      const int64_t row = call_.first_key(sequence_) + first;
      row_stride_ = stride_;
      if (call_.v.dtype == BL_DTYPE_f32) {
        if (!copy && call_.value_dim % kUnit == 0) {
          row_stride_ = call_.v.strides[0];
          return static_cast<const float*>(call_.v.data) + row * row_stride_ + kv_head_ * call_.v.strides[1];
        }
        copy_rows<BL_DTYPE_f32>(call_.v, row, kv_head_, present, call_.value_dim, stride_, rows);
      } else if (call_.v.dtype == BL_DTYPE_f16) {
        copy_rows<BL_DTYPE_f16>(call_.v, row, kv_head_, present, call_.value_dim, stride_, rows);
      } else {
        copy_rows<BL_DTYPE_bf16>(call_.v, row, kv_head_, present, call_.value_dim, stride_, rows);
      }
      return rows;
    }
    row_stride_ = stride_;
    return segment.paged->values.data != nullptr ? paged_values(first, rows) : latent_values(first, rows);
  }
  int64_t row_stride() const { return row_stride_; }
  // Where what keys() or values() gave last stands in pages: the same a tile further on, to be fetched by who reads it. Null
  // otherwise.
  const uint8_t* ahead() const { return ahead_; }

 private:
  static int64_t row_floats(const AttentionCall& call) {
    return padded16(call.head_dim > call.value_dim ? call.head_dim : call.value_dim);
  }
  bool whole_units() const { return call_.segments[segment_].key_page.page_size % kUnit == 0; }

  // The unit a tile further on, while that of `first` is decoded: pages are read from memory, a few KB of each head at a
  // time, which the processor's own prefetcher does not foresee.
  const uint8_t* unit_ahead(const KvPage& layout, bool values, int64_t first) const {
    const int64_t token = first + kKeyTile < count_ ? first + kKeyTile : first;
    const AttentionCall::Place place = call_.place(segment_, sequence_, kv_head_, token);
    return layout.unit(call_.page(segment_, values, place.page, kv_head_), place.index / kUnit);
  }

  const float* paged_keys(int64_t first, float* panel) {
    const KvPage& layout = call_.segments[segment_].key_page;
    if (!whole_units()) {
      const int64_t present = count_ - first < kUnit ? count_ - first : kUnit;
      for (int64_t s = 0; s < present; ++s) {
        const AttentionCall::Place place = call_.place(segment_, sequence_, kv_head_, first + s);
        decode_kv(layout, call_.page(segment_, false, place.page, kv_head_), place.index, 1, spare_);
        for (int64_t i = 0; i < call_.head_dim; ++i) panel[i * kUnit + s] = spare_[i];
      }
      return panel;
    }
    const AttentionCall::Place place = call_.place(segment_, sequence_, kv_head_, first);
    const uint8_t* page = call_.page(segment_, false, place.page, kv_head_);
    const int64_t unit = place.index / kUnit;
    if (layout.format == BL_KV_FORMAT_f32) {
      ahead_ = unit_ahead(layout, false, first);
      return reinterpret_cast<const float*>(layout.unit(page, unit));
    }
    if (layout.scale == KvScale::channel && page != scaled_page_) {
      load_channel_scales(layout, page, scales_);
      scaled_page_ = page;
    }
    const uint8_t* ahead = unit_ahead(layout, false, first);
#define BL_DECODE(format) decode_keys<format>(layout, page, unit, ahead, scales_, panel)
    BL_FOR_KV_FORMAT(layout.format, BL_DECODE)
#undef BL_DECODE
    return panel;
  }

  const float* paged_values(int64_t first, float* rows) {
    const KvPage& layout = call_.segments[segment_].value_page;
    if (!whole_units()) {
      const int64_t present = count_ - first < kUnit ? count_ - first : kUnit;
      for (int64_t s = 0; s < present; ++s) {
        const AttentionCall::Place place = call_.place(segment_, sequence_, kv_head_, first + s);
        decode_kv(layout, call_.page(segment_, true, place.page, kv_head_), place.index, 1, spare_);
        for (int64_t i = 0; i < call_.value_dim; ++i) rows[s * stride_ + i] = spare_[i];
      }
      return rows;
    }
    const AttentionCall::Place place = call_.place(segment_, sequence_, kv_head_, first);
    const uint8_t* page = call_.page(segment_, true, place.page, kv_head_);
    const int64_t unit = place.index / kUnit;
    if (layout.format == BL_KV_FORMAT_f32) {
      ahead_ = unit_ahead(layout, true, first);
      return reinterpret_cast<const float*>(layout.unit(page, unit));
    }
    const uint8_t* ahead = unit_ahead(layout, true, first);
#define BL_DECODE(format) decode_values<format>(layout, page, unit, ahead, rows)
    BL_FOR_KV_FORMAT(layout.format, BL_DECODE)
#undef BL_DECODE
    return rows;
  }

  // The first value_dim channels of the keys, turned back.
  const float* latent_values(int64_t first, float* rows) {
    const float* panel = paged_keys(first, spare_ + row_floats(call_));
    for (int64_t s = 0; s < kUnit; s += kLanes) {
      for (int64_t i = 0; i < call_.value_dim; i += kLanes) {
        const int64_t n = call_.value_dim - i < kLanes ? call_.value_dim - i : kLanes;
        Vec channels[kLanes];
        for (int64_t j = 0; j < kLanes; ++j) {
          channels[j] = j < n ? Vec::load(panel + (i + j) * kUnit + s) : Vec::set(0);
        }
        transpose(channels);
        for (int64_t j = 0; j < kLanes; ++j) channels[j].store(rows + (s + j) * stride_ + i);
      }
    }
    return rows;
  }

  const AttentionCall& call_;
  int64_t sequence_, kv_head_;
  int32_t segment_;
  int64_t count_, stride_, row_stride_ = 0;
  int64_t before_;  // keys of segments before
  float* scales_;
  float* spare_;
  Rotation rotation_;
  const int32_t* positions_;  // of the sequence's keys
  const uint8_t* scaled_page_ = nullptr;
  const uint8_t* ahead_ = nullptr;
};

}  // namespace
