// A tile of 64 keys in pages and the lines of the next one, which kernels fetch while they read this one. Included after
// core.inl.
//
// Fetched by software too: a hardware prefetcher follows few streams and stops at each 4 KB, and one stream gets about 0.7
// of the bandwidth that four get.

namespace {

constexpr int64_t kGroup = 4;  // rows that go through everything together; there may be fewer
constexpr int64_t kUnits = kKeyTile / kUnit;

inline int64_t in_groups(int64_t rows) { return (rows + kGroup - 1) / kGroup * kGroup; }

// The pages of a tile's units. Units that begin behind the last key repeat the one before: nobody sees those.
struct Tile {
  const uint8_t* key_page[kUnits];
  const uint8_t* value_page[kUnits];
  const uint8_t* keys[kUnits];  // codes
  const uint8_t* values[kUnits];
  int64_t unit[kUnits];  // in its page

  Tile(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment, int64_t first, int64_t count) {
    const KvPage& key_layout = call.segments[segment].key_page;
    const KvPage& value_layout = call.segments[segment].value_page;
    const bool one_page = key_layout.page_size % kKeyTile == 0;
    for (int64_t u = 0; u < kUnits; ++u) {
      const int64_t token = first + u * kUnit;
      if (u > 0 && (one_page || token >= count)) {
        key_page[u] = key_page[u - 1];
        value_page[u] = value_page[u - 1];
        unit[u] = unit[u - 1] + (one_page ? 1 : 0);
      } else {
        const AttentionCall::Place place = call.place(segment, sequence, kv_head, token);
        key_page[u] = call.page(segment, false, place.page, kv_head);
        value_page[u] = call.page(segment, true, place.page, kv_head);
        unit[u] = place.index / kUnit;
      }
      keys[u] = key_layout.unit(key_page[u], unit[u]);
      values[u] = value_layout.unit(value_page[u], unit[u]);
    }
  }
};

// ---- pages of 8, 24, ... tokens: units of whose halves stand apart ----

// Eight tokens, half `from_half` of a unit, to half `to_half` of another.
inline void copy_half(const KvPage& layout, const uint8_t* from, int64_t from_half, uint8_t* to, int64_t to_half) {
  constexpr int64_t kHalf = kUnit / 2;
  if (!layout.values) {
    for (int64_t i = 0; i < layout.rows; ++i) {
      std::memcpy(to + (i * kUnit + to_half * kHalf) * 4, from + (i * kUnit + from_half * kHalf) * 4, kHalf * 4);
    }
  } else if (layout.rows > 1) {
    const size_t bytes = static_cast<size_t>(layout.unit_bytes / 2);
    std::memcpy(to + static_cast<size_t>(to_half) * bytes, from + static_cast<size_t>(from_half) * bytes, bytes);
  } else {  // 2 bits: a dword is a unit's sixteen tokens, half of them in the low nibbles
    for (int64_t i = 0; i < layout.unit_bytes; ++i) to[i] |= (from[i] >> (4 * from_half) & 15) << (4 * to_half);
  }
}

inline int64_t token_header_bytes(const KvPage& layout) { return layout.header_bytes / (layout.units * kUnit); }

// What a tile of such pages takes, 0 of others.
inline uint64_t joined_bytes(const KeySegment& segment) {
  const bool has_values = segment.paged != nullptr && segment.paged->values.data != nullptr;
  if (!has_values || segment.key_page.page_size % kUnit == 0) return 0;
  uint64_t bytes = 0;
  for (const KvPage* layout : {&segment.key_page, &segment.value_page}) {
    bytes += align_up(static_cast<uint64_t>(token_header_bytes(*layout) * kUnit + layout->unit_bytes));
  }
  return kUnits * bytes;
}
inline uint64_t joined_bytes(const AttentionCall& call) {
  uint64_t bytes = 0;
  for (int32_t i = 0; i < call.segment_count; ++i) bytes = std::max(bytes, joined_bytes(call.segments[i]));
  return bytes;
}

// Puts the units of such a tile together in `memory`, each as a page of its own, so that all page sizes go through the same
// sums. Scales are the tokens' own, or there are none. Tokens from `count` on are 0.
void join_halves(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment, int64_t first, int64_t count,
                 uint8_t* memory, Tile& tile) {
  if (joined_bytes(call.segments[segment]) == 0) return;
  for (const bool of_values : {false, true}) {
    const KvPage& layout = of_values ? call.segments[segment].value_page : call.segments[segment].key_page;
    const int64_t header = token_header_bytes(layout);
    for (int64_t u = 0; u < kUnits; ++u) {
      uint8_t* codes = memory + align_up(static_cast<uint64_t>(header * kUnit));
      std::memset(memory, 0, static_cast<size_t>(codes + layout.unit_bytes - memory));
      for (int64_t half = 0; half < 2; ++half) {
        const int64_t token = first + u * kUnit + half * (kUnit / 2);
        if (token >= count) continue;
        const AttentionCall::Place place = call.place(segment, sequence, kv_head, token);
        const uint8_t* page = call.page(segment, of_values, place.page, kv_head);
        const size_t scales = static_cast<size_t>(header * (kUnit / 2));
        std::memcpy(memory + static_cast<size_t>(half) * scales, page + header * place.index, scales);
        copy_half(layout, layout.unit(page, place.index / kUnit), place.index % kUnit / (kUnit / 2), codes, half);
      }
      (of_values ? tile.value_page : tile.key_page)[u] = memory;
      (of_values ? tile.values : tile.keys)[u] = codes;
      tile.unit[u] = 0;
      memory = codes + align_up(static_cast<uint64_t>(layout.unit_bytes));
    }
  }
}

// always_inline: GCC takes a call of what only fetches for one without effect and drops it.
__attribute__((always_inline)) inline void fetch(const uint8_t* p) {
  _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0);
}

// The lines of the codes that come half a tile later, asked for a few at a time all through the work: the tile's values from
// its scores on, the next tile's keys after turn(). Memory then has something to do during the softmax too, no more is asked
// for at once than the processor keeps track of, and what lies ready leaves L1 room for the rest. Four streams of rising
// lines, which the processor's own prefetcher follows.
class Ahead {
 public:
  Ahead(const KvPage& keys, const KvPage& values, const Tile& tile, const Tile& next)
      : units_(tile.values), bytes_(values.unit_bytes), next_(next.keys), next_bytes_(keys.unit_bytes) {}

  // One branch: this stands within loops whose sums fill the registers.
  __attribute__((always_inline)) void step() {
    const int64_t at = at_;
    if (at >= bytes_) return;
    for (int64_t u = 0; u < kUnits; ++u) {
      fetch(units_[u] + at);
      fetch(units_[u] + at + 64);
    }
    at_ = at + 128;
  }
  void turn() {
    rest();
    units_ = next_;
    bytes_ = next_bytes_;
    at_ = 0;
  }
  void rest() {
    while (at_ < bytes_) step();
  }

 private:
  const uint8_t* const* units_;
  int64_t bytes_;
  const uint8_t* const* next_;
  int64_t next_bytes_, at_ = 0;
};

}  // namespace
