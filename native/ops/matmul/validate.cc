#include "validate.h"

#include <algorithm>
#include <cfloat>
#include <cmath>

#include "../../formats/panel.h"
#include "epilogue.h"

namespace bitloom {
namespace {

using ll = long long;

constexpr uint32_t kF32 = dtype_bit(BL_DTYPE_f32), kI8 = dtype_bit(BL_DTYPE_i8),
                   kI32 = dtype_bit(BL_DTYPE_i32);

// What a call may be given to read, besides b.
struct Operand {
  const char* name;
  bl_tensor bl_matmul_args::* tensor;
  bool meets_activations;  // needs them as they were before they were prepared
};
constexpr Operand kOperands[] = {{"a", &bl_matmul_args::a, false},
                                 {"bias", &bl_matmul_args::bias, false},
                                 {"row_scale", &bl_matmul_args::row_scale, false},
                                 {"a_scales", &bl_matmul_args::a_scales, true},
                                 {"column_scale", &bl_matmul_args::column_scale, true},
                                 {"column_order", &bl_matmul_args::column_order, true},
                                 {"low_rank_down", &bl_matmul_args::low_rank_down, true},
                                 {"low_rank_up", &bl_matmul_args::low_rank_up, true},
                                 {"low_rank_ids", &bl_matmul_args::low_rank_ids, true},
                                 {"outlier_row_offsets", &bl_matmul_args::outlier_row_offsets, true},
                                 {"outlier_columns", &bl_matmul_args::outlier_columns, true},
                                 {"outlier_values", &bl_matmul_args::outlier_values, true}};

// `tensor` has the axes of `like` but for the last, which has `last` columns.
bl_status check_rows(const char* name, const bl_tensor& tensor, const char* like_name, const bl_tensor& like,
                     int64_t last, const char* last_name, bl_error* error) {
  BL_CHECK(tensor.rank == like.rank, invalid_shape, "matmul: %s.rank is %d, expected %d (= %s.rank)", name,
           tensor.rank, like.rank, like_name);
  for (int axis = 0; axis + 1 < like.rank; ++axis) {
    BL_CHECK(tensor.shape[axis] == like.shape[axis], invalid_shape,
             "matmul: %s.shape[%d] is %lld, expected %lld (= %s.shape[%d])", name, axis,
             static_cast<ll>(tensor.shape[axis]), static_cast<ll>(like.shape[axis]), like_name, axis);
  }
  return check_dim({"matmul", name}, tensor, tensor.rank - 1, last, last_name, error);
}

bl_status check_modes(const bl_matmul_args& args, bl_error* error) {
  BL_CHECK(args.compute >= BL_COMPUTE_f32 && args.compute <= BL_COMPUTE_e4m3, invalid_argument,
           "matmul: compute is %d, expected 0 (f32), 1 (i8), 2 (bf16), 3 (i1) or 4 (e4m3)", args.compute);
  BL_CHECK(args.algorithm >= BL_ALGORITHM_auto && args.algorithm <= BL_ALGORITHM_tile, invalid_argument,
           "matmul: algorithm is %d, expected 0 (auto), 1 (lut), 2 (dequant) or 3 (tile)", args.algorithm);
  BL_CHECK(args.activation >= BL_ACTIVATION_none && args.activation <= BL_ACTIVATION_geglu, invalid_argument,
           "matmul: activation is %d, expected 0 (none) to 6 (geglu)", args.activation);
  BL_CHECK(args.activation_bits == 0 || args.activation_bits == 4 || args.activation_bits == 8,
           invalid_argument, "matmul: activation_bits is %d, expected 8 or 4", args.activation_bits);
  BL_CHECK(
      args.activation_group >= BL_ACTIVATION_GROUP_auto && args.activation_group <= BL_ACTIVATION_GROUP_32,
      invalid_argument, "matmul: activation_group is %d, expected 0 (auto), 1 (row) or 2 (32)",
      args.activation_group);
  BL_CHECK(
      args.activation_group != BL_ACTIVATION_GROUP_32 || args.algorithm != BL_ALGORITHM_tile, unsupported,
      "matmul: activation_group is 32, expected row or none with algorithm tile, whose scales are of 512");
  BL_CHECK(args.compute == BL_COMPUTE_i8 || args.activation_bits != 4, invalid_argument,
           "matmul: activation_bits is 4, which needs compute i8");
  BL_CHECK(args.compute == BL_COMPUTE_i8 || args.compute == BL_COMPUTE_e4m3 || args.activation_group == 0,
           invalid_argument, "matmul: activation_group is given, which needs compute i8 or e4m3");
  BL_CHECK(args.tables == BL_TABLES_lossless || args.tables == BL_TABLES_fast, invalid_argument,
           "matmul: tables is %d, expected 0 (lossless) or 1 (fast)", args.tables);
  BL_CHECK(args.compute == BL_COMPUTE_i8 || args.tables == BL_TABLES_lossless, invalid_argument,
           "matmul: tables is 1 (fast), which needs compute i8");
  BL_CHECK(std::isfinite(args.scale), non_finite, "matmul: scale is %g, expected a finite number",
           static_cast<double>(args.scale));
  BL_CHECK(args.batch >= 0, invalid_argument, "matmul: batch is %lld, expected at least 0",
           static_cast<ll>(args.batch));
  return BL_STATUS_ok;
}

bl_status check_input(const bl_matmul_args& args, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor({"matmul", "a"}, args.a, kFloatTypes | kI8, 1, BL_MAX_RANK, error));
  const int64_t k = args.a.shape[args.a.rank - 1];
  const bool codes = args.a.dtype == BL_DTYPE_i8;
  const bool scales_given = args.a_scales.data != nullptr;
  BL_CHECK(codes || !scales_given, invalid_argument, "matmul: a_scales is given, expected a of i8");
  BL_CHECK(!codes || scales_given || element_count(args.a) == 0, invalid_argument,
           "matmul: a.dtype is i8, expected a_scales with it");
  if (codes) {
    const bool per_row = args.a_scales.rank + 1 == args.a.rank;
    BL_RETURN_IF_ERROR(check_tensor({"matmul", "a_scales"}, args.a_scales, kF32, 0, BL_MAX_RANK, error));
    BL_CHECK(per_row || args.a_scales.rank == args.a.rank, invalid_shape,
             "matmul: a_scales.rank is %d, expected %d (a scale per row) or %d (per 32)", args.a_scales.rank,
             args.a.rank - 1, args.a.rank);
    bl_tensor scales = args.a_scales;
    if (per_row) scales.shape[scales.rank++] = 1;
    BL_RETURN_IF_ERROR(check_rows("a_scales", scales, "a", args.a, per_row ? 1 : (k + 31) / 32,
                                  "ceil(a's columns / 32)", error));
    BL_CHECK(per_row || args.column_order.data == nullptr, unsupported,
             "matmul: column_order is given with a scale per 32 codes, expected one per row");
    BL_CHECK(args.column_scale.data == nullptr, unsupported,
             "matmul: column_scale is given with codes, expected a of f32, f16 or bf16");
    BL_CHECK(args.activation_bits != 4 && args.activation_group == 0, invalid_argument,
             "matmul: activation_bits and activation_group are given with codes, which are used as they are");
  }
  BL_RETURN_IF_ERROR(
      check_optional_vector({"matmul", "column_scale"}, args.column_scale, kF32, k, "a's columns", error));
  BL_RETURN_IF_ERROR(check_optional_vector({"matmul", "column_order"}, args.column_order, kI32, args.b.cols,
                                           "b.cols", error));
  if (args.column_order.data != nullptr) {
    if (args.run.device != 0)
      return BL_STATUS_ok;  // its memory cannot be read here; indices are clamped there
    return check_indices("column_order", args.column_order, 0, k, error);
  }
  BL_CHECK(args.b.cols == k, invalid_shape, "matmul: b.cols is %lld, expected %lld (= a.shape[%d])",
           static_cast<ll>(args.b.cols), static_cast<ll>(k), args.a.rank - 1);
  return BL_STATUS_ok;
}

// Activations that bl_prepare_activations made, in place of a.
bl_status check_prepared(const bl_matmul_args& args, PreparedHeader* header, bl_error* error) {
  BL_CHECK(args.a.data == nullptr && args.a.rank == 0, invalid_argument,
           "matmul: a and prepared are both given, expected one of them");
  BL_CHECK(args.run.device == 0, unsupported, "matmul: prepared is given, expected a on a device");
  BL_RETURN_IF_ERROR(read_prepared(args.prepared, args.prepared_bytes, header, error));
  BL_CHECK(args.compute == BL_COMPUTE_i8, invalid_argument,
           "matmul: compute is %d, expected 1 (i8) with prepared", args.compute);
  BL_CHECK(args.algorithm != BL_ALGORITHM_tile, unsupported,
           "matmul: algorithm is 3 (tile), expected 0 (auto), 1 (lut) or 2 (dequant) with prepared");
  BL_CHECK(args.activation_bits != 4 && args.activation_group == 0, unsupported,
           "matmul: activation_bits and activation_group are given with prepared, which is rounded already");
  BL_CHECK(args.batch <= 1, unsupported, "matmul: batch is %lld, expected at most 1 with prepared",
           static_cast<ll>(args.batch));
  for (const Operand& operand : kOperands) {
    BL_CHECK(!operand.meets_activations || (args.*operand.tensor).data == nullptr, unsupported,
             "matmul: %s is given with prepared, expected the activations themselves", operand.name);
  }
  BL_CHECK(args.b.cols == header->cols, invalid_shape,
           "matmul: b.cols is %lld, expected %lld (= columns of prepared)", static_cast<ll>(args.b.cols),
           static_cast<ll>(header->cols));
  BL_RETURN_IF_ERROR(check_output({"matmul", "c"}, args.c, kFloatTypes | kI8, 1, BL_MAX_RANK, error));
  BL_CHECK(Rows(args.c).count == header->rows, invalid_shape,
           "matmul: c has %lld rows, expected %lld (= rows of prepared)", static_cast<ll>(Rows(args.c).count),
           static_cast<ll>(header->rows));
  const PanelFormat f = WeightsView(args.b).panel;
  const int32_t needed =
      args.algorithm != BL_ALGORITHM_lut || !takes_lut(f)
          ? 0
          : table_kinds_of(f, args.tables == BL_TABLES_fast ? BL_ALGORITHM_lut_fast : BL_ALGORITHM_lut);
  BL_CHECK((needed & ~header->tables) == 0, unsupported,
           "matmul: prepared has tables %d, expected %d for format %s", header->tables, needed, f.info->name);
  return BL_STATUS_ok;
}

// What stands for a then: the shape alone, c's leading axes and K.
bl_tensor shape_of_prepared(const bl_matmul_args& args, const PreparedHeader& header) {
  bl_tensor a = args.c;
  a.data = nullptr;
  a.bytes = 0;
  a.dtype = BL_DTYPE_f32;
  a.shape[a.rank - 1] = header.cols;
  return a;
}

// b's rows against batch and activation; c's columns.
bl_status check_stack(const bl_matmul_args& args, int64_t* columns, bl_error* error) {
  const int64_t batches = std::max<int64_t>(args.batch, 1);
  BL_CHECK(args.batch == 0 || args.a.rank >= 2, invalid_shape,
           "matmul: a.rank is %d, expected at least 2 with batch", args.a.rank);
  BL_CHECK(args.batch == 0 || args.a.shape[0] == args.batch, invalid_shape,
           "matmul: a.shape[0] is %lld, expected %lld (= batch)", static_cast<ll>(args.a.shape[0]),
           static_cast<ll>(args.batch));
  const int64_t parts = is_gated(args.activation) ? 2 : 1;
  BL_CHECK(args.b.rows % (batches * parts) == 0, invalid_shape,
           "matmul: b.rows is %lld, expected a multiple of %lld (%s)", static_cast<ll>(args.b.rows),
           static_cast<ll>(batches * parts),
           parts == 1        ? "= batch"
           : args.batch == 0 ? "gate and up"
                             : "batch * gate and up");
  *columns = args.b.rows / (batches * parts);
  BL_CHECK(batches == 1 || args.b.layout != BL_LAYOUT_fragments || args.b.rows / batches % kPanelRows == 0,
           invalid_layout,
           "matmul: b has layout fragments and matrices of %lld rows, expected a multiple of 16",
           static_cast<ll>(args.b.rows / batches));
  return BL_STATUS_ok;
}

bl_status check_output_tensors(const bl_matmul_args& args, int64_t columns, bl_error* error) {
  const bool codes = args.c.dtype == BL_DTYPE_i8;
  BL_RETURN_IF_ERROR(check_output({"matmul", "c"}, args.c, kFloatTypes | kI8, 1, BL_MAX_RANK, error));
  const int64_t parts = is_gated(args.activation) ? 2 : 1;
  const char* rows_name = args.batch > 0 ? "b.rows / batch" : parts == 2 ? "b.rows / 2" : "b.rows";
  BL_RETURN_IF_ERROR(check_rows("c", args.c, "a", args.a, columns, rows_name, error));
  if (args.c_scales.data != nullptr) {
    BL_CHECK(codes, invalid_argument, "matmul: c_scales is given, expected c of i8");
    BL_RETURN_IF_ERROR(check_output({"matmul", "c_scales"}, args.c_scales, kF32, 1, BL_MAX_RANK, error));
    BL_RETURN_IF_ERROR(check_rows("c_scales", args.c_scales, "c", args.c, (columns + 31) / 32,
                                  "ceil(c's columns / 32)", error));
    BL_RETURN_IF_ERROR(
        check_apart({"matmul", "c_scales"}, args.c_scales, "c", args.c.data, args.c.bytes, error));
    BL_CHECK(args.c_scale == 0, invalid_argument,
             "matmul: c_scale and c_scales are given, expected one of them");
  } else if (codes) {
    BL_CHECK(args.c_scale >= FLT_MIN && args.c_scale <= FLT_MAX, invalid_argument,
             "matmul: c_scale is %g, expected a normal number above 0 for c of i8 without c_scales",
             static_cast<double>(args.c_scale));
  } else {
    BL_CHECK(args.c_scale == 0, invalid_argument, "matmul: c_scale is given, expected c of i8");
  }
  if (args.residual.data != nullptr) {
    BL_RETURN_IF_ERROR(
        check_tensor({"matmul", "residual"}, args.residual, kFloatTypes, 1, BL_MAX_RANK, error));
    BL_RETURN_IF_ERROR(check_rows("residual", args.residual, "c", args.c, columns, "c's columns", error));
    BL_RETURN_IF_ERROR(check_alias({"matmul", "c"}, args.c, "residual", args.residual, error));
  }
  if (args.addend.data != nullptr) {
    BL_RETURN_IF_ERROR(check_tensor({"matmul", "addend"}, args.addend, kFloatTypes, 1, BL_MAX_RANK, error));
    BL_RETURN_IF_ERROR(check_rows("addend", args.addend, "c", args.c, columns * parts,
                                  args.batch > 0 ? "b.rows / batch" : "b.rows", error));
    BL_RETURN_IF_ERROR(check_alias({"matmul", "c"}, args.c, "addend", args.addend, error));
  }
  return BL_STATUS_ok;
}

// What is written lies apart from everything that is read but addend and residual.
bl_status check_memory(const char* name, const bl_tensor& output, const bl_matmul_args& args,
                       bl_error* error) {
  for (const Operand& operand : kOperands) {
    const bl_tensor& read = args.*operand.tensor;
    if (read.data == nullptr) continue;
    BL_RETURN_IF_ERROR(check_apart({"matmul", name}, output, operand.name, read.data, read.bytes, error));
  }
  if (args.prepared != nullptr) {
    BL_RETURN_IF_ERROR(
        check_apart({"matmul", name}, output, "prepared", args.prepared, args.prepared_bytes, error));
  }
  return check_apart({"matmul", name}, output, "b", args.b.data,
                     bl_layout_bytes(args.b.format, args.b.layout, args.b.rows, args.b.cols), error);
}

}  // namespace

