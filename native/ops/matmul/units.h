// Columns of products: panels found or brought into place, multiplied and handed to what finishes them. What
// matmul runs for one matrix, a mixture of experts runs for many.
#pragma once

#include "../quantize/pack_panel.h"
#include "finish.h"
#include "plan.h"

namespace bitloom {

// Rows [first, first + columns of c) of b: the whole of an ungated product, gate or up of a gated one.
struct ProductPart {
  const WeightsView* b;
  int64_t first;
};

// Rows of a that one kernel computes.
struct Pass {
  const MatmulKernelRow& kernel;
  Activations a;
  int64_t m, first_batch, batches;  // packed rows [i * m, (i + 1) * m) belong to batch first_batch + i
  const int64_t* rows;              // of a and c, for each packed row; null: the same
};

// What a slot computes at a time: packed rows [m_begin, m_end) and columns [n, n + count) of a matrix, count
// at most plan.width().
struct Columns {
  const Plan& plan;
  const Finish& finish;
  PackPanel pack;
  ProductPart parts[2];  // finish.parts() of them; both of the same format
  int64_t batch, m_begin, m_end, n, count;
};

// Computes and finishes them in the memory of a slot, plan.slot_bytes().
void run_columns(const Columns& columns, const Pass& pass, uint8_t* memory);

}  // namespace bitloom
