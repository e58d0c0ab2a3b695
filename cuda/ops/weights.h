// Host side: canonical weights as kernels get them (tile/weights.h).
#pragma once

#include "../driver/queue.h"
#include "../tile/weights.h"

namespace bitloom::cuda {

// Fills in everything; `table` gets the codebook where the format has one, host memory of bl_weights or built
// in. BL_STATUS_unsupported for other layouts and for floats at no multiple of their size. `op` and `name`
// are for messages.
bl_status weights_params(const char* op, const char* name, const bl_weights& weights, Scratch& table,
                         WeightsParams* params, bl_error* error);

}  // namespace bitloom::cuda
