// The products of formats with one table of 4, 3 or 2 bits by two ways to look up, BL_LOOKUP: PairTable, in shared memory as
// the shipped kernels, and LaneTable, with an entry (2 bits: a pair of entries) in each lane, that shuffles fetch. Not
// shipped: table_lookups_test.cc and table_lookups.mjs count which is better. Kernels have the names of the shipped ones.
#include "cuda/ops/matmul/product_kernels.cuh"

namespace bitloom::cuda {

// The shipped lookup, but that groups choose no table.
template <int kBits>
struct PairTable : TableCodes<kBits, kBits == 4 ? 16 : 32> {
  using Shipped = TableCodes<kBits, kBits == 4 ? 16 : 32>;
  uint32_t own;  // the lane's copy

  __device__ __forceinline__ PairTable(const FragmentWeights& b)
      : Shipped(b), own(table_copy<Shipped>(threadIdx.x % 32)) {}
  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i,
                                           const GroupScale& g) const {
    return Shipped::pair(words, step, i, {g.scale, own, 0});
  }
};

// A shuffle takes the low five bits of a lane's number, so that a code needs no mask: lanes whose numbers differ in other bits
// than the code's have the same entry.
template <int kBits>
struct LaneTable : F16Products {
  static constexpr int kWords = kBits;
  static constexpr bool kTable = false;  // in shared memory
  static constexpr bool kPlainScale = false;
  uint32_t low, high;  // what a code means in the low and the high half of a pair; 2 bits: what two codes mean

  __device__ __forceinline__ LaneTable(const FragmentWeights& b) {
    const int lane = threadIdx.x % 32;
    if (kBits == 2) {
      low = high = b.table[lane % 4] | b.table[lane / 4 % 4] << 16;
    } else if (kBits == 3) {
      low = b.table[lane % 4 + lane / 16 * 4];
      high = b.table[lane % 4 + lane / 8 % 2 * 4];
    } else {
      low = high = b.table[lane % 16];
    }
  }

  __device__ __forceinline__ uint32_t pair(const uint32_t (&words)[kBits], int step, int i,
                                           const GroupScale& g) const {
    constexpr int kPlane = widest_plane(kBits);
    const auto entry = [](uint32_t entries, uint32_t lane) { return __shfl_sync(0xffffffffu, entries, lane); };
    const PairPlace place = table_pair_place(kPlane, step, i);
    uint32_t codes = words[place.word] >> place.bit;
    if (kBits == 2) return ptx::mul_f16x2(entry(low, codes), g.scale);
    if (kBits == 3) {  // bits 0, 1 and 4 are the low half's code; 2, 3 and 5 the high half's
      const PairPlace third = table_pair_place(1, step, i);
      codes = (codes & 15) | (shifted(words[2 + third.word], third.bit - 4) & ~15u);
    }
    const uint32_t halves = ptx::permute(entry(low, codes), entry(high, codes >> kPlane), 0x5410);
    return ptx::mul_f16x2(halves, g.scale);
  }
};

}  // namespace bitloom::cuda

using namespace bitloom::cuda;

BL_MATMUL_RARE_KERNEL(t2, BL_LOOKUP<2>)
BL_MATMUL_RARE_KERNEL(t3, BL_LOOKUP<3>)
BL_MATMUL_KERNEL(t4, BL_LOOKUP<4>)
