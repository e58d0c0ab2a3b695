// Control flow and barriers: only bound here, the scheduler executes them.
#include "access.h"
#include "binder.h"
#include "scheduler.h"

namespace bitloom::ptx {
namespace {

void run_trap(Warp& warp, const Instr&) {
  warp.launch->fail(FaultKind::trap, warp, std::countr_zero(warp.active), "trap");
}
void run_warp_sync(Warp& warp, const Instr&) { synchronize_lanes(warp, warp.active); }

}  // namespace

void bind_bra(Binder& b) {
  b.has("uni");
  if (b.count() != 1 || b.operand(0).kind != Operand::label) b.fail("label");
  b.instr.flow = Flow::branch;
  b.instr.target = static_cast<uint32_t>(b.operand(0).index);
}

// brx.idx index, table: the slots that follow the index are constants, the targets relative to this
// instruction.
void bind_brx(Binder& b) {
  if (!b.has("idx") || b.count() != 2 || b.operand(1).kind != Operand::label) b.fail("form");
  b.has("uni");
  b.source(b.operand(0), 4);
  b.instr.flow = Flow::branch_table;
  b.instr.target = static_cast<uint32_t>(b.operand(1).index);
}

// The table of brx.idx: its slots are rows of the targets. A directive: nothing happens where it stands.
void bind_branchtargets(Binder& b) {
  for (size_t i = 0; i < b.count(); ++i) {
    if (b.operand(i).kind != Operand::label) b.fail("label");
    Operand target;
    target.kind = Operand::integer;
    target.bits = static_cast<uint64_t>(b.operand(i).index);
    b.source(target, 4);
  }
  b.instr.run = [](Warp&, const Instr&) {};
}

void bind_call(Binder& b) { b.fail("call"); }  // the compiler binds calls

void bind_ret(Binder& b) {
  b.has("uni");
  b.instr.flow = Flow::ret;
}

void bind_exit(Binder& b) { b.instr.flow = Flow::exit; }
void bind_trap(Binder& b) { b.instr.run = run_trap; }

void bind_bar(Binder& b) {
  b.has("cta");
  if (b.has("warp")) {
    if (!b.has("sync")) b.fail("form");
    b.source(b.operand(0), 4);
    b.instr.flow = Flow::collective;
    b.instr.members = 0;
    b.instr.run = run_warp_sync;
    return;
  }
  b.instr.flow = Flow::barrier;
  b.instr.b = b.statement.opcode == "bar" || b.has("aligned");  // bar.x is barrier.x.aligned
  size_t first = 0;
  if (b.has("sync")) {
    b.instr.a = barrier_sync;
  } else if (b.has("arrive")) {
    b.instr.a = barrier_arrive;
  } else if (b.has("red")) {
    b.instr.a = b.has("popc") ? barrier_popc : b.has("and") ? barrier_and : barrier_or;
    if (b.instr.a == barrier_or && !b.has("or")) b.fail("reduction");
    const Type type = b.type();
    if (type != (b.instr.a == barrier_popc ? Type::u32 : Type::pred)) b.fail("type");
    first = 1;
  } else {
    b.fail("form");
  }
  const size_t last = b.count() - first;  // red: d, id, [count,] predicate
  b.source(b.operand(first), 4);
  const bool counted = last >= (first ? 3u : 2u);
  counted ? b.source(b.operand(first + 1), 4) : b.absent();
  if (b.instr.a == barrier_arrive && !counted) b.fail("count of arrivals");
  if (first) {
    b.instr.a == barrier_popc ? b.dest(b.operand(0), 4) : b.dest_predicate(b.operand(0));
    b.source_predicate(b.operand(b.count() - 1));
  }
}

}  // namespace bitloom::ptx