bl_status validate_matmul(bl_matmul_args* call, PreparedHeader* header, bl_error* error) {
  const bl_matmul_args& args = *call;
  int64_t columns = 0;
  BL_RETURN_IF_ERROR(check_modes(args, error));
  BL_RETURN_IF_ERROR(check_weights({"matmul", "b"}, args.b, error));
  if (args.prepared != nullptr) {
    BL_RETURN_IF_ERROR(check_prepared(args, header, error));
    call->a = shape_of_prepared(args, *header);
    call->prepared_bytes = header->bytes;
  } else {
    BL_RETURN_IF_ERROR(check_input(args, error));
  }
  BL_RETURN_IF_ERROR(check_stack(args, &columns, error));
  BL_RETURN_IF_ERROR(check_output_tensors(args, columns, error));
  BL_RETURN_IF_ERROR(
      check_optional_vector({"matmul", "bias"}, args.bias, kF32, args.b.rows, "b.rows", error));
  BL_RETURN_IF_ERROR(
      check_optional_vector({"matmul", "row_scale"}, args.row_scale, kF32, args.b.rows, "b.rows", error));
  BL_RETURN_IF_ERROR(check_additions(args, error));
  if (args.c_scales.data != nullptr) {
    BL_RETURN_IF_ERROR(check_memory("c_scales", args.c_scales, args, error));
    if (args.residual.data != nullptr) {
      BL_RETURN_IF_ERROR(check_apart({"matmul", "c_scales"}, args.c_scales, "residual", args.residual.data,
                                     args.residual.bytes, error));
    }
    if (args.addend.data != nullptr) {
      BL_RETURN_IF_ERROR(check_apart({"matmul", "c_scales"}, args.c_scales, "addend", args.addend.data,
                                     args.addend.bytes, error));
    }
  }
  return check_memory("c", args.c, args, error);
}

}  // namespace bitloom
