// Selection: PTX ISA "Comparison and Selection Instructions": selp, slct; testp.
#include <cmath>

#include "by_type.h"

namespace bitloom::ptx {
namespace {

template <typename T>
T op_slct(T x, T y, int32_t z) {
  return z >= 0 ? x : y;
}
template <typename T>
T op_slct_float(T x, T y, float z) {
  return z >= 0 ? x : y;
}

template <typename T>
void run_selp(Warp& warp, const Instr& in) {
  T* d = row<T>(warp, in.slots[0]);
  const T* x = row<T>(warp, in.slots[1]);
  const T* y = row<T>(warp, in.slots[2]);
  const uint32_t choice = predicate(warp, in.slots[3]);
  each_lane(warp.active, [&](uint32_t lane) { d[lane] = choice >> lane & 1 ? x[lane] : y[lane]; });
}

template <typename T>
void run_testp(Warp& warp, const Instr& in) {
  const T* x = row<T>(warp, in.slots[1]);
  uint32_t mask = 0;
  for (uint32_t lane = 0; lane < 32; ++lane) {
    const int kind = std::fpclassify(x[lane]);
    bool yes = false;
    switch (in.a) {
      case 0:
        yes = kind != FP_INFINITE && kind != FP_NAN;
        break;
      case 1:
        yes = kind == FP_INFINITE;
        break;
      case 2:
        yes = kind != FP_NAN;
        break;
      case 3:
        yes = kind == FP_NAN;
        break;
      case 4:
        yes = kind == FP_NORMAL;
        break;
      case 5:
        yes = kind == FP_SUBNORMAL;
        break;
      default:
        break;
    }
    mask |= uint32_t{yes} << lane;
  }
  set_predicate(warp, in.slots[0], mask);
}

}  // namespace

void bind_selp(Binder& b) {
  const Type type = b.type();
  const uint32_t bytes = type_bytes(type);
  b.dest(b.operand(0), bytes);
  b.source(b.operand(1), bytes, type_class(type) == 'f');
  b.source(b.operand(2), bytes, type_class(type) == 'f');
  b.source_predicate(b.operand(3));
  b.instr.run = bytes == 2   ? run_selp<uint16_t>
                : bytes == 4 ? run_selp<uint32_t>
                : bytes == 8 ? run_selp<uint64_t>
                             : nullptr;
}

void bind_slct(Binder& b) {
  b.has("ftz");
  const uint32_t bytes = type_bytes(b.type());
  const Type selector = b.type();
  if (selector == Type::s32) {
    if (bytes == 4) return b.alu<op_slct<uint32_t>>();
    if (bytes == 8) return b.alu<op_slct<uint64_t>>();
    if (bytes == 2) return b.alu<op_slct<uint16_t>>();
  } else if (selector == Type::f32) {
    if (bytes == 4) return b.alu<op_slct_float<uint32_t>>();
    if (bytes == 8) return b.alu<op_slct_float<uint64_t>>();
  }
  b.fail("type");
}

void bind_testp(Binder& b) {
  static const char* const names[] = {"finite", "infinite", "number", "notanumber", "normal", "subnormal"};
  bool found = false;
  for (uint8_t i = 0; i < 6 && !found; ++i) {
    if ((found = b.has(names[i]))) b.instr.a = i;
  }
  if (!found) b.fail("property");
  const Type type = b.type();
  b.dest_predicate(b.operand(0));
  b.source(b.operand(1), type_bytes(type), true);
  b.instr.run = type == Type::f32 ? run_testp<float> : type == Type::f64 ? run_testp<double> : nullptr;
}

}  // namespace bitloom::ptx
