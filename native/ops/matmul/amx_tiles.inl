// Tile registers: 0 to 3 sums (16 rows of a x 16 columns, rows 0 and 1: first and second sixteen), 4, 5 of a, 6, 7 of b.
// Included in regions of level amx.

struct alignas(64) TileConfig {
  uint8_t palette;
  uint8_t start_row;
  uint8_t reserved[14];
  uint16_t row_bytes[16];
  uint8_t rows[16];
};
static_assert(sizeof(TileConfig) == 64);

// The matrix unit shaped for tiles of 16 x 64 bytes, and afterwards as it was: the calling convention would let a
// callee change it, but other libraries of the process shape it once per thread and rely on that (ggml).
//
// By assembly: GCC 12's _tile_loadconfig does not tell the compiler that it reads the struct, so that the stores to it
// are dropped.
class TileScope {
 public:
  TileScope() {
    __asm__ volatile("sttilecfg %0" : "=m"(before_));
    TileConfig config{};
    config.palette = 1;
    for (int tile = 0; tile < 8; ++tile) {
      config.row_bytes[tile] = 64;
      config.rows[tile] = 16;
    }
    __asm__ volatile("ldtilecfg %0" : : "m"(config));
  }
  ~TileScope() {
    if (before_.palette == 0) {
      _tile_release();
    } else {
      __asm__ volatile("ldtilecfg %0" : : "m"(before_));
    }
  }
  TileScope(const TileScope&) = delete;
  TileScope& operator=(const TileScope&) = delete;

 private:
  TileConfig before_;
};

inline void zero_sums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

// The tiles of a step of 64 int8 or 32 bf16: two of a, two of b.
struct StepTiles {
  const uint8_t *first, *second, *weights;
};

inline void load_step(const StepTiles& at) {
  _tile_stream_loadd(4, at.first, 64);
  _tile_loadd(6, at.weights, 64);
  _tile_loadd(7, at.weights + 1024, 64);
  _tile_stream_loadd(5, at.second, 64);
}

// Multiplies the loaded step and loads the next one. What stands behind the products (gaps) was measured on a
// processor whose products take 16 cycles each, which is in one of two states for a second or so at a time: in the fast one
// a step of 4 products and 4 loads takes 65 cycles, in the slow one 240.
//
//   behind each product                     fast   slow
//   nothing                                   65    255
//   24 vector instructions, 2 stores          73    203
//   16, a load of 64 bytes among them        104    203
//   20, all 16 loads of a step in one gap     75    191
//   96 behind all four                        82    282
//
// So instructions are spread over the gaps, and loads stand together. Each tile load stands right behind the last use of
// its register: in the slow state, loads and products hardly overlap.
//
// Rows of a are loaded past L1 (hint T1), where they would take the room of b, c and sums: a tenth less time.
template <typename Gap>
inline void multiply_bf16(const StepTiles& next, const Gap& gap) {
  _tile_dpbf16ps(0, 4, 6);
  gap.template operator()<0>();
  _tile_dpbf16ps(1, 4, 7);
  gap.template operator()<1>();
  _tile_stream_loadd(4, next.first, 64);
  _tile_dpbf16ps(2, 5, 6);
  gap.template operator()<2>();
  _tile_loadd(6, next.weights, 64);
  _tile_dpbf16ps(3, 5, 7);
  gap.template operator()<3>();
  _tile_stream_loadd(5, next.second, 64);
  _tile_loadd(7, next.weights + 1024, 64);
}

// Sums to [32][32] of 4 bytes.
inline void store_sums(void* sums_in) {
  uint8_t* sums = static_cast<uint8_t*>(sums_in);
  _tile_stored(0, sums, 128);
  _tile_stored(1, sums + 64, 128);
  _tile_stored(2, sums + 2048, 128);
  _tile_stored(3, sums + 2048 + 64, 128);
}
