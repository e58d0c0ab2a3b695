// Host side of embedding.
#include <algorithm>

#include "../../backend.h"
#include "../rows.h"
#include "../weights.h"
#include "config.h"

namespace bitloom::cuda {

extern const ModuleImages embedding_module;

bl_status embedding(Queue& queue, const bl_embedding_args& args, bl_error* error) {
  if (element_count(args.output) == 0) return BL_STATUS_ok;
  EmbeddingParams params{};
  Scratch table(queue);
  BL_RETURN_IF_ERROR(weights_params("embedding", "table", args.table, table, &params.table, error));
  // The ids as a view of the output's shape: each stands for a row.
  bl_tensor ids = args.ids;
  ids.rank = args.output.rank;
  ids.shape[ids.rank - 1] = args.table.cols;
  ids.strides[ids.rank - 1] = 0;
  ids.dtype = BL_DTYPE_f32;  // for kernels: elements of 4 bytes
  const NamedView views[] = {{"output", args.output}, {"ids", ids}};
  Operand operands[2];
  BL_RETURN_IF_ERROR(plan_rows("embedding", views, 2, false, &params.rows, operands, error));
  params.output = operands[0];
  params.ids = operands[1];
  LaunchShape shape;
  shape.block.x =
      static_cast<uint32_t>(std::min<int64_t>(kEmbeddingThreads, ceil_div(params.rows.length, 32) * 32));
  shape.grid.x = static_cast<uint32_t>(std::min<int64_t>(ceil_div(params.rows.length, shape.block.x), 1024));
  shape.grid.y = static_cast<uint32_t>(std::min(params.rows.count, kMaxGridY));
  return queue.launch(embedding_module, "embedding", shape, params, error);
}

}  // namespace bitloom::cuda
