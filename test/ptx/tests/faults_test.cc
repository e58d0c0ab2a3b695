// Planted faults: each must be found, whatever the schedule, and the message must say where.
#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

struct Launched {
  uint32_t grid = 1, block = 64, words_in = 256, words_out = 256;
};

// Addresses: %d1 = in + 4 t, %d2 = out + 4 t, %r1 = dynamic + 4 t (shared), %r2 = dynamic. The second warp is
// late or early depending on the schedule.
const std::string kSetup =
    "mul.wide.u32 %d1, %t, 4; add.u64 %d2, %out, %d1; add.u64 %d1, %in, %d1; mov.u32 %r2, dynamic; "
    "mad.lo.u32 %r1, %t, 4, %r2;\n.loc 1 12 1\n";

const std::string kGlobals = ".file 1 \"planted.cu\"\n.const .align 4 .u32 table[4] = {1, 2, 3, 4};\n";

void plant(const std::string& what, FaultKind kind, const std::vector<std::string>& parts,
           const std::string& body, const Launched& launched = {}) {
  for (uint64_t seed : {0, 1, 2, 3}) {
    Options options;
    options.seed = seed;
    options.max_warp_instructions = 20000;
    std::vector<std::string> all = parts;
    all.insert(all.end(), {"kernel k", "planted.cu:12", "PTX line"});
    check_fault(kind, all, what + ", seed " + std::to_string(seed), [&] {
      run_words(module_text(kSetup + body, kGlobals), launched.grid, launched.block, launched.words_out,
                std::vector<uint32_t>(launched.words_in, 1), options, 1024);
    });
  }
}
void clean(const std::string& what, const std::string& body, const Launched& launched = {}) {
  for (uint64_t seed : {0, 1, 2, 3}) {
    Options options;
    options.seed = seed;
    try {
      run_words(module_text(kSetup + body, kGlobals), launched.grid, launched.block, launched.words_out,
                std::vector<uint32_t>(launched.words_in, 1), options, 1024);
      check(true, what);
    } catch (const Fault& fault) {
      check(false, what + ": " + fault.what());
    }
  }
}

void test_addresses() {
  plant("a load past the end of a buffer", FaultKind::out_of_bounds,
        {"ld.global.u32 %r3, [%d1+772]", "warp 1", "lane 31", "0 bytes past the end of the 1024 bytes",
         "out of bounds"},
        "ld.global.u32 %r3, [%d1+772];");
  plant("a load before a buffer", FaultKind::out_of_bounds, {"lane 0", "bytes before the 1024 bytes"},
        "ld.global.u32 %r3, [%d1-4];");
  plant("a store through null", FaultKind::out_of_bounds, {"global 0x0"}, "st.global.u32 [0], %t;");
  plant("an address cut to 32 bits", FaultKind::out_of_bounds, {"near no allocation"},
        "cvt.u32.u64 %r3, %d2; st.global.u32 [%r3], %t;");
  plant("a store past shared memory", FaultKind::out_of_bounds,
        {"st.shared.u32", "offset 1024 of 1024 bytes of shared memory"}, "st.shared.u32 [%r1+1020], %t;",
        {1, 32});
  plant("an index below shared memory", FaultKind::out_of_bounds, {"offset -4"},
        "st.shared.u32 [%r1-4], %t;");
  plant("a vector load off its alignment", FaultKind::misaligned, {"lane 1", "for 16 bytes"},
        "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%d1];");
  plant("a misaligned atomic", FaultKind::misaligned, {"atom.shared.add.u32", "for 4 bytes"},
        "atom.shared.add.u32 %r3, [%r2+2], 1;");
  plant("a local array overrun", FaultKind::out_of_bounds, {"local", "offset 16"},
        ".local .align 4 .b8 depot[16]; mov.u64 %d4, depot; st.local.u32 [%d4+16], %t;");
  plant("ldmatrix past shared memory", FaultKind::out_of_bounds, {"ldmatrix", "lane 0"},
        "ldmatrix.sync.aligned.m8n8.x1.shared.b16 {%r3}, [%r2+1024];", {1, 32});
  plant("a store to constant memory", FaultKind::read_only_written, {"store to constant memory"},
        "{ .reg .b64 %c; mov.u64 %c, table; st.global.u32 [%c], 1; }");
}

