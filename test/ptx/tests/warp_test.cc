// shfl, vote, match, redux, activemask, elect.
#include <algorithm>

#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

// The word each of 32 lanes stores after `body`, which leaves it in %r9; %r1 holds the input.
std::vector<uint32_t> lanes(const std::string& body, const std::vector<uint32_t>& in) {
  return run_words(module_text("mul.wide.u32 %d1, %t, 4; add.u64 %d2, %in, %d1; add.u64 %d3, %out, %d1; "
                               "ld.global.u32 %r1, [%d2];\n" +
                               body + "\nst.global.u32 [%d3], %r9;"),
                   1, 32, 32, in);
}

void test_shuffles(const std::vector<uint32_t>& in) {
  // CUDA: width w makes c = ((32 - w) << 8) | clamp, clamp 0 for up and 31 for the others.
  for (uint32_t width : {32u, 16u, 8u}) {
    for (uint32_t amount : {0u, 1u, 3u, 7u, 9u, 31u}) {
      const std::string high = std::to_string((32 - width) << 8 | 31),
                        low = std::to_string((32 - width) << 8), b = std::to_string(amount);
      const auto expect = [&](const std::string& mode, const std::string& c, auto&& from) {
        const auto out = lanes("shfl.sync." + mode + ".b32 %r9|%p1, %r1, " + b + ", " + c +
                                   ", -1; @!%p1 add.u32 %r9, %r9, 1000000;",
                               in);
        bool right = true;
        for (int lane = 0; lane < 32; ++lane) {
          const int first = lane / static_cast<int>(width) * static_cast<int>(width),
                    source = from(lane, first);
          // A butterfly may read from a lower segment (ISA: only source <= max_lane is asked).
          const bool inside = (mode == "bfly" || source >= first) && source < first + static_cast<int>(width);
          right = right &&
                  out[static_cast<size_t>(lane)] ==
                      (inside ? in[static_cast<size_t>(source)] : in[static_cast<size_t>(lane)] + 1000000);
        }
        check(right, "shfl." + mode + " by " + b + ", width " + std::to_string(width));
      };
      const int n = static_cast<int>(amount), w = static_cast<int>(width);
      expect("up", low, [=](int lane, int) { return lane - n; });
      expect("down", high, [=](int lane, int) { return lane + n; });
      expect("bfly", high, [=](int lane, int) { return lane ^ n; });
      expect("idx", high, [=](int, int first) { return first + n % w; });
    }
  }
}

}  // namespace

void test_warp_operations() {
  std::vector<uint32_t> in(32);
  for (uint32_t i = 0; i < 32; ++i) in[i] = i * i * 37 % 100;
  test_shuffles(in);
  const auto all_equal = [](const std::vector<uint32_t>& out, uint32_t value) {
    return std::all_of(out.begin(), out.end(), [=](uint32_t x) { return x == value; });
  };
  uint32_t small = 0;
  for (uint32_t i = 0; i < 32; ++i) small |= (in[i] < 50 ? 1u : 0u) << i;
  const std::string less = "setp.lt.u32 %p1, %r1, 50; ", yes = " selp.u32 %r9, 1, 0, %p2;";
  check(all_equal(lanes(less + "vote.sync.ballot.b32 %r9, %p1, -1;", in), small), "vote.ballot");
  check(all_equal(lanes(less + "vote.sync.any.pred %p2, %p1, -1;" + yes, in), 1), "vote.any");
  check(all_equal(lanes(less + "vote.sync.all.pred %p2, %p1, -1;" + yes, in), 0), "vote.all");
  check(all_equal(lanes(less + "vote.sync.uni.pred %p2, !%p1, -1;" + yes, in), 0), "vote.uni");
  check(all_equal(lanes("setp.lt.u32 %p1, %r1, 5000; vote.sync.all.pred %p2, %p1, -1;" + yes, in), 1),
        "vote.all, all true");
  const auto half = lanes(less + "mov.u32 %r9, 7; @!%p1 bra over; vote.sync.ballot.b32 %r9, 1, " +
                              std::to_string(small) + "; over:",
                          in);
  bool right = true;
  for (uint32_t i = 0; i < 32; ++i) right = right && half[i] == (small >> i & 1 ? small : 7);
  check(right, "vote by some lanes");
  const auto matched = lanes("and.b32 %r2, %r1, 3; match.any.sync.b32 %r9, %r2, -1;", in);
  right = true;
  for (uint32_t i = 0; i < 32; ++i) {
    uint32_t same = 0;
    for (uint32_t j = 0; j < 32; ++j) same |= (in[i] % 4 == in[j] % 4 ? 1u : 0u) << j;
    right = right && matched[i] == same;
  }
  check(right, "match.any");
  check(all_equal(lanes("match.all.sync.b32 %r9|%p1, %r1, -1; @%p1 mov.u32 %r9, 5;", in), 0),
        "match.all of different values");
  check(all_equal(lanes("mov.u64 %d4, 12; match.all.sync.b64 %r9|%p1, %d4, -1; @!%p1 mov.u32 %r9, 5;", in),
                  0xffffffff),
        "match.all of one value");
  uint32_t sum = 0, bits_and = ~0u, bits_or = 0, bits_xor = 0;
  for (uint32_t x : in) sum += x, bits_and &= x | 0x80000000, bits_or |= x, bits_xor ^= x;
  check(all_equal(lanes("redux.sync.add.u32 %r9, %r1, -1;", in), sum), "redux.add");
  check(all_equal(lanes("redux.sync.min.u32 %r9, %r1, -1;", in), *std::min_element(in.begin(), in.end())),
        "redux.min");
  check(all_equal(lanes("redux.sync.max.s32 %r9, %r1, -1;", in), *std::max_element(in.begin(), in.end())),
        "redux.max");
  check(all_equal(lanes("sub.s32 %r1, 20, %r1; redux.sync.min.s32 %r9, %r1, -1;", in),
                  20 - *std::max_element(in.begin(), in.end())),
        "redux.min of negative values");
  check(all_equal(lanes("or.b32 %r1, %r1, 0x80000000; redux.sync.and.b32 %r9, %r1, -1;", in), bits_and),
        "redux.and");
  check(all_equal(lanes("redux.sync.or.b32 %r9, %r1, -1;", in), bits_or), "redux.or");
  check(all_equal(lanes("redux.sync.xor.b32 %r9, %r1, -1;", in), bits_xor), "redux.xor");
  const auto active = lanes(less + "mov.u32 %r9, 0; @%p1 activemask.b32 %r9;", in);
  right = true;
  for (uint32_t i = 0; i < 32; ++i) right = right && active[i] == (small >> i & 1 ? small : 0);
  check(right, "activemask");
  const auto elected = lanes("elect.sync %r9|%p1, -1; @%p1 add.u32 %r9, %r9, 100;", in);
  check(elected[0] == 100 && elected[1] == 0 && elected[31] == 0, "elect");
  const auto special = lanes(
      "mov.u32 %r9, %laneid; mov.u32 %r2, %lanemask_lt; popc.b32 %r3, %r2; add.u32 %r9, %r9, %r3; mov.u32 "
      "%r2, %lanemask_ge; popc.b32 %r3, %r2; add.u32 %r9, %r9, %r3;",
      in);
  check(special[5] == 5 + 5 + 27 && special[31] == 31 + 31 + 1, "special registers of lanes");
}

}  // namespace bitloom::ptx::testing
