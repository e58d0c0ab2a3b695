// Branches, divergence, calls, tables, barriers with counts.
#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

const std::string kStore = "\nmul.wide.u32 %d1, %t, 4; add.u64 %d1, %out, %d1; st.global.u32 [%d1], %r9;";

void test_branches() {
  // Loops of different lengths per lane, with a shuffle after they meet.
  const std::vector<uint32_t> sums = run_words(module_text(R"(
    mov.u32 %r9, 0; mov.u32 %r1, 0;
    loop: setp.ge.u32 %p1, %r1, %t; @%p1 bra out; add.u32 %r9, %r9, %r1; add.u32 %r1, %r1, 1; bra.uni loop;
    out: shfl.sync.bfly.b32 %r2, %r9, 1, 31, -1; add.u32 %r9, %r9, %r2;)" +
                                                           kStore),
                                               1, 32, 32);
  bool right = true;
  for (uint32_t t = 0; t < 32; ++t) {
    const uint32_t other = t ^ 1;
    right = right && sums[t] == t * (t - 1) / 2 + other * (other - 1) / 2;
  }
  check(right, "a loop with a divergent end, then a shuffle");
  const std::vector<uint32_t> odd = run_words(
      module_text("mov.u32 %r9, 1; and.b32 %r1, %t, 1; setp.eq.u32 %p1, %r1, 1; @%p1 exit; mov.u32 %r9, 2;" +
                  kStore + " @!%p1 ret;"),
      1, 32, 32);
  check(odd[0] == 2 && odd[30] == 2, "lanes that exit early leave the others running");
  // brx.idx: four ways, one of which rejoins late.
  const std::vector<uint32_t> table = run_words(module_text(R"(
    and.b32 %r1, %t, 3; mov.u32 %r9, 0;
    targets: .branchtargets zero, one, two, one;
    brx.idx %r1, targets;
    two: add.u32 %r9, %r9, 200; bra end;
    one: add.u32 %r9, %r9, 100; bra end;
    zero: add.u32 %r9, %r9, 7;
    end: add.u32 %r9, %r9, %r1;)" + kStore),
                                                1, 32, 32);
  check(table[0] == 7 && table[1] == 101 && table[2] == 202 && table[7] == 103 && table[30] == 202,
        "a branch table");
  // Half a warp waits for a flag that the other half sets: both must get turns.
  const std::vector<uint32_t> spin = run_words(module_text(R"(
    .shared .align 4 .u32 flag; setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [flag], 0; bar.sync 0;
    setp.lt.u32 %p2, %t, 16; @!%p2 bra setter;
    wait: ld.volatile.shared.u32 %r1, [flag]; setp.eq.u32 %p3, %r1, 0; @%p3 bra wait; mov.u32 %r9, %r1; bra end;
    setter: setp.eq.u32 %p4, %t, 20; mov.u32 %r9, 9; @%p4 st.volatile.shared.u32 [flag], 5; end:)" +
                                                           kStore),
                                               1, 32, 32);
  check(spin[3] == 5 && spin[20] == 9, "lanes that wait for lanes of their own warp");
}

void test_calls() {
  const std::string functions = R"(
.func (.param .b32 twice_result) twice(.param .b32 twice_x)
{ .reg .b32 %r<3>; ld.param.u32 %r1, [twice_x]; add.u32 %r2, %r1, %r1; st.param.b32 [twice_result], %r2; ret; }
.func (.param .align 8 .b8 both_result[16]) both(.param .align 8 .b8 both_x[8], .param .b64 both_y)
{ .reg .b32 %r<8>; .reg .b64 %d<3>; .reg .pred %p<2>;
  ld.param.v2.u32 {%r1, %r2}, [both_x]; ld.param.u64 %d1, [both_y]; setp.gt.u32 %p1, %r1, 10; @%p1 bra big;
  { .param .b32 a; st.param.b32 [a], %r1; .param .b32 b; call.uni (b), twice, (a); ld.param.b32 %r3, [b]; }
  bra end;
  big: mov.u32 %r3, 1000;
  end: st.param.u32 [both_result], %r3; st.param.u32 [both_result+4], %r2; st.param.u64 [both_result+8], %d1; ret; }
)";
  const std::vector<uint32_t> out = run_words(module_text(R"(
    setp.eq.u32 %p1, %t, 31; mov.u32 %r9, 77; @%p1 bra end;
    { .param .align 8 .b8 a0[8]; .param .b64 a1; .param .align 8 .b8 result[16]; cvt.u64.u32 %d2, %t;
      st.param.v2.u32 [a0], {%t, 5}; st.param.u64 [a1], %d2; call (result), both, (a0, a1);
      ld.param.u32 %r1, [result]; ld.param.u32 %r2, [result+4]; ld.param.u64 %d3, [result+8]; }
    cvt.u32.u64 %r3, %d3; add.u32 %r9, %r1, %r2; add.u32 %r9, %r9, %r3; end:)" +
                                                              kStore,
                                                          functions),
                                              1, 32, 32);
  check(out[3] == 6 + 5 + 3 && out[10] == 20 + 5 + 10 && out[11] == 1000 + 5 + 11 && out[31] == 77,
        "calls from divergent code, one within another");
  check_fault(FaultKind::bad_launch, {"recursive"}, "recursion", [] {
    run_words(module_text("call.uni again;", ".func again() { call.uni again; ret; }"), 1, 1, 1);
  });
}

void test_barriers() {
  // A producer warp and a consumer warp with counted barriers: arrive where nobody need wait.
  const std::vector<uint32_t> out = run_words(module_text(R"(
    .shared .align 4 .b8 data[128]; mov.u32 %r5, %tid.x; and.b32 %r1, %r5, 31; mov.u32 %r2, data; mad.lo.u32 %r2, %r1, 4, %r2;
    setp.ge.u32 %p1, %r5, 32; mov.u32 %r9, 0; @%p1 bra consumer;
    mul.lo.u32 %r3, %r1, 3; st.shared.u32 [%r2], %r3; bar.arrive 1, 64; bra end;
    consumer: bar.sync 1, 64; xor.b32 %r4, %r1, 1; mov.u32 %r6, data; mad.lo.u32 %r4, %r4, 4, %r6; ld.shared.u32 %r9, [%r4];
    end:)" + kStore),
                                              1, 64, 64);
  check(out[32] == 3 && out[33] == 0 && out[62] == 93, "bar.arrive and bar.sync with counts");
  const std::vector<uint32_t> red = run_words(module_text(R"(
    setp.lt.u32 %p1, %t, 40; bar.red.popc.u32 %r9, 0, %p1; bar.red.or.pred %p2, 0, %p1; bar.red.and.pred %p3, 0, !%p1;
    @%p2 add.u32 %r9, %r9, 100; @%p3 add.u32 %r9, %r9, 1000;)" +
                                                          kStore),
                                              1, 64, 64);
  check(red[0] == 140 && red[63] == 140, "bar.red");
  const std::vector<uint32_t> parts = run_words(module_text(R"(
    mov.u32 %r9, 1; setp.lt.u32 %p1, %t, 10; @%p1 bra first; barrier.sync 0; bra end; first: mov.u32 %r9, 2; barrier.sync 0; end:)" +
                                                            kStore),
                                                1, 64, 64);
  check(parts[3] == 2 && parts[11] == 1, "barrier.sync of single threads from two places");
}

}  // namespace

void test_control_flow() {
  test_branches();
  test_calls();
  test_barriers();
}

}  // namespace bitloom::ptx::testing
