// ldmatrix, stmatrix, movmatrix: 8 x 8 matrices of 16-bit elements, a row (16 bytes) per address. PTX ISA
// "Warp-level matrix load/store instructions". Of a matrix, lane l holds row l / 4, columns 2 (l % 4) and the
// next; transposed, lane l holds column l / 4, rows 2 (l % 4) and the next.
#include <cstring>

#include "access.h"
#include "binder.h"
#include "memory_modifiers.h"

namespace bitloom::ptx {
namespace {

using Matrix = uint16_t[8][8];

uint32_t fragment(const Matrix& m, uint32_t lane, bool transposed) {
  const uint32_t i = lane / 4, j = lane % 4 * 2;
  const uint32_t low = transposed ? m[j][i] : m[i][j], high = transposed ? m[j + 1][i] : m[i][j + 1];
  return low | high << 16;
}

void set_fragment(Matrix& m, uint32_t lane, bool transposed, uint32_t value) {
  const uint32_t i = lane / 4, j = lane % 4 * 2;
  (transposed ? m[j][i] : m[i][j]) = static_cast<uint16_t>(value);
  (transposed ? m[j + 1][i] : m[i][j + 1]) = static_cast<uint16_t>(value >> 16);
}

// Slots: address, then a register per matrix. Instr: a = matrices, b = 1 if transposed.
void run_ldmatrix(Warp& warp, const Instr& in) {
  uint64_t address[32];
  read_addresses(warp, in.slots[0], address);
  const uint32_t givers = in.a == 4 ? kAllLanes : (1u << 8 * in.a) - 1;
  AccessMode mode;
  mode.reads = true;
  count_request(warp, Space::shared, address, givers, 16);
  Accessor memory(warp, in.space, mode);
  for (uint32_t m = 0; m < in.a; ++m) {
    Matrix matrix;
    for (uint32_t i = 0; i < 8; ++i) std::memcpy(matrix[i], memory.at(m * 8 + i, address[m * 8 + i], 16), 16);
    uint32_t* d = row<uint32_t>(warp, in.slots[1 + m]);
    for (uint32_t lane = 0; lane < 32; ++lane) d[lane] = fragment(matrix, lane, in.b);
  }
}

void run_stmatrix(Warp& warp, const Instr& in) {
  uint64_t address[32];
  read_addresses(warp, in.slots[0], address);
  AccessMode mode;
  mode.writes = true;
  count_request(warp, Space::shared, address, in.a == 4 ? kAllLanes : (1u << 8 * in.a) - 1, 16);
  Accessor memory(warp, in.space, mode);
  for (uint32_t m = 0; m < in.a; ++m) {
    Matrix matrix;
    const uint32_t* s = row<uint32_t>(warp, in.slots[1 + m]);
    for (uint32_t lane = 0; lane < 32; ++lane) set_fragment(matrix, lane, in.b, s[lane]);
    for (uint32_t i = 0; i < 8; ++i) std::memcpy(memory.at(m * 8 + i, address[m * 8 + i], 16), matrix[i], 16);
  }
}

void run_movmatrix(Warp& warp, const Instr& in) {
  Matrix matrix;
  uint32_t* d = row<uint32_t>(warp, in.slots[0]);
  const uint32_t* s = row<uint32_t>(warp, in.slots[1]);
  for (uint32_t lane = 0; lane < 32; ++lane) set_fragment(matrix, lane, false, s[lane]);
  for (uint32_t lane = 0; lane < 32; ++lane) d[lane] = fragment(matrix, lane, true);
}

void bind_matrix(Binder& b, bool load) {
  if (!b.has("sync") || !b.has("aligned") || !b.has("m8n8")) b.fail("form");
  b.instr.a = b.has("x4") ? 4 : b.has("x2") ? 2 : b.has("x1") ? 1 : 0;
  b.instr.b = b.has("trans");
  b.instr.space = take_space(b);
  if (b.instr.a == 0 || b.type() != Type::b16 || b.count() != 2) b.fail("form");
  if (b.instr.space != Space::shared && b.instr.space != Space::generic) b.fail("space");
  const Operand& values = b.operand(load ? 0 : 1);
  b.address(b.operand(load ? 1 : 0));
  if ((values.kind == Operand::vector ? values.elements.size() : 1) != b.instr.a)
    b.fail("number of registers");
  const auto value = [&](const Operand& operand) { load ? b.dest(operand, 4) : b.source(operand, 4); };
  if (values.kind == Operand::vector) {
    for (const Operand& element : values.elements) value(element);
  } else {
    value(values);
  }
  b.instr.flow = Flow::collective;
  b.instr.members = kWholeWarp;
  b.instr.run = load ? run_ldmatrix : run_stmatrix;
}

}  // namespace

void bind_ldmatrix(Binder& b) { bind_matrix(b, true); }
void bind_stmatrix(Binder& b) { bind_matrix(b, false); }

void bind_movmatrix(Binder& b) {
  if (!b.has("sync") || !b.has("aligned") || !b.has("m8n8") || !b.has("trans") || b.type() != Type::b16)
    b.fail("form");
  b.dest(b.operand(0), 4);
  b.source(b.operand(1), 4);
  b.instr.flow = Flow::collective;
  b.instr.members = kWholeWarp;
  b.instr.run = run_movmatrix;
}

}  // namespace bitloom::ptx
