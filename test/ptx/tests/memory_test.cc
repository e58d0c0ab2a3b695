// Loads, stores, address spaces, atomics, asynchronous copies; the device memory itself.
#include "rows.h"

namespace bitloom::ptx::testing {
namespace {

void test_spaces() {
  const Values words = integer_values(4, 20, 61);
  // Through shared, local and generic addresses and back; narrow loads extend.
  expect_rows(
      "mul.wide.u32 %d1, %t, 16; cvt.u32.u64 %r1, %d1; mov.u32 %r2, dynamic; add.u32 %r1, %r1, %r2; "
      "st.shared.u32 [%r1], $2; ld.shared.s8 $0, [%r1]; ld.shared.u16 $1, [%r1+2]",
      {bits32(), bits32()}, {bits32()}, singles(words), [](const Values& v) {
        return Values{static_cast<uint64_t>(static_cast<int64_t>(static_cast<int8_t>(v[0]))), v[0] >> 16};
      });
  expect_rows(
      "{ .local .align 8 .b8 depot[16]; mov.u64 %d1, depot; cvta.local.u64 %d2, %d1; st.local.u32 [%d1+4], "
      "$2; ld.u32 $0, [%d2+4]; isspacep.local %p1, %d2; isspacep.global %p2, %d2; selp.u32 $1, 1, 0, %p1; "
      "@%p2 mov.u32 $1, 7; }",
      {bits32(), bits32()}, {bits32()}, singles(words), [](const Values& v) { return Values{v[0], 1}; });
  expect_rows(
      "mov.u64 %d1, dynamic; cvta.shared.u64 %d2, %d1; mul.wide.u32 %d3, %t, 8; add.u64 %d2, %d2, %d3; "
      "st.u32 [%d2], $1; cvta.to.shared.u64 %d4, %d2; ld.shared.u32 $0, [%d4]",
      {bits32()}, {bits32()}, singles(words), [](const Values& v) { return v; });
  expect_rows(
      "mov.u64 %d1, k_param_1; cvta.param.u64 %d1, %d1; ld.u64 %d2, [%d1]; cvta.to.global.u64 %d2, %d2; "
      "cvta.global.u64 %d2, %d2; sub.u64 %d3, %d2, %out; cvt.u32.u64 $0, %d3; add.u32 $0, $0, $1",
      {bits32()}, {bits32()}, singles(words), [](const Values& v) { return v; });
  expect_rows(
      "ld.param.v2.u32 {%r1, %r2}, [k_param_1]; mov.b64 %d1, {%r1, %r2}; setp.eq.u64 %p1, %d1, %out; "
      "selp.u32 $0, $1, 0, %p1",
      {bits32()}, {bits32()}, singles(words), [](const Values& v) { return v; });
}

void test_vectors() {
  const Values longs = integer_values(8, 20, 62);
  expect_rows(
      "mov.b64 {%r1, %r2}, $1; mul.lo.u32 %r3, %t, 16; mov.u32 %r4, dynamic; add.u32 %r3, %r3, %r4; "
      "st.shared.v4.b32 [%r3], {%r2, %r1, %r1, %r2}; ld.shared.v2.b64 {$0, %d1}, [%r3]",
      {bits64()}, {bits64()}, singles(longs),
      [](const Values& v) { return Values{v[0] << 32 | v[0] >> 32}; });
  expect_rows(
      "mov.b64 {%h1, %h2, %h3, %h4}, $1; mul.lo.u32 %r3, %t, 8; mov.u32 %r4, dynamic; add.u32 %r3, %r3, %r4; "
      "st.shared.v4.u16 [%r3], {%h4, %h3, %h2, %h1}; ld.shared.v4.u16 {%h5, %h6, %h7, %h8}, [%r3]; mov.b64 "
      "$0, {%h5, %h6, %h7, %h8}",
      {bits64()}, {bits64()}, singles(longs), [](const Values& v) {
        return Values{v[0] << 48 | (v[0] & 0xffff0000) << 16 | (v[0] >> 16 & 0xffff0000) | v[0] >> 48};
      });
  expect_rows("mov.b64 {%r1, _}, $1; mov.u32 $0, %r1", {bits32()}, {bits64()}, singles(longs),
              [](const Values& v) { return Values{v[0] & 0xffffffff}; });
  expect_rows(
      "prefetch.global.L2 [%in]; prefetchu.L1 [%in]; applypriority.global.L2::evict_normal [%in], 128; "
      "createpolicy.fractional.L2::evict_last.b64 %d1, 1.0; "
      "ld.global.nc.L1::no_allocate.L2::cache_hint.v2.u32 {%r1, %r2}, [%din], %d1; mov.b64 $0, {%r1, %r2}; "
      "nanosleep.u32 20",
      {bits64()}, {bits64()}, singles(longs), [](const Values& v) { return v; });
  expect_rows("ldu.global.u32 $0, [%din]", {bits32()}, {bits32()}, singles(integer_values(4, 4, 63)),
              [](const Values& v) { return v; });
}

// One lane's atomic on a cell of its own that holds the first source: old and new values.
void atomic(const std::string& op, uint32_t bytes, uint64_t (*function)(uint64_t, uint64_t, uint64_t),
            const std::vector<Values>& inputs, bool cas = false) {
  const std::string bits = std::to_string(8 * bytes), third = cas ? ", $4" : "";
  const std::string place =
      "mul.lo.u32 %r3, %t, 8; mov.u32 %r4, dynamic; add.u32 %r3, %r3, %r4; st.shared.b" + bits +
      " [%r3], $2; ";
  std::vector<Column> sources(cas ? 3 : 2, {bytes});
  const auto same = [&](uint64_t a, uint64_t b) { return a == b; };
  expect_rows(
      place + "atom.shared." + op + " $0, [%r3], $3" + third + "; ld.shared.b" + bits + " $1, [%r3]",
      {{bytes}, {bytes}}, sources, inputs,
      [&](const Values& v) { return Values{v[0], function(v[0], v[1], cas ? v[2] : 0)}; }, same);
  if (cas || op.find("exch") != std::string::npos) return;
  expect_rows(
      place + "red.shared." + op + " [%r3], $3; mov.b" + bits + " $0, $2; ld.shared.b" + bits + " $1, [%r3]",
      {{bytes}, {bytes}}, sources, inputs,
      [&](const Values& v) { return Values{v[0], function(v[0], v[1], 0)}; }, same);
}

void test_atomics() {
  const std::vector<Values> words = pairs(integer_values(4, 4, 64), integer_values(4, 4, 65)),
                            longs = pairs(integer_values(8, 4, 66), integer_values(8, 4, 67));
  using U = uint64_t;
  atomic("add.u32", 4, [](U x, U y, U) { return x + y; }, words);
  atomic("add.s32", 4, [](U x, U y, U) { return x + y; }, words);
  atomic("relaxed.cta.add.u64", 8, [](U x, U y, U) { return x + y; }, longs);
  atomic("and.b32", 4, [](U x, U y, U) { return x & y; }, words);
  atomic("or.b32", 4, [](U x, U y, U) { return x | y; }, words);
  atomic("xor.b32", 4, [](U x, U y, U) { return x ^ y; }, words);
  atomic(
      "min.s32", 4,
      [](U x, U y, U) { return static_cast<U>(std::min(static_cast<int32_t>(x), static_cast<int32_t>(y))); },
      words);
  atomic("max.u32", 4, [](U x, U y, U) { return std::max(x, y); }, words);
  atomic(
      "max.s64", 8,
      [](U x, U y, U) { return static_cast<U>(std::max(static_cast<int64_t>(x), static_cast<int64_t>(y))); },
      longs);
  atomic("inc.u32", 4, [](U x, U y, U) { return x >= y ? 0 : x + 1; }, words);
  atomic("dec.u32", 4, [](U x, U y, U) { return x == 0 || x > y ? y : x - 1; }, words);
  atomic("exch.b32", 4, [](U, U y, U) { return y; }, words);
  atomic("exch.b64", 8, [](U, U y, U) { return y; }, longs);
  std::vector<Values> swaps = words;
  for (size_t i = 0; i < swaps.size(); ++i) {
    if (i % 2) swaps[i][1] = swaps[i][0];
    swaps[i].push_back(i * 77);
  }
  atomic("cas.b32", 4, [](U x, U y, U z) { return x == y ? z : x; }, swaps, true);
  atomic("acq_rel.cta.cas.b64", 8, [](U x, U y, U z) { return x == y ? z : x; }, swaps, true);
  const std::vector<Values> reals =
      pairs({bits_of(1.5f), bits_of(-2.0f), bits_of(1e20f)}, {bits_of(0.25f), bits_of(3e9f)});
  atomic("add.f32", 4, [](U x, U y, U) { return bits_of(as_f32(x) + as_f32(y)); }, reals);
  atomic(
      "add.f64", 8, [](U x, U y, U) { return bits_of(as_f64(x) + as_f64(y)); },
      pairs({bits_of(1.5), bits_of(-2.0)}, {bits_of(0.25), bits_of(3e99)}));
  atomic("add.noftz.f16x2", 4,
         [](U x, U y, U) { return x == 0x3c004000 && y == 0x3c003c00 ? U{0x40004200} : U{0}; },
         {{0x3c004000, 0x3c003c00}});
  atomic("add.noftz.bf16x2", 4,
         [](U x, U y, U) { return x == 0x3f804000 && y == 0x3f803f80 ? U{0x40004040} : U{0}; },
         {{0x3f804000, 0x3f803f80}});
  atomic("add.noftz.f16", 2, [](U, U, U) { return U{0x4000}; }, {{0x3c00, 0x3c00}});
  const std::vector<uint32_t> four = run_words(module_text(R"(
    st.global.v4.f32 [%out], {0f00000000, 0f3F800000, 0f40000000, 0f00000000}; fence.acq_rel.gpu;
    red.relaxed.gpu.global.add.v4.f32 [%out], {0f3F800000, 0f40000000, 0f40400000, 0f40800000};
    atom.global.add.v2.f32 {%f1, %f2}, [%out], {0f3F800000, 0f3F800000}; st.global.f32 [%out+16], %f2;)"),
                                               1, 1, 5);
  check(four == std::vector<uint32_t>{0x40000000, 0x40800000, 0x40a00000, 0x40800000, 0x40400000},
        "vector atomics");
}

void test_async_copies() {
  std::vector<uint32_t> words(256);
  for (uint32_t i = 0; i < 256; ++i) words[i] = i * 3 + 1;
  const std::string copy = module_text(R"(
    mul.wide.u32 %d1, %t, 16; add.u64 %d2, %in, %d1; cvt.u32.u64 %r1, %d1; mov.u32 %r2, dynamic; add.u32 %r1, %r1, %r2;
    cp.async.cg.shared.global [%r1], [%d2], 16; cp.async.commit_group;
    mul.lo.u32 %r3, %t, 8; add.u32 %r3, %r3, %r2; sub.u32 %r5, 8, %t; max.s32 %r5, %r5, 0;
    cp.async.ca.shared.global.L2::128B [%r3+1024], [%d2], 8, %r5; cp.async.commit_group;
    setp.lt.u32 %p1, %t, 3; cp.async.ca.shared.global [%r3+2048], [%d2], 4, %p1;
    cp.async.wait_group 1; ld.shared.u32 %r4, [%r1+8];
    mul.wide.u32 %d3, %t, 16; add.u64 %d3, %out, %d3; st.global.u32 [%d3], %r4;
    cp.async.wait_group 0; ld.shared.v2.u32 {%r6, %r7}, [%r3+1024]; st.global.u32 [%d3+4], %r6; st.global.u32 [%d3+8], %r7;
    cp.async.wait_all; ld.shared.u32 %r8, [%r3+2048]; st.global.u32 [%d3+12], %r8;)");
  for (CopyDelivery delivery : {CopyDelivery::poisoned, CopyDelivery::early, CopyDelivery::late}) {
    Options options;
    options.copy_delivery = delivery;
    const std::vector<uint32_t> out = run_words(copy, 1, 32, 128, words, options);
    bool right = true;
    for (uint32_t t = 0; t < 32; ++t) {
      const uint32_t size = t < 8 ? 8 - t : 0;  // bytes of the second copy, zero filled
      const uint64_t both = static_cast<uint64_t>(words[4 * t + 1]) << 32 | words[4 * t];
      const uint64_t kept = size == 8 ? both : both & ((1ull << 8 * size) - 1);
      right = right && out[4 * t] == words[4 * t + 2] && out[4 * t + 1] == static_cast<uint32_t>(kept) &&
              out[4 * t + 2] == static_cast<uint32_t>(kept >> 32) &&
              out[4 * t + 3] == (t < 3 ? 0 : words[4 * t]);
    }
    check(right, "cp.async, delivery " + std::to_string(static_cast<int>(delivery)));
  }
}

void test_device_memory() {
  DeviceMemory memory;
  const uint64_t a = memory.allocate(1000), b = memory.allocate(64);
  check(a % 256 == 0 && b >= a + 1000 + 4096 && memory.bytes_allocated() == 1064,
        "allocations are aligned and apart");
  std::vector<uint8_t> bytes(10, 7), back(10);
  memory.write(a + 990, bytes.data(), 10);
  memory.read(back.data(), a + 990, 10);
  check(back == bytes && memory.is_written(a + 990, 10) && !memory.is_written(a + 989, 2),
        "written bytes are known one by one");
  check_fault(FaultKind::bad_address, {"11 bytes", "offset 990 of the 1000 bytes"}, "a copy over the end",
              [&] { memory.write(a + 990, back.data(), 11); });
  check_fault(FaultKind::bad_address, {"1 bytes past the end"}, "a read past the end",
              [&] { memory.read(back.data(), a + 1001, 1); });
  memory.copy(b, a + 980, 20);
  check(memory.is_written(b + 10, 10) && !memory.is_written(b + 9, 1),
        "a copy knows what its source was not written");
  memory.read(back.data(), b + 10, 10);
  check(back == bytes, "a copy between allocations");
  check_fault(FaultKind::bad_address, {"copy to", "21 bytes"}, "a copy over the end of its target",
              [&] { memory.copy(b + 44, a + 900, 21); });
  memory.allocate_at(0x200000000000, 100);
  check_fault(FaultKind::bad_address, {"overlap"}, "an allocation over another",
              [&] { memory.allocate_at(0x200000000000 - 50, 51); });
  check_fault(FaultKind::bad_address, {"overlap"}, "an allocation at the end of another",
              [&] { memory.allocate_at(0x200000000000 + 100, 1); });
  memory.free(0x200000000000);
  memory.free(a);
  check_fault(FaultKind::bad_address, {"inside the freed 1000 bytes"}, "a read of freed memory",
              [&] { memory.read(back.data(), a, 1); });
  check_fault(FaultKind::bad_address, {"is no allocation"}, "a second free", [&] { memory.free(a); });
}

}  // namespace

void test_memory() {
  test_spaces();
  test_vectors();
  test_atomics();
  test_async_copies();
  test_device_memory();
}

}  // namespace bitloom::ptx::testing
