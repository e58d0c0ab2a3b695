// Release and acquire between blocks, fences around relaxed operations, scopes: right uses pass in every
// schedule, wrong ones are races.
#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

// Block 0 writes in[64] and raises in[0] (initially 0); block 1 waits for it and reads in[64] into out[0].
std::string message_passing(const std::string& raise, const std::string& wait,
                            const std::string& after = "") {
  return module_text(
      "mov.u32 %r1, %ctaid.x; setp.eq.u32 %p1, %r1, 1; @%p1 bra reader; st.global.u32 [%in+256], 42; " +
      raise + " bra end;\nreader: " + wait + " setp.eq.u32 %p2, %r2, 0; @%p2 bra reader; " + after +
      " ld.global.u32 %r3, [%in+256]; st.global.u32 [%out], %r3; end:");
}

void passes(const std::string& what, const std::string& text, uint32_t block = 1) {
  for (uint64_t seed : {0, 1, 2, 3, 4, 5}) {
    Options options;
    options.seed = seed;
    try {
      check(run_words(text, 2, block, 1, std::vector<uint32_t>(128, 0), options)[0] == 42,
            what + ": the value");
    } catch (const Fault& fault) {
      check(false, what + ": " + fault.what());
    }
  }
}
void races(const std::string& what, const std::string& text, uint32_t block = 1) {
  for (uint64_t seed : {0, 1, 2, 3, 4, 5}) {
    Options options;
    options.seed = seed;
    check_fault(FaultKind::global_race, {"race on global memory"}, what,
                [&] { run_words(text, 2, block, 1, std::vector<uint32_t>(128, 0), options); });
  }
}

}  // namespace

void test_synchronization() {
  const std::string load = "ld.acquire.gpu.global.u32 %r2, [%in];",
                    relaxed = "ld.relaxed.gpu.global.u32 %r2, [%in];";
  passes("store release, load acquire", message_passing("st.release.gpu.global.u32 [%in], 1;", load));
  passes("red release, load acquire", message_passing("red.release.gpu.global.add.u32 [%in], 1;", load));
  passes("store release, atom acquire", message_passing("st.release.gpu.global.u32 [%in], 1;",
                                                        "atom.acquire.gpu.global.or.b32 %r2, [%in], 0;"));
  passes("fence and relaxed store, relaxed load and fence",
         message_passing("fence.acq_rel.gpu; st.relaxed.gpu.global.u32 [%in], 1;", relaxed,
                         "fence.acq_rel.gpu;"));
  passes("membar and atomic, volatile load and membar",
         message_passing("membar.gl; atom.global.add.u32 %r4, [%in], 1;",
                         "ld.volatile.global.u32 %r2, [%in];", "membar.gl;"));
  passes("system scope", message_passing("fence.sc.sys; st.volatile.global.u32 [%in], 1;",
                                         "ld.acquire.sys.global.u32 %r2, [%in];"));
  races("a relaxed store", message_passing("st.relaxed.gpu.global.u32 [%in], 1;", load));
  races("a relaxed load", message_passing("st.release.gpu.global.u32 [%in], 1;", relaxed));
  races("a fence after the flag",
        message_passing("st.relaxed.gpu.global.u32 [%in], 1; membar.gl;", relaxed, "membar.gl;"));
  races("no fence after the wait",
        message_passing("membar.gl; st.relaxed.gpu.global.u32 [%in], 1;", relaxed));
  races("a release of the block's scope",
        message_passing("st.release.cta.global.u32 [%in], 1;", "ld.acquire.cta.global.u32 %r2, [%in];"));
  races("a fence of the block's scope",
        message_passing("membar.cta; st.relaxed.gpu.global.u32 [%in], 1;", relaxed, "membar.gl;"));
  races("plain flags", message_passing("st.global.u32 [%in], 1;", "ld.global.u32 %r2, [%in];"));

  // A block of two warps publishes together: the barrier before the release is needed, and the one after the
  // acquire.
  const auto blocks = [](const std::string& before, const std::string& after) {
    return module_text(
        "mul.wide.u32 %d1, %t, 4; add.u64 %d1, %in, %d1; setp.eq.u32 %p3, %t, 0; mov.u32 %r1, %ctaid.x; "
        "setp.eq.u32 %p1, %r1, 1; @%p1 bra reader;\n"
        "st.global.u32 [%d1+64], 42; " +
        before +
        " @%p3 red.release.gpu.global.add.u32 [%in], 1; bra end;\n"
        "reader: @!%p3 bra waited; spin: ld.acquire.gpu.global.u32 %r2, [%in]; setp.eq.u32 %p2, %r2, 0; @%p2 "
        "bra spin;\n"
        "waited: " +
        after +
        " ld.global.u32 %r3, [%d1+64]; setp.eq.u32 %p4, %t, 63; @%p4 st.global.u32 [%out], %r3; end:");
  };
  passes("barriers on both sides", blocks("bar.sync 0;", "bar.sync 0;"), 64);
  races("no barrier before the release", blocks("", "bar.sync 0;"), 64);
  races("no barrier after the acquire", blocks("bar.sync 0;", ""), 64);
  // One warp: __syncwarp in place of the barriers.
  passes("lanes synchronize around one lane's release",
         message_passing("bar.warp.sync -1; st.release.gpu.global.u32 [%in], 1;", load));

  // A chain: what block 1 learnt from block 0 reaches block 2 through block 1's own release.
  const std::string chain = module_text(
      "mov.u32 %r1, %ctaid.x; mul.wide.u32 %d1, %r1, 4; add.u64 %d1, %in, %d1; setp.ne.u32 %p1, %r1, 0; @%p1 "
      "bra wait; st.global.u32 [%in+256], 42; bra raise;\n"
      "wait: ld.acquire.gpu.global.u32 %r2, [%d1]; setp.eq.u32 %p2, %r2, 0; @%p2 bra wait;\n"
      "raise: st.release.gpu.global.u32 [%d1+4], 1; setp.ne.u32 %p3, %r1, 2; @%p3 exit; ld.global.u32 %r3, "
      "[%in+256]; st.global.u32 [%out], %r3;");
  for (uint64_t seed : {0, 1, 2, 3}) {
    Options options;
    options.seed = seed;
    check(run_words(chain, 3, 1, 1, std::vector<uint32_t>(128, 0), options)[0] == 42,
          "a chain of three blocks");
  }
  // Two blocks that wait for each other need to be resident together.
  Options alone;
  alone.resident_blocks = 1;
  alone.max_warp_instructions = 10000;
  const std::string both = module_text(
      "mov.u32 %r1, %ctaid.x; atom.add.release.gpu.global.u32 %r4, [%in], 1; wait: ld.acquire.gpu.global.u32 "
      "%r2, [%in]; setp.lt.u32 %p1, %r2, 2; @%p1 bra wait; st.global.u32 [%out], 42;");
  check_fault(FaultKind::endless_loop, {"resident_blocks is 1"},
              "blocks that wait for each other, one at a time",
              [&] { run_words(both, 2, 1, 1, {0}, alone); });
}

}  // namespace bitloom::ptx::testing