void test_unwritten() {
  plant("a read of shared memory that nobody wrote", FaultKind::unwritten_read,
        {"read of unwritten memory", "4 bytes", "shared"}, "ld.shared.u32 %r3, [%r1];");
  plant("one unwritten byte of four", FaultKind::unwritten_read, {"piece 3 of the 4 bytes"},
        "st.shared.u8 [%r1], 1; st.shared.u8 [%r1+1], 1; st.shared.u8 [%r1+2], 1; ld.shared.u32 %r3, [%r1];",
        {1, 32});
  plant("a read of output before it is written", FaultKind::unwritten_read, {"global"},
        "ld.global.u32 %r3, [%d2];");
  plant("a read of local memory before it is written", FaultKind::unwritten_read, {"local byte 4"},
        ".local .align 4 .b8 depot[16]; mov.u64 %d4, depot; st.local.u32 [%d4], %t; ld.local.u32 %r3, "
        "[%d4+4];");
  clean("bytes written one by one",
        "st.shared.u8 [%r1], 1; st.shared.u8 [%r1+1], 1; st.shared.u16 [%r1+2], 1; ld.shared.u32 %r3, [%r1];",
        {1, 32});
}

void test_races() {
  const std::string other = "xor.b32 %r3, %t, 32; mad.lo.u32 %r3, %r3, 4, %r2; ",
                    write = "st.shared.u32 [%r1], %t; ", read = "ld.shared.u32 %r4, [%r3]; ";
  plant("a missing barrier between write and read", FaultKind::shared_race,
        {"with nothing that orders the two", "planted.cu:12", "warp"},
        other + "st.shared.u32 [%r1], 0; bar.sync 0; " + write + read);
  clean("the same with the barrier", other + write + "bar.sync 0; " + read);
  plant("a write after a read without a barrier", FaultKind::shared_race, {"race on shared memory"},
        other + write + "bar.sync 0; " + read + "st.shared.u32 [%r1], %r4;");
  plant("a missing __syncwarp", FaultKind::shared_race, {"written by block (0,0,0) warp 0 lane"},
        "xor.b32 %r3, %t, 1; mad.lo.u32 %r3, %r3, 4, %r2; " + write + "ld.shared.u32 %r4, [%r3];", {1, 32});
  clean("with the __syncwarp",
        "xor.b32 %r3, %t, 1; mad.lo.u32 %r3, %r3, 4, %r2; " + write +
            "bar.warp.sync -1; ld.shared.u32 %r4, [%r3];",
        {1, 32});
  plant("a __syncwarp of another half", FaultKind::shared_race, {"race on shared memory"},
        "xor.b32 %r3, %t, 16; mad.lo.u32 %r3, %r3, 4, %r2; mov.u32 %r5, 0xffff; setp.ge.u32 %p1, %t, 16; "
        "@%p1 mov.u32 %r5, 0xffff0000; " +
            write + "bar.warp.sync %r5; ld.shared.u32 %r4, [%r3];",
        {1, 32});
  plant("a shuffle is no barrier of memory", FaultKind::shared_race, {"race on shared memory"},
        "xor.b32 %r3, %t, 1; mad.lo.u32 %r3, %r3, 4, %r2; " + write +
            "shfl.sync.bfly.b32 %r5, %t, 1, 31, -1; ld.shared.u32 %r4, [%r3];",
        {1, 32});
  plant("two lanes store to one place", FaultKind::shared_race, {"written after it was written"},
        "st.shared.u32 [%r2], %t;", {1, 32});
  plant("one barrier too early", FaultKind::shared_race, {"race on shared memory"},
        other + "st.shared.u32 [%r1], 0; bar.sync 0; bar.sync 0; " + write + read);
  plant("a plain read of what others count", FaultKind::shared_race, {"atomically written"},
        "setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [%r2], 0; bar.sync 0; atom.shared.add.u32 %r3, [%r2], 1; "
        "ld.shared.u32 %r4, [%r2];");
  clean("atomics, a barrier, a plain read",
        "setp.eq.u32 %p1, %t, 0; @%p1 st.shared.u32 [%r2], 0; bar.sync 0; atom.shared.add.u32 %r3, [%r2], 1; "
        "bar.sync 0; ld.shared.u32 %r4, [%r2];");
  plant("a barrier that not all wait for", FaultKind::shared_race, {"race on shared memory"},
        other + write + "bar.sync 0; setp.ge.u32 %p1, %t, 32; " + write +
            "@%p1 bra late; bar.arrive 1, 64; bra go; late: bar.sync 1, 64; go: " + read);
  plant("two blocks store to one address", FaultKind::global_race, {"block (", "race on global memory"},
        "st.global.u32 [%out], %r2;", {2, 1});
  plant("a block reads what another writes", FaultKind::global_race, {"race on global memory"},
        "mov.u32 %r3, %ctaid.x; setp.eq.u32 %p1, %r3, 0; @%p1 st.global.u32 [%in], 3; @!%p1 ld.global.u32 "
        "%r4, [%in];",
        {2, 1});
  plant("a counter of the block's scope between blocks", FaultKind::global_race, {"race on global memory"},
        "atom.relaxed.cta.global.add.u32 %r3, [%in], 1;", {2, 1});
  clean("a counter of the device's scope", "atom.global.add.u32 %r3, [%in], 1;", {2, 64});
  plant("a read-only load of what the launch writes", FaultKind::read_only_written, {"read-only path"},
        "st.global.u32 [%d2], 1; ld.global.nc.u32 %r3, [%d2];");
}

