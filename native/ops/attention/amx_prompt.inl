// What the kernels of prompts on AMX share: products in groups of 2 x 2 tiles, rows, blocks of keys, and the order of
// the work. Included inside the region after rows.inl and amx_tiles.inl.
//
//   block   128 keys: scores [32 rows][128] by products with the queries; then weights of a row, and the products of weights
//           and values, a chunk of 512 keys at a time, so that sums are loaded and stored once a chunk
//
// The matrix unit works beside the vector units: while the weights of a block are computed, row by row, products of the next
// block's scores and of the chunk before with its values are issued, a few behind each row. So both are spread evenly.

namespace {

constexpr int64_t kBlock = 128;  // keys
constexpr int64_t kBlocks = kKeyChunk / kBlock;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kMaxChannels = 576;
constexpr float kLog2E = 1.44269504f;

// Sums [2 x 16 rows][2 x 16 columns] = rows x columns over `steps` steps; tiles of rows are kTileBytes apart.
struct Group {
  const uint8_t *first, *second;  // rows 0 to 15 and 16 to 31
  const uint8_t *left, *right;    // 16 columns each
  int64_t column_step;            // bytes
  int64_t steps;
  uint8_t* sums;
  int64_t stride;  // of sums, bytes
  bool adds;       // to what stands there
};

// How many there can be at once: of a block's scores, and of all pairs of tiles of values.
constexpr int64_t kMaxGroups = kBlock / 32 + (kMaxChannels + 31) / 32;

// A queue of groups, done by halves of a step: two products and two loads each. Unit multiplies tiles.
//
// What the vector units do stands behind each load and product: instructions behind several of them wait until those have
// begun. On a processor in its slow state (matmul/amx_tiles.inl) a step takes 195 cycles; with 288 vector instructions it takes
// 300 where these stand in one lump, 215 behind the products, 185 behind loads and products.
template <typename Unit>
class Products {
 public:
  void clear() { count_ = current_ = at_ = left_ = 0; }
  void add(const Group& group) {
    groups_[count_++] = group;
    left_ += 2 * group.steps;
  }
  int64_t left() const { return left_; }  // halves
  bool at_second() const { return second_; }

  void run(int64_t halves) {
    Nothing nothing;
    for (; halves > 0; --halves) second_ ? second_half(nothing) : first_half(nothing);
  }

  // gap.template operator()<0 to 3>() behind the loads and products.
  template <typename Gap>
  [[gnu::always_inline]] void first_half(Gap& gap) {
    // GCC 12 does not know that tile loads read memory.
    __asm__ volatile("" : : : "memory");
    const Group& group = groups_[current_];
    const bool of_scores = current_ < scores;
    const int64_t offset = at_ * group.column_step;
    const uint8_t* left = group.left + offset;
    const uint8_t* right = group.right + offset;
    if (at_ == 0) begin(group);
    _tile_loadd(4, group.first + at_ * kTileBytes, 64);
    gap.template operator()<0>();
    _tile_loadd(6, left, 64);
    gap.template operator()<1>();
    Unit::template multiply<0>(of_scores);
    gap.template operator()<2>();
    _tile_loadd(7, right, 64);
    gap.template operator()<3>();
    second_ = true;
    --left_;
  }
  template <typename Gap>
  [[gnu::always_inline]] void second_half(Gap& gap) {
    __asm__ volatile("" : : : "memory");
    const Group& group = groups_[current_];
    const bool of_scores = current_ < scores;
    Unit::template multiply<1>(of_scores);
    gap.template operator()<0>();
    _tile_loadd(5, group.second + at_ * kTileBytes, 64);
    gap.template operator()<1>();
    Unit::template multiply<2>(of_scores);
    gap.template operator()<2>();
    Unit::template multiply<3>(of_scores);
    gap.template operator()<3>();
    second_ = false;
    --left_;
    if (++at_ < group.steps) return;
    store(group);
    at_ = 0;
    ++current_;
  }

  int64_t scores = 0;  // groups that are of scores: the first ones

 private:
  struct Nothing {
    template <int>
    void operator()() {}
  };
  static void begin(const Group& group) {
    if (!group.adds) return zero_sums();
    _tile_loadd(0, group.sums, group.stride);
    _tile_loadd(1, group.sums + 64, group.stride);
    _tile_loadd(2, group.sums + 16 * group.stride, group.stride);
    _tile_loadd(3, group.sums + 16 * group.stride + 64, group.stride);
  }
  static void store(const Group& group) {
    _tile_stored(0, group.sums, group.stride);
    _tile_stored(1, group.sums + 64, group.stride);
    _tile_stored(2, group.sums + 16 * group.stride, group.stride);
    _tile_stored(3, group.sums + 16 * group.stride + 64, group.stride);
  }

