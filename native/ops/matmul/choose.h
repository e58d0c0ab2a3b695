// Which kernel a call runs.
#pragma once

#include "kernel.h"

namespace bitloom {

// The kernel for m rows of a, or null if no kernel has that algorithm for this compute mode and format.
// `tables`: of prepared activations, those that there are (bits as in PreparedHeader); else not read.
const MatmulKernelRow* choose_matmul(const bl_matmul_args& args, const PanelFormat& f, int64_t m,
                                     int32_t tables);
// The kernel for the rows of a that int8 does not suit, where `kernel` is tile in i8; else null.
const MatmulKernelRow* choose_spare(const bl_matmul_args& args, const MatmulKernelRow& kernel,
                                    const PanelFormat& f);

// The error of a call for which there is none, with what it may ask for instead.
bl_status fail_without_kernel(const bl_matmul_args& args, const PanelFormat& f, int64_t m, int32_t tables,
                              bl_error* error);

}  // namespace bitloom
