// Sectors, lines, wavefronts, coverage: small access patterns whose counts are known by hand.
#include "harness.h"

namespace bitloom::ptx::testing {
namespace {

// The counts of the instructions of this opcode, executed by one warp. %r1 = dynamic, %t = lane.
InstrCount count(const std::string& body, const std::string& opcode) {
  Machine machine;
  const LoadedModule& module = machine.load(Module::parse(module_text("mov.u32 %r1, dynamic; " + body)));
  const uint64_t in = machine.memory.allocate(8192), out = machine.memory.allocate(8192);
  machine.memory.fill(in, 1, 8192);
  LaunchConfig config;
  config.block[0] = 32;
  config.shared_bytes = 8192;
  config.parameters = pack(in, out);
  config.options.check_memory = false;  // shared memory is read unwritten
  return machine.launch(module, "k", config).counters.total(opcode);
}

void expect_wavefronts(const std::string& what, const std::string& body, const std::string& opcode,
                       uint64_t wavefronts, uint64_t ideal) {
  const InstrCount c = count(body, opcode);
  check(c.wavefronts == wavefronts && c.ideal_wavefronts == ideal,
        what + ": " + std::to_string(c.wavefronts) + " wavefronts, ideal " +
            std::to_string(c.ideal_wavefronts));
}

void expect_sectors(const std::string& what, const std::string& body, uint64_t sectors, uint64_t lines,
                    uint64_t bytes, uint64_t used_bytes) {
  const InstrCount c = count(body, "ld.global");
  check(c.requests == 1 && c.sectors == sectors && c.lines == lines && c.bytes == bytes &&
            c.used_bytes == used_bytes,
        what + ": " + std::to_string(c.sectors) + " sectors, " + std::to_string(c.lines) + " lines, " +
            std::to_string(c.bytes) + " bytes, " + std::to_string(c.used_bytes) + " used");
}

std::string shared(const std::string& stride, const std::string& load) {
  return "mad.lo.u32 %r2, %t, " + stride + ", %r1; " + load;
}
std::string global(const std::string& stride, const std::string& load) {
  return "mul.wide.u32 %d1, %t, " + stride + "; add.u64 %d1, %in, %d1; " + load;
}

}  // namespace

void test_counters() {
  expect_wavefronts("consecutive words", shared("4", "ld.shared.u32 %r3, [%r2];"), "ld.shared", 1, 1);
  expect_wavefronts("one word for all", shared("0", "ld.shared.u32 %r3, [%r2];"), "ld.shared", 1, 1);
  expect_wavefronts("every second word", shared("8", "ld.shared.u32 %r3, [%r2];"), "ld.shared", 2, 1);
  expect_wavefronts("one bank", shared("128", "ld.shared.u32 %r3, [%r2];"), "ld.shared", 32, 1);
  expect_wavefronts("padded rows", shared("132", "ld.shared.u32 %r3, [%r2];"), "ld.shared", 1, 1);
  expect_wavefronts("consecutive halves", shared("2", "ld.shared.u16 %h3, [%r2];"), "ld.shared", 1, 1);
  expect_wavefronts("consecutive pairs of words", shared("8", "ld.shared.v2.u32 {%r3, %r4}, [%r2];"),
                    "ld.shared", 2, 2);
  expect_wavefronts("consecutive 16 bytes", shared("16", "st.shared.v4.u32 [%r2], {%r3, %r4, %r5, %r6};"),
                    "st.shared", 4, 4);
  expect_wavefronts("16 bytes of rows of 128", shared("128", "ld.shared.v4.u32 {%r3, %r4, %r5, %r6}, [%r2];"),
                    "ld.shared", 32, 4);
  expect_wavefronts("ldmatrix of rows of 64",
                    shared("64", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r3, %r4, %r5, %r6}, [%r2];"),
                    "ldmatrix", 16, 4);
  expect_wavefronts("ldmatrix of rows of 80",
                    shared("80", "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%r3, %r4, %r5, %r6}, [%r2];"),
                    "ldmatrix", 4, 4);
  expect_sectors("consecutive words", global("4", "ld.global.u32 %r3, [%d1];"), 4, 1, 128, 128);
  expect_sectors("words off a line's start", global("4", "ld.global.u32 %r3, [%d1+16];"), 5, 2, 128, 128);
  expect_sectors("a word per line", global("128", "ld.global.u32 %r3, [%d1];"), 32, 32, 128, 128);
  expect_sectors("one word for all", global("0", "ld.global.u32 %r3, [%d1];"), 1, 1, 128, 4);
  expect_sectors("16 bytes each", global("16", "ld.global.v4.u32 {%r3, %r4, %r5, %r6}, [%d1];"), 16, 4, 512,
                 512);
  expect_sectors("the first eight lanes",
                 global("4", "setp.lt.u32 %p1, %t, 8; @%p1 ld.global.u32 %r3, [%d1];"), 1, 1, 32, 32);

  Machine machine;
  const LoadedModule& module = machine.load(
      Module::parse(module_text("\n.loc 1 5 1\nsetp.gt.u32 %p1, %t, 99; @%p1 bra rare; add.u32 %r2, %r2, 1; "
                                "add.u32 %r2, %r2, 1; bra end;\n.loc 1 9 1\nrare: add.u32 %r2, %r2, 5; end:",
                                ".file 1 \"a.cu\"\n")));
  LaunchConfig config;
  config.block[0] = 64;
  const uint64_t buffer = machine.memory.allocate(16);
  config.parameters = pack(buffer, buffer);
  const LaunchReport report = machine.launch(module, "k", config);
  check(report.counters.never_executed().size() == 1, "one instruction is never executed");
  check(report.counters.by_opcode().at("add.u32") == 4, "instructions by opcode");
  check(report.counters.by_line().at("a.cu:5") == 10 && report.counters.by_line().at("a.cu:9") == 2,
        "instructions by line");
  check(report.counters.report().find("kernel k: 18 warp instructions") == 0,
        "the report's head: " + report.counters.report());
}

}  // namespace bitloom::ptx::testing
