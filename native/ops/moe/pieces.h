// How the rows of experts are cut into pieces, and pieces into waves.
#pragma once

#include "routes.h"
#include "wave.h"

namespace bitloom {

// What stands between the projections of the experts of a wave. Small enough that it stays in a usual L3 and
// that the allocator keeps a call's memory for the next one.
constexpr int64_t kWaveBytes = int64_t{16} << 20;

// Rows of an expert of this width that pass together.
int64_t rows_together(const bl_moe_forward_args& args, int64_t width);
// What all products have in common, as matmul chooses kernels by it.
bl_matmul_args common_args(const bl_moe_forward_args& args);
// Bytes of sums that can not lie in the output.
uint64_t sum_bytes(const bl_moe_forward_args& args);

int64_t count_pieces(const bl_moe_forward_args& args, const SortedRoutes& routes);
// The pieces of all experts, in `memory`.
bl_status make_pieces(const WaveCall& call, const SortedRoutes& routes, int64_t count, uint8_t* memory,
                      bl_error* error);
// The end of the wave that begins at `begin`.
int64_t wave_end(const Piece* pieces, int64_t begin, int64_t count);

}  // namespace bitloom