void test_copies() {
  const std::string copy =
      "shl.b32 %r8, %t, 4; add.u32 %r8, %r8, %r2; mul.wide.u32 %d5, %t, 16; add.u64 %d5, %in, %d5; "
      "cp.async.cg.shared.global [%r8], [%d5], 16; cp.async.commit_group; ";
  const Launched one{1, 32};
  plant("use before the wait", FaultKind::use_before_wait,
        {"use of a pending copy", "copied by block (0,0,0) warp 0 lane 0 at planted.cu:12"},
        copy + "ld.shared.u32 %r3, [%r8]; cp.async.wait_all;", one);
  plant("a wait for one group too few", FaultKind::use_before_wait, {"pending copy"},
        copy + "cp.async.wait_group 1; ld.shared.u32 %r3, [%r8];", one);
  plant("a store over a pending copy", FaultKind::store_over_pending_copy, {"store over a pending copy"},
        copy + "st.shared.u32 [%r8], %t; cp.async.wait_all;", one);
  plant("a copy over a pending copy", FaultKind::store_over_pending_copy, {"store over a pending copy"},
        copy + "cp.async.ca.shared.global [%r8], [%d5], 4;", one);
  plant("another thread's copy after its wait, without a barrier", FaultKind::shared_race,
        {"race on shared memory"},
        copy +
            "cp.async.wait_all; xor.b32 %r9, %t, 1; shl.b32 %r9, %r9, 4; add.u32 %r9, %r9, %r2; "
            "ld.shared.u32 %r3, [%r9];",
        one);
  plant("the barrier before the wait", FaultKind::shared_race, {"race on shared memory"},
        copy +
            "bar.sync 0; cp.async.wait_all; xor.b32 %r9, %t, 1; shl.b32 %r9, %r9, 4; add.u32 %r9, %r9, %r2; "
            "ld.shared.u32 %r3, [%r9];",
        one);
  plant("a copy into what others still read", FaultKind::shared_race, {"race on shared memory"},
        "st.shared.u32 [%r1], 1; bar.sync 0; ld.shared.u32 %r3, [%r2]; setp.ge.u32 %p1, %t, 32; @%p1 bra "
        "over; shl.b32 %r8, %t, 4; add.u32 %r8, %r8, %r2; mul.wide.u32 %d5, %t, 16; add.u64 %d5, %in, %d5; "
        "cp.async.cg.shared.global [%r8], [%d5], 16; over: cp.async.wait_all;");
  clean("wait, then barrier",
        copy +
            "cp.async.wait_all; bar.sync 0; xor.b32 %r9, %t, 1; shl.b32 %r9, %r9, 4; add.u32 %r9, %r9, %r2; "
            "ld.shared.u32 %r3, [%r9];",
        one);
  plant("a copy past the end of its source", FaultKind::out_of_bounds, {"cp.async"}, copy, {1, 32, 100});
}

