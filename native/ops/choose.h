// Choosing a kernel from a family's list (kernels.inc).
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdio>

#include "../isa/isa.h"

namespace bitloom {

// A row of a kernel list: best first within an operator, the scalar row last.
template <typename Op, typename Kernel>
struct KernelRow {
  Op op;
  const char* name;  // "rms_norm_f32_avx2"
  int32_t isa;       // bl_isa
  Kernel run;
};

// The first row of `op` that the call's ISA level allows. There always is one: scalar rows need nothing.
// With BITLOOM_VERBOSE=dispatch a line on stderr says of each row tried why it was taken or not.
template <typename Op, typename Kernel, size_t kRows>
const KernelRow<Op, Kernel>& choose(const KernelRow<Op, Kernel> (&rows)[kRows], Op op, const char* op_name,
                                    const bl_run& run, int64_t count, int64_t length) {
  const int32_t isa = isa_of(run);
  for (const KernelRow<Op, Kernel>& row : rows) {
    if (row.op != op) continue;
    const bool taken = row.isa <= isa;
    if (verbose_dispatch()) {
      std::fprintf(stderr, "bitloom: %s %lldx%lld: %s: %s\n", op_name, static_cast<long long>(count),
                   static_cast<long long>(length), row.name, taken ? "taken" : "ISA level");
    }
    if (taken) return row;
  }
  return rows[kRows - 1];
}

}  // namespace bitloom
