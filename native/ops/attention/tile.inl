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

inline void fetch(const uint8_t* p) { _mm_prefetch(reinterpret_cast<const char*>(p), _MM_HINT_T0); }

// The lines of a tile's codes, asked for a few at a time all through the work on the tile before: memory then has something
// to do during the softmax too, and no more is asked for at once than the processor keeps track of. Four streams of rising
// lines, which its own prefetcher follows.
class Ahead {
 public:
  Ahead(const KvPage& keys, const KvPage& values, const Tile& tile)
      : tile_(tile), key_bytes_(keys.unit_bytes), value_bytes_(values.unit_bytes) {}

  // Two lines of two units of keys and of values.
  void step() {
    const int64_t u = pair_;
    if (at_ < key_bytes_) {
      fetch(tile_.keys[u] + at_);
      fetch(tile_.keys[u] + at_ + 64);
      fetch(tile_.keys[u + 2] + at_);
      fetch(tile_.keys[u + 2] + at_ + 64);
    }
    if (at_ < value_bytes_) {
      fetch(tile_.values[u] + at_);
      fetch(tile_.values[u] + at_ + 64);
      fetch(tile_.values[u + 2] + at_);
      fetch(tile_.values[u + 2] + at_ + 64);
    }
    at_ += 128;
    if (pair_ == 0 && at_ >= key_bytes_ && at_ >= value_bytes_) {
      pair_ = 1;
      at_ = 0;
    }
  }
  void rest() {
    while (at_ < key_bytes_ || at_ < value_bytes_) step();
  }

 private:
  const Tile& tile_;
  int64_t key_bytes_, value_bytes_, at_ = 0, pair_ = 0;
};

}  // namespace
