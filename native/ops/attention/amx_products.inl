// Products on AMX in groups of 2 x 2 tiles, queued and done piece by piece between other work. Included inside the region after
// amx_tiles.inl.

namespace {

constexpr int64_t kBlock = 128;  // keys
constexpr int64_t kBlocks = kKeyChunk / kBlock;
constexpr int64_t kTileBytes = 1024;
constexpr int64_t kMaxChannels = 576;

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

}  // namespace
