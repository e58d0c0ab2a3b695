// mma in every shape, ldmatrix, stmatrix, movmatrix. The layouts are written out here from the tables of the
// ISA, shape by shape, and not with the interpreter's rule.
#include <algorithm>
#include <bit>

#include "small_floats.h"

namespace bitloom::ptx::testing {
namespace {

struct Place {
  int row, column;
};

// ISA: "Matrix Fragments for mma.m16n8k16 with floating point type", .f16 and .bf16: a0..a7.
Place a_of_16(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {(i < 2 || (i >= 4 && i < 6)) ? group : group + 8,
          (i < 4 ? thread * 2 + (i & 1) : thread * 2 + (i & 1) + 8)};
}
Place b_of_16(int lane, int i) {
  return {i < 2 ? (lane % 4) * 2 + (i & 1) : (lane % 4) * 2 + (i & 1) + 8, lane >> 2};
}
// m16n8k8 with .f16: a0..a3, b0..b1.
Place a_of_8(int lane, int i) { return {i < 2 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 2 + (i & 1)}; }
Place b_of_8(int lane, int i) { return {(lane % 4) * 2 + i, lane >> 2}; }
// m16n8k8 with .tf32: a0..a3, b0..b1.
Place a_of_tf32(int lane, int i) {
  return {i % 2 == 0 ? lane >> 2 : (lane >> 2) + 8, i < 2 ? lane % 4 : lane % 4 + 4};
}
Place b_of_tf32(int lane, int i) { return {i == 0 ? lane % 4 : lane % 4 + 4, lane >> 2}; }
// m16n8k32 with .u8, .s8 and fp8: a0..a15, b0..b7.
Place a_of_bytes(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {(i < 4 || (i >= 8 && i < 12)) ? group : group + 8,
          i < 8 ? thread * 4 + (i & 3) : thread * 4 + (i & 3) + 16};
}
Place b_of_bytes(int lane, int i) {
  return {i < 4 ? (lane % 4) * 4 + (i & 3) : (lane % 4) * 4 + (i & 3) + 16, lane >> 2};
}
// m16n8k64 with .u4 and .s4: a0..a31, b0..b15.
Place a_of_nibbles(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {(i < 8 || (i >= 16 && i < 24)) ? group : group + 8,
          i < 16 ? thread * 8 + (i & 7) : thread * 8 + (i & 7) + 32};
}
Place b_of_nibbles(int lane, int i) {
  return {i < 8 ? (lane % 4) * 8 + (i & 7) : (lane % 4) * 8 + (i & 7) + 32, lane >> 2};
}
// m16n8k16 with bytes: a0..a7, b0..b3. m16n8k256 with bits is tested by its popc below.
Place a_of_bytes_16(int lane, int i) {
  return {i < 4 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 4 + (i & 3)};
}
Place b_of_bytes_16(int lane, int i) { return {(lane % 4) * 4 + i, lane >> 2}; }
Place a_of_bits(int lane, int i) {
  const int group = lane >> 2, thread = lane % 4;
  return {(i < 32 || (i >= 64 && i < 96)) ? group : group + 8,
          i < 64 ? thread * 32 + (i & 31) : thread * 32 + (i & 31) + 128};
}
Place b_of_bits(int lane, int i) {
  return {i < 32 ? (lane % 4) * 32 + (i & 31) : (lane % 4) * 32 + (i & 31) + 128, lane >> 2};
}
Place c_of(int lane, int i) { return {i < 2 ? lane >> 2 : (lane >> 2) + 8, (lane % 4) * 2 + (i & 1)}; }

double value_of(const std::string& type, uint64_t bits) {
  if (type == "f16") return f16_format().value(bits);
  if (type == "bf16") return bf16_format().value(bits);
  if (type == "e4m3") return e4m3_format().value(bits);
  if (type == "e5m2") return e5m2_format().value(bits);
  if (type == "tf32") return as_f32(bits & 0xffffe000);
  if (type == "s8") return static_cast<int8_t>(bits);
  if (type == "s4") return static_cast<int32_t>(static_cast<uint32_t>(bits) << 28) >> 28;
  return static_cast<double>(bits);
}

struct Shape {
  std::string text;  // after mma.sync.aligned.
  int depth, bits;
  std::string a, b, d;
  Place (*a_place)(int, int);
  Place (*b_place)(int, int);
};

void multiply(const Shape& shape) {
  Random random(shape.text.size() * 31 + static_cast<size_t>(shape.depth));
  const int per_register = 32 / shape.bits, a_count = 16 * shape.depth / 32, b_count = 8 * shape.depth / 32;
  const int a_registers = a_count / per_register, b_registers = b_count / per_register;
  const bool half = shape.d == "f16", integer = shape.d == "s32", popc = shape.bits == 1;
  const int c_registers = half ? 2 : 4;
  std::vector<std::vector<double>> a(16, std::vector<double>(static_cast<size_t>(shape.depth))),
      b(static_cast<size_t>(shape.depth), std::vector<double>(8)), c(16, std::vector<double>(8));
  const auto element = [&](const std::string& type) -> uint64_t {
    if (type == "f16") return f16_format().nearest(random.uniform());
    if (type == "bf16") return bf16_format().nearest(random.uniform());
    if (type == "e4m3" || type == "e5m2") return (random.next() & 0x80) | (0x20 + random.next() % 0x1c);
    if (type == "tf32") return bits_of(random.uniform());
    return random.next() & ((1ull << shape.bits) - 1);
  };
  std::vector<Values> rows(32);
  for (int lane = 0; lane < 32; ++lane) {
    Values& row = rows[static_cast<size_t>(lane)];
    const auto fill = [&](int registers, int count, Place (*place)(int, int), const std::string& type,
                          auto& matrix) {
      Values words(static_cast<size_t>(registers), 0);
      for (int i = 0; i < count; ++i) {
        const uint64_t bits = element(type);
        words[static_cast<size_t>(i / per_register)] |= bits << (shape.bits * (i % per_register));
        const Place p = place(lane, i);
        matrix[static_cast<size_t>(p.row)][static_cast<size_t>(p.column)] = value_of(type, bits);
      }
      row.insert(row.end(), words.begin(), words.end());
    };
    fill(a_registers, a_count, shape.a_place, shape.a, a);
    fill(b_registers, b_count, shape.b_place, shape.b, b);
    Values words(static_cast<size_t>(c_registers), 0);
    for (int i = 0; i < 4; ++i) {
      const Place p = c_of(lane, i);
      uint64_t bits = integer ? random.next() % 1000
                      : half  ? f16_format().nearest(random.uniform())
                              : bits_of(random.uniform());
      c[static_cast<size_t>(p.row)][static_cast<size_t>(p.column)] = integer ? static_cast<double>(bits)
                                                                     : half  ? f16_format().value(bits)
                                                                             : as_f32(bits);
      half ? words[static_cast<size_t>(i / 2)] |= bits << 16 * (i % 2) : words[static_cast<size_t>(i)] = bits;
    }
    row.insert(row.end(), words.begin(), words.end());
  }
  // run_rows names at most ten operands, so the registers are loaded by hand: word w of a lane is at %in +
  // lane * 128 + 4 w.
  std::string body =
      "mul.wide.u32 %d1, %t, 128; add.u64 %d2, %in, %d1; add.u64 %d3, %out, %d1;\n.reg .b32 %w<20>, %x<4>;\n";
  std::string operands[3];
  int word = 0;
  const int counts[3] = {a_registers, b_registers, c_registers};
  for (int part = 0; part < 3; ++part) {
    for (int i = 0; i < counts[part]; ++i, ++word) {
      body += "ld.global.u32 %w" + std::to_string(word) + ", [%d2+" + std::to_string(4 * word) + "];\n";
      operands[part] += (i ? ", %w" : "%w") + std::to_string(word);
    }
  }
  body += "mma.sync.aligned." + shape.text + " {%x0, %x1" + (half ? "" : ", %x2, %x3") + "}, {" +
          operands[0] + "}, {" + operands[1] + "}, {" + operands[2] + "};\n";
  for (int i = 0; i < c_registers; ++i)
    body += "st.global.u32 [%d3+" + std::to_string(4 * i) + "], %x" + std::to_string(i) + ";\n";
  std::vector<uint32_t> in(32 * 32, 0);
  for (size_t lane = 0; lane < 32; ++lane) {
    for (size_t w = 0; w < rows[lane].size(); ++w) in[lane * 32 + w] = static_cast<uint32_t>(rows[lane][w]);
  }
  for (uint32_t block : {0u, 4u, 16u}) {
    Options options;
    options.mma_block = block;
    const std::vector<uint32_t> out = run_words(module_text(body), 1, 32, 32 * 32, in, options);
    bool right = true;
    for (int lane = 0; lane < 32; ++lane) {
      for (int i = 0; i < 4; ++i) {
        const Place p = c_of(lane, i);
        double sum = c[static_cast<size_t>(p.row)][static_cast<size_t>(p.column)], size = std::fabs(sum);
        for (size_t k = 0; k < static_cast<size_t>(shape.depth); ++k) {
          const double x = a[static_cast<size_t>(p.row)][k], y = b[k][static_cast<size_t>(p.column)];
          const double product =
              popc && shape.text.find("xor") != std::string::npos ? static_cast<double>(x != y) : x * y;
          sum += product;
          size += std::fabs(product);
        }
        const uint32_t bits = out[static_cast<size_t>(lane) * 32 + static_cast<size_t>(half ? i / 2 : i)];
        const double got = half      ? f16_format().value(bits >> 16 * (i % 2) & 0xffff)
                           : integer ? static_cast<double>(static_cast<int32_t>(bits))
                                     : as_f32(bits);
        // Cut sums lose at most a unit of 2^-24 of the largest term per term.
        const double bound = block == 0 ? 0 : size * std::ldexp(1.0, -21);
        const double nearest = half      ? f16_format().value(f16_format().nearest(sum))
                               : integer ? sum
                                         : static_cast<float>(sum);
        right = right && (half && block ? std::fabs(got - sum) <= bound + std::fabs(sum) * 0x1p-10
                                        : std::fabs(got - nearest) <= bound);
      }
    }
    check(right, "mma " + shape.text + ", sums of " + std::to_string(block));
  }
}

void test_mma() {
  const Shape shapes[] = {
      {"m16n8k16.row.col.f32.f16.f16.f32", 16, 16, "f16", "f16", "f32", a_of_16, b_of_16},
      {"m16n8k16.row.col.f16.f16.f16.f16", 16, 16, "f16", "f16", "f16", a_of_16, b_of_16},
      {"m16n8k16.row.col.f32.bf16.bf16.f32", 16, 16, "bf16", "bf16", "f32", a_of_16, b_of_16},
      {"m16n8k8.row.col.f32.f16.f16.f32", 8, 16, "f16", "f16", "f32", a_of_8, b_of_8},
      {"m16n8k8.row.col.f32.bf16.bf16.f32", 8, 16, "bf16", "bf16", "f32", a_of_8, b_of_8},
      {"m16n8k8.row.col.f32.tf32.tf32.f32", 8, 32, "tf32", "tf32", "f32", a_of_tf32, b_of_tf32},
      {"m16n8k32.row.col.f32.e4m3.e4m3.f32", 32, 8, "e4m3", "e4m3", "f32", a_of_bytes, b_of_bytes},
      {"m16n8k32.row.col.kind::f8f6f4.f32.e5m2.e4m3.f32", 32, 8, "e5m2", "e4m3", "f32", a_of_bytes,
       b_of_bytes},
      {"m16n8k32.row.col.s32.s8.s8.s32", 32, 8, "s8", "s8", "s32", a_of_bytes, b_of_bytes},
      {"m16n8k32.row.col.satfinite.s32.u8.s8.s32", 32, 8, "u8", "s8", "s32", a_of_bytes, b_of_bytes},
      {"m16n8k16.row.col.s32.s8.u8.s32", 16, 8, "s8", "u8", "s32", a_of_bytes_16, b_of_bytes_16},
      {"m16n8k64.row.col.s32.s4.s4.s32", 64, 4, "s4", "s4", "s32", a_of_nibbles, b_of_nibbles},
      {"m16n8k64.row.col.s32.u4.s4.s32", 64, 4, "u4", "s4", "s32", a_of_nibbles, b_of_nibbles},
      {"m16n8k256.row.col.s32.b1.b1.s32.xor.popc", 256, 1, "b1", "b1", "s32", a_of_bits, b_of_bits},
      {"m16n8k256.row.col.s32.b1.b1.s32.and.popc", 256, 1, "b1", "b1", "s32", a_of_bits, b_of_bits}};
  for (const Shape& shape : shapes) multiply(shape);
}

// ISA "ldmatrix": thread t holds row t / 4, elements 2 (t % 4) and the next; .trans loads in column-major.
void test_matrix_moves() {
  // Element e of row r of matrix m is m * 64 + r * 8 + e. Word w of the input holds elements 2 w and 2 w + 1.
  std::vector<uint32_t> in(128);
  for (uint32_t w = 0; w < 128; ++w) in[w] = (2 * w) | (2 * w + 1) << 16;
  const std::string fill =
      "mul.wide.u32 %d1, %t, 16; add.u64 %d2, %in, %d1; ld.global.v4.u32 {%r1, %r2, %r3, %r4}, [%d2]; "
      "cvt.u32.u64 %r5, %d1; mov.u32 %r6, dynamic; add.u32 %r5, %r5, %r6; st.shared.v4.u32 [%r5], {%r1, %r2, "
      "%r3, %r4}; bar.warp.sync -1;\n";
  for (bool transposed : {false, true}) {
    const std::string trans = transposed ? ".trans" : "";
    for (int count : {1, 2, 4}) {
      const std::string registers = count == 1   ? "{%r10}"
                                    : count == 2 ? "{%r10, %r11}"
                                                 : "{%r10, %r11, %r12, %r13}";
      const std::string x = ".x" + std::to_string(count);
      std::string body =
          fill + "mov.u32 %r11, 0; mov.u32 %r12, 0; mov.u32 %r13, 0; ldmatrix.sync.aligned.m8n8" + x + trans +
          ".shared.b16 " + registers +
          ", [%r5];\nadd.u64 %d3, %out, %d1; st.global.v4.u32 [%d3], {%r10, %r11, %r12, %r13};";
      const std::vector<uint32_t> out = run_words(module_text(body), 1, 32, 128, in);
      bool right = true;
      for (uint32_t lane = 0; lane < 32; ++lane) {
        for (uint32_t m = 0; m < static_cast<uint32_t>(count); ++m) {
          const uint32_t i = lane / 4, j = lane % 4 * 2;
          const uint32_t low = m * 64 + (transposed ? j * 8 + i : i * 8 + j),
                         high = m * 64 + (transposed ? (j + 1) * 8 + i : i * 8 + j + 1);
          right = right && out[lane * 4 + m] == (low | high << 16);
        }
      }
      check(right, "ldmatrix" + x + trans);
      // Stored back the same way, the matrices are where they were; the other way, transposed.
      body = fill + "ldmatrix.sync.aligned.m8n8" + x + trans + ".shared.b16 " + registers +
             ", [%r5]; bar.warp.sync -1; stmatrix.sync.aligned.m8n8" + x + trans +
             ".shared.b16 [%r5+1024], " + registers + "; bar.warp.sync -1; mov.u32 %r7, " +
             std::to_string(8 * count) +
             "; setp.ge.u32 %p1, %t, %r7; @%p1 bra over; ld.shared.v4.u32 {%r1, %r2, %r3, %r4}, [%r5+1024]; "
             "add.u64 %d3, %out, %d1; st.global.v4.u32 [%d3], {%r1, %r2, %r3, %r4}; over:";
      const std::vector<uint32_t> back = run_words(module_text(body), 1, 32, 128, in);
      check(std::equal(back.begin(), back.begin() + 32 * count, in.begin()), "stmatrix" + x + trans);
    }
  }
  const std::vector<uint32_t> moved =
      run_words(module_text(fill + "mul.lo.u32 %r7, %t, 4; add.u32 %r7, %r7, %r6; ld.shared.u32 %r8, [%r7]; "
                                   "movmatrix.sync.aligned.m8n8.trans.b16 %r9, %r8; mul.wide.u32 %d4, %t, 4; "
                                   "add.u64 %d3, %out, %d4; st.global.u32 [%d3], %r9;"),
                1, 32, 32, in);
  bool right = true;
  for (uint32_t lane = 0; lane < 32; ++lane)
    right =
        right && moved[lane] == ((lane % 4 * 2 * 8 + lane / 4) | ((lane % 4 * 2 + 1) * 8 + lane / 4) << 16);
  check(right, "movmatrix");
}

}  // namespace

void test_matrices() {
  test_mma();
  test_matrix_moves();
}

}  // namespace bitloom::ptx::testing
