// The parser and the compiler: directives, scopes, variables, constants, errors.
#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

void test_variables() {
  const std::string globals =
      ".global .align 4 .b8 table[8] = {1, 2, 3, 4, 255};\n"
      ".const .align 4 .u32 factors[3] = {10, 0x14, 30};\n"
      ".global .align 8 .u64 pointer = generic(table+4);\n"
      ".global .f32 reals[2] = {0f3FC00000, 2.5};\n"
      ".global .align 4 .u32 counter;\n";
  const std::vector<uint32_t> words = run_words(module_text(R"(
    ld.global.u32 %r1, [table]; st.global.u32 [%out], %r1;
    ld.global.u32 %r1, [table+4]; st.global.u32 [%out+4], %r1;
    mul.wide.u32 %d1, %t, 4; mov.u64 %d2, factors; add.u64 %d2, %d2, 8; ld.const.u32 %r1, [%d2]; st.global.u32 [%out+8], %r1;
    ld.global.u64 %d3, [pointer]; ld.u8 %r1, [%d3]; st.global.u32 [%out+12], %r1;
    ld.global.u32 %r1, [reals]; st.global.u32 [%out+16], %r1;
    ld.global.u32 %r1, [reals+4]; st.global.u32 [%out+20], %r1;
    ld.global.u32 %r1, [counter]; st.global.u32 [%out+24], %r1;)",
                                                            globals),
                                                1, 1, 7);
  check(words == std::vector<uint32_t>{0x04030201, 255, 30, 255, 0x3fc00000, 0x40200000, 0},
        "initializers of variables");
}

void test_scopes() {
  const std::vector<uint32_t> words = run_words(module_text(R"(
    mov.u32 %r1, 5;
    { .reg.b32 x; mov.u32 x, 7; { .reg .b32 x; mov.u32 x, 9; add.u32 %r1, %r1, x; } add.u32 %r1, %r1, x; }
    { bra done; add.u32 %r1, %r1, 100; done: add.u32 %r1, %r1, 1; }
    { bra done; add.u32 %r1, %r1, 100; done: add.u32 %r1, %r1, 1; }
    // a comment; with a semicolon
    /* and another
       over lines */
    st.global.u32 [%out+-0], %r1; st.global.u32 [%out+4], -3; st.global.u32 [%out+8], 0x10U; mov.f32 %f1, 1.5; st.global.f32 [%out+12], %f1;
    mov.b32 %r2, 0f40000000; st.global.u32 [%out+16], %r2; mov.u64 %d1, -1; shr.u64 %d1, %d1, 60; st.global.u32 [%out+20], %d1;)"),
                                                1, 1, 6);
  check(words == std::vector<uint32_t>{23, 0xfffffffd, 16, 0x3fc00000, 0x40000000, 15},
        "scopes and constants");
}

void test_errors() {
  check_fault(FaultKind::syntax, {"PTX line 14", "syntax error"}, "an operand that is missing",
              [] { Module::parse(module_text("\nadd.u32 %r1, ;")); });
  check_fault(FaultKind::syntax, {"unknown directive '.nonsense'"}, "an unknown directive",
              [] { Module::parse(".nonsense 3;"); });
  check_fault(FaultKind::syntax, {"without end"}, "a body without end",
              [] { Module::parse(".entry k() { ret;"); });
  check_fault(FaultKind::unknown_instruction, {"frobnicate.s32 %r1, %r2", "kernel k", "PTX line 14"},
              "an unknown opcode", [] { run_words(module_text("\nfrobnicate.s32 %r1, %r2;"), 1, 1, 1); });
  check_fault(FaultKind::unknown_instruction, {"add.s32.wobble"}, "an unknown modifier",
              [] { run_words(module_text("add.s32.wobble %r1, %r2, %r3;"), 1, 1, 1); });
  check_fault(FaultKind::unknown_instruction, {"add.s32 %r1, %d1"}, "an operand of the wrong width",
              [] { run_words(module_text("add.s32 %r1, %d1, %r3;"), 1, 1, 1); });
  check(
      run_words(module_text("bra over; frobnicate.s32 %r1; over: st.global.u32 [%out], 1;"), 1, 1, 1)[0] == 1,
      "an unknown opcode that is not reached");
  Machine machine;
  const LoadedModule& module = machine.load(Module::parse(module_text("wgmma.fence.sync.aligned;")));
  check(module.program("k").unknown.size() == 1, "unknown instructions are listed before a launch");
  check_fault(FaultKind::bad_launch, {"no kernel other"}, "an unknown kernel",
              [&] { machine.launch(module, "other", {}); });
  check_fault(FaultKind::bad_launch, {"0 bytes of parameters, expected 16"}, "missing parameters",
              [&] { machine.launch(module, "k", {}); });
  check_fault(FaultKind::bad_launch, {"2048 threads"}, "too many threads",
              [&] { machine.launch(module, "k", {.block = {2048, 1, 1}}); });
  check_fault(FaultKind::bad_launch, {"shared memory"}, "too much shared memory",
              [&] { machine.launch(module, "k", {.shared_bytes = 1u << 20}); });
}

// Lines through two levels of inlining.
void test_lines() {
  const std::string files = ".file 1 \"/a/kernel.cu\"\n.file 2 \"/b/tile.h\"\n";
  check_fault(FaultKind::trap, {"tile.h:7 (inlined at kernel.cu:40), PTX line"},
              "the outermost call is named", [&] {
                run_words(module_text("\n.loc 1 40 1\n.loc 2 20 1, function_name $L__x, inlined_at 1 40 "
                                      "5\n.loc 2 7 3, function_name $L__y+12, inlined_at 2 20 1\ntrap;",
                                      files),
                          1, 1, 1);
              });
}

}  // namespace

void test_parser() {
  test_variables();
  test_scopes();
  test_errors();
  test_lines();
}

}  // namespace bitloom::ptx::testing