void test_divergence() {
  plant("a barrier in one branch of a warp", FaultKind::divergent_barrier, {"divergent barrier"},
        "setp.lt.u32 %p1, %t, 16; @%p1 bra over; bar.sync 0; over: ");
  plant("a barrier under a guard", FaultKind::divergent_barrier, {"guard"},
        "setp.lt.u32 %p1, %t, 16; @%p1 bar.sync 0;");
  plant("a barrier after some have exited", FaultKind::divergent_barrier,
        {"32 threads of the block have exited"}, "setp.lt.u32 %p1, %t, 32; @%p1 exit; bar.sync 0;");
  plant("a barrier after lanes have exited", FaultKind::divergent_barrier, {"divergent barrier"},
        "setp.lt.u32 %p1, %t, 5; @%p1 exit; bar.sync 0;");
  plant("a shuffle that half the warp takes part in", FaultKind::divergent_collective,
        {"divergent collective"},
        "setp.lt.u32 %p1, %t, 16; @%p1 bra over; shfl.sync.bfly.b32 %r3, %t, 1, 31, -1; over: ", {1, 32});
  plant("a shuffle under a guard", FaultKind::divergent_collective, {"guard"},
        "setp.lt.u32 %p1, %t, 16; @%p1 shfl.sync.bfly.b32 %r3, %t, 1, 31, -1;", {1, 32});
  plant("a shuffle from a lane that takes no part", FaultKind::divergent_collective, {"the value of lane 16"},
        "setp.lt.u32 %p1, %t, 16; @%p1 shfl.sync.bfly.b32 %r3, %t, 16, 31, 0xffff;", {1, 32});
  plant("a vote by a lane that is no member", FaultKind::divergent_collective, {"not in its own member mask"},
        "setp.lt.u32 %p1, %t, 16; vote.sync.ballot.b32 %r3, %p1, 0xffff;", {1, 32});
  plant("a member that has exited", FaultKind::divergent_collective, {"have exited"},
        "setp.eq.u32 %p1, %t, 3; @%p1 exit; shfl.sync.bfly.b32 %r3, %t, 1, 31, -1;", {1, 32});
  plant("mma by half a warp", FaultKind::divergent_collective, {"mma.sync"},
        "setp.lt.u32 %p1, %t, 16; @%p1 mma.sync.aligned.m16n8k8.row.col.f16.f16.f16.f16 {%r3, %r4}, {%r5, "
        "%r6}, {%r7}, {%r8, %r9};",
        {1, 32});
  plant("different counts at one barrier", FaultKind::divergent_barrier, {"barrier 1 expects", "96"},
        "setp.lt.u32 %p1, %t, 32; @%p1 bra low; bar.sync 1, 96; bra end; low: bar.sync 1, 64; end:", {1, 96});
}

void test_endings() {
  plant("two warps wait at two barriers", FaultKind::deadlock, {"deadlock", "barrier 1 has 32 of 64"},
        "setp.lt.u32 %p1, %t, 32; @%p1 bra low; bar.sync 2, 64; bra end; low: bar.sync 1, 64; end:");
  plant("a loop without end", FaultKind::endless_loop, {"endless loop"},
        "again: add.u32 %r3, %r3, 1; bra again;");
  plant("a loop of barriers without end", FaultKind::endless_loop, {"endless loop"},
        "again: bar.sync 0; bra again;");
  plant("a flag that nobody raises", FaultKind::endless_loop, {"endless loop"},
        "again: ld.acquire.gpu.global.u32 %r3, [%in]; setp.ne.u32 %p1, %r3, 5; @%p1 bra again;");
  plant("trap", FaultKind::trap, {"trap", "warp 1 lane 7"}, "setp.ge.u32 %p1, %t, 39; @%p1 trap;");
  plant("an unknown instruction", FaultKind::unknown_instruction, {"tcgen05"},
        "tcgen05.wait::ld.sync.aligned;");
}

}  // namespace

void test_faults() {
  test_addresses();
  test_unwritten();
  test_races();
  test_copies();
  test_divergence();
  test_endings();
}

}  // namespace bitloom::ptx::testing