  Group groups_[kMaxGroups];
  int64_t count_ = 0, current_ = 0, at_ = 0, left_ = 0;
  bool second_ = false;
};

// The rows of a task.
struct TaskRows {
  alignas(Row) uint8_t memory[kPromptRows * sizeof(Row)];
  int64_t count;
  int64_t all_begin = 0, all_end = INT64_MAX;  // keys that all rows see
  int64_t seen_begin, seen_end;                // that some see, as a hull

  TaskRows(const AttentionCall& call, const PromptTask& task) {
    const int64_t heads = task.head_end - task.head_begin;
    const int64_t queries = call.query_count(task.sequence);
    const int64_t keys = call.keys(task.sequence, task.kv_head);
    count = heads * (task.query_end - task.query_begin);
    Row* rows = reinterpret_cast<Row*>(memory);
    for (int64_t i = 0; i < count; ++i) {
      const int64_t t = task.query_begin + i / heads, head = task.head_begin + i % heads;
      const Row* row = new (rows + i) Row{task.sequence, t, head, queries, keys, Sight(call, t, queries, keys, head)};
      all_begin = std::max(all_begin, row->sight.begin);
      all_end = std::min(all_end, row->sight.end);
    }
    hull(rows, count, &seen_begin, &seen_end);
  }
  const Row& operator[](int64_t i) const { return reinterpret_cast<const Row*>(memory)[i]; }
};

// A block of keys whose scores are computed.
struct Block {
  int64_t chunk, offset, present;  // offset in the chunk
  int64_t at;                      // in the sequence
  bool first, last;                // of its chunk
};

// The blocks of a task's chunks that some row sees. Returns their number.
int64_t find_blocks(const AttentionCall& call, const PromptTask& task, const TaskRows& rows, Block* blocks) {
  int64_t count = 0;
  const int64_t length = call.segment_keys(task.segment, task.sequence, task.kv_head);
  for (int64_t chunk = task.chunk_begin; chunk < task.chunk_end; ++chunk) {
    const int64_t begin = count;
    const int64_t keys = std::min(length - chunk * kKeyChunk, kKeyChunk);
    for (int64_t offset = 0; offset < keys; offset += kBlock) {
      const int64_t at = task.before + chunk * kKeyChunk + offset;
      const int64_t present = std::min(keys - offset, kBlock);
      if (at + present <= rows.seen_begin || at >= rows.seen_end) continue;
      blocks[count] = {chunk, offset, present, at, count == begin, false};
      ++count;
    }
    if (count > begin) blocks[count - 1].last = true;
  }
  return count;
}

// Which keys of a block a row sees.
struct Seen {
  uint64_t keys[2];
  bool all;
};

inline Seen seen_in_block(const AttentionCall& call, const TaskRows& rows, int64_t i, const Block& block, bool masks) {
  if (!masks && block.present == kBlock && block.at >= rows.all_begin && block.at + kBlock <= rows.all_end) {
    return {{~uint64_t{0}, ~uint64_t{0}}, true};
  }
  Seen seen{{seen_keys(call, rows[i], block.at, std::min(block.present, kKeyTile)), 0}, false};
  if (block.present > kKeyTile) {
    seen.keys[1] = seen_keys(call, rows[i], block.at + kKeyTile, block.present - kKeyTile);
  }
  return seen;
}

// A row that is weighed, in pieces for the gaps of a half of a step, or of two.
template <typename Mode>
struct RowWork {
  Mode& mode;
  const Block& block;
  const Seen& seen;
  int64_t row, buffer;
  typename Mode::Weighed weighed;

  [[gnu::always_inline]] void begin() { mode.begin_row(weighed, row, block, seen, buffer); }
  template <int kPart>
  [[gnu::always_inline]] void weigh() {
    mode.template weigh<kPart>(weighed);
  }
  [[gnu::always_inline]] void end() { mode.end_row(weighed); }
};

template <typename Mode>
struct WholeRow {
  RowWork<Mode>& work;

  template <int kGap>
  [[gnu::always_inline]] void operator()() {
    if constexpr (kGap == 0) work.begin();
    if constexpr (kGap == 1) work.template weigh<0>();
    if constexpr (kGap == 2) work.template weigh<1>();
    if constexpr (kGap == 2) work.template weigh<2>();
    if constexpr (kGap == 3) work.template weigh<3>();
    if constexpr (kGap == 3) work.end();
  }
};
template <typename Mode, int kHalf>
struct HalfOfRow {
  RowWork<Mode>& work;

