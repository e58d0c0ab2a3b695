#include "../../call.h"

namespace bitloom::node {

namespace {

bool read_sparse(Arguments& arguments, const char* a, const char* b, const char* c,
                 bl_block_sparse_args* args) {
  bl_topology& t = args->topology;
  return arguments.tensor(a, &args->a) && arguments.tensor(b, &args->b) && arguments.tensor(c, &args->c) &&
         arguments.tensor("topology.rowStarts", &t.row_starts) &&
         arguments.tensor("topology.columnStarts", &t.column_starts) &&
         arguments.tensor("topology.offsets", &t.offsets) &&
         arguments.tensor("topology.columnIndices", &t.column_indices) &&
         arguments.tensor("topology.rowIndices", &t.row_indices) &&
         arguments.tensor("topology.transposeOffsets", &t.transpose_offsets) &&
         arguments.tensor("topology.transposeIndices", &t.transpose_indices) &&
         arguments.integer("transposeA", &args->transpose_a) &&
         arguments.integer("transposeB", &args->transpose_b) && arguments.integer("compute", &args->compute);
}

}  // namespace

// moePermute(x, indices, weights | undefined, rows, offsets, order, inverse, blockSize, run)
bool read_moe_permute(Arguments& arguments, bl_moe_permute_args* args) {
  return arguments.tensor("x", &args->x) && arguments.tensor("indices", &args->indices) &&
         arguments.optional_tensor("weights", &args->weights) && arguments.tensor("rows", &args->rows) &&
         arguments.tensor("offsets", &args->offsets) && arguments.tensor("order", &args->order) &&
         arguments.tensor("inverse", &args->inverse) && arguments.integer("blockSize", &args->block_size);
}

// moeUnpermute(rows, inverse, weights | undefined, out, run)
bool read_moe_unpermute(Arguments& arguments, bl_moe_unpermute_args* args) {
  return arguments.tensor("rows", &args->rows) && arguments.tensor("inverse", &args->inverse) &&
         arguments.optional_tensor("weights", &args->weights) && arguments.tensor("out", &args->output);
}

// groupedMatmul(a, b, offsets, out, kind, transposeB, compute, run)
bool read_grouped_matmul(Arguments& arguments, bl_grouped_matmul_args* args) {
  return arguments.tensor("a", &args->a) && arguments.tensor("b", &args->b) &&
         arguments.tensor("offsets", &args->offsets) && arguments.tensor("out", &args->c) &&
         arguments.integer("kind", &args->kind) && arguments.integer("transposeB", &args->transpose_b) &&
         arguments.integer("compute", &args->compute);
}

// sdd(a, b, out, topology of 7 tensors, transposeA, transposeB, compute, run); dsd and dds likewise
bool read_sdd(Arguments& arguments, bl_sdd_args* args) {
  return read_sparse(arguments, "a", "b", "out.values", args);
}
bool read_dsd(Arguments& arguments, bl_dsd_args* args) {
  return read_sparse(arguments, "s.values", "b", "out", args);
}
bool read_dds(Arguments& arguments, bl_dds_args* args) {
  return read_sparse(arguments, "a", "s.values", "out", args);
}

}  // namespace bitloom::node
