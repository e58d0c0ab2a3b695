#include "../../call.h"

namespace bitloom::node {

namespace {

bool read_low_rank(Arguments& arguments, bl_matmul_args* args) {
  return arguments.tensor("lowRank.down", &args->low_rank_down) &&
         arguments.tensor("lowRank.up", &args->low_rank_up) &&
         arguments.optional_tensor("lowRank.ids", &args->low_rank_ids) &&
         arguments.number("lowRank.scale", &args->low_rank_scale);
}

bool read_outliers(Arguments& arguments, bl_matmul_args* args) {
  return arguments.tensor("outliers.rowOffsets", &args->outlier_row_offsets) &&
         arguments.tensor("outliers.columns", &args->outlier_columns) &&
         arguments.tensor("outliers.values", &args->outlier_values);
}

bool read_batch(Arguments& arguments, bl_matmul_args* args) {
  int32_t batch = 0;
  if (!arguments.integer("batch", &batch)) return false;
  args->batch = batch;
  return true;
}

bool read_prepared(Arguments& arguments, bl_matmul_args* args) {
  void* prepared = nullptr;
  if (!arguments.optional_bytes("prepared", &prepared, &args->prepared_bytes)) return false;
  args->prepared = prepared;
  return true;
}

}  // namespace

// matmul(a | undefined, b, bias | undefined, c, compute, algorithm, given, ...what is given, run): bit i of
// `given` says that the i-th of the options below follows. The same order stands in lib/ops/matmul/values.ts.
bool read_matmul(Arguments& arguments, bl_matmul_args* args) {
  int32_t given = 0;
  if (!(arguments.optional_tensor("a", &args->a) && arguments.weights("b", &args->b) &&
        arguments.optional_tensor("bias", &args->bias) && arguments.tensor("c", &args->c) &&
        arguments.integer("compute", &args->compute) && arguments.integer("algorithm", &args->algorithm) &&
        arguments.integer("given", &given))) {
    return false;
  }
  const auto has = [given](int bit) { return (given >> bit & 1) != 0; };
  return (!has(0) || arguments.integer("activation", &args->activation)) &&
         (!has(1) || arguments.number("scale", &args->scale)) &&
         (!has(2) || arguments.tensor("rowScale", &args->row_scale)) &&
         (!has(3) || arguments.tensor("addend", &args->addend)) &&
         (!has(4) || arguments.tensor("residual", &args->residual)) &&
         (!has(5) || arguments.tensor("cScales", &args->c_scales)) &&
         (!has(6) || arguments.number("cScale", &args->c_scale)) &&
         (!has(7) || arguments.tensor("aScales", &args->a_scales)) &&
         (!has(8) || arguments.tensor("columnScale", &args->column_scale)) &&
         (!has(9) || arguments.tensor("columnOrder", &args->column_order)) &&
         (!has(10) || arguments.integer("activationBits", &args->activation_bits)) &&
         (!has(11) || arguments.integer("activationGroup", &args->activation_group)) &&
         (!has(12) || read_batch(arguments, args)) && (!has(13) || read_low_rank(arguments, args)) &&
         (!has(14) || read_outliers(arguments, args)) && (!has(15) || read_prepared(arguments, args)) &&
         (!has(16) || arguments.integer("tables", &args->tables));
}

}  // namespace bitloom::node