  template <int kGap>
  [[gnu::always_inline]] void operator()() {
    if constexpr (kHalf == 0 && kGap == 0) work.begin();
    if constexpr (kHalf == 0 && kGap == 1) work.template weigh<0>();
    if constexpr (kHalf == 0 && kGap == 2) work.template weigh<1>();
    if constexpr (kHalf == 1 && kGap == 0) work.template weigh<2>();
    if constexpr (kHalf == 1 && kGap == 2) work.template weigh<3>();
    if constexpr (kHalf == 1 && kGap == 3) work.end();
  }
};

// A row's weights, with `halves` halves of products among them.
template <typename Mode>
inline void weigh_row(Mode& mode, Products<typename Mode::Unit>& products, int64_t halves, int64_t i, const Block& block,
                      const Seen& seen, int64_t buffer) {
  RowWork<Mode> work{mode, block, seen, i, buffer, {}};
  WholeRow<Mode> whole{work};
  HalfOfRow<Mode, 0> first{work};
  HalfOfRow<Mode, 1> second{work};
  if (halves > 1 && products.at_second()) {
    products.run(1);
    --halves;
  }
  if (halves > 1) {
    products.first_half(first);
    products.second_half(second);
    products.run(halves - 2);
  } else if (halves == 1) {
    products.at_second() ? products.second_half(whole) : products.first_half(whole);
  } else {
    whole.template operator()<0>();
    whole.template operator()<1>();
    whole.template operator()<2>();
    whole.template operator()<3>();
  }
}

// A task, in the order told at the head. Mode (of a kernel):
//   Unit                                  multiplies
//   add_scores(products, block, parity)   queues a block's scores, to buffer `parity`
//   begin_chunk(block)                    the first block of a chunk is weighed
//   begin_row, weigh<0 to 3>, end_row     scores of a row to weights; Weighed is what stands in registers meanwhile
//   end_chunk(block)                      the chunk's weights are complete
//   value_pairs(), add_values(products, pair)   the completed chunk's products with pair `pair` of tiles of values
//   finish_values(), add_to_state(row)    all of these are done; what they left, to a row's state
template <typename Mode>
void run_task(const AttentionCall& call, const PromptTask& task, const TaskRows& rows, Mode& mode) {
  Block blocks[kPackedChunks * kBlocks];
  const int64_t count = find_blocks(call, task, rows, blocks);
  if (count == 0) return;
  const bool masks = has_masks(call);
  const int64_t pairs = mode.value_pairs(), quota = (pairs + kBlocks - 1) / kBlocks;
  int64_t pair = pairs;  // of the chunk that is multiplied with its values; `pairs`: none is
  bool left = false;       // sums that are not in the states yet
  const auto add_left = [&] {
    for (int64_t i = 0; left && i < rows.count; ++i) mode.add_to_state(i);
    left = false;
  };
  Products<typename Mode::Unit> products;
  const TileScope scope;
  for (int64_t n = 0; n <= count; ++n) {
    const Block* weighed = n > 0 ? blocks + n - 1 : nullptr;
    products.clear();
    products.scores = n < count ? mode.add_scores(products, blocks[n], n & 1) : 0;
    if (pair < pairs) {
      add_left();
      const int64_t end = weighed->last ? pairs : std::min(pair + quota, pairs);
      for (; pair < end; ++pair) mode.add_values(products, pair);
      if (pair == pairs) pair = pairs + 1;
    }
    if (weighed != nullptr) {
      if (weighed->first) mode.begin_chunk(*weighed);
      for (int64_t i = 0; i < rows.count; ++i) {
        weigh_row(mode, products, products.left() / (rows.count - i), i, *weighed,
                  seen_in_block(call, rows, i, *weighed, masks), (n & 1) ^ 1);
        if (left) mode.add_to_state(i);
      }
      left = false;
    }
    products.run(products.left());
    if (pair > pairs) {
      mode.finish_values();
      left = true;
      pair = pairs;
    }
    if (weighed != nullptr && weighed->last) {
      mode.end_chunk(*weighed);
      pair = 0;
    }
  }
  products.clear();
  products.scores = 0;
  for (; pair < pairs; ++pair) mode.add_values(products, pair);
  add_left();
  products.run(products.left());
  mode.finish_values();
  left = true;
  add_left();
}

}  // namespace
