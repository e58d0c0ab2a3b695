#include "product.h"

#include <algorithm>

#include "../../isa/isa.h"

namespace bitloom {

Product::Product(const bl_weights& first, const bl_weights* second)
    : views_{WeightsView(first), WeightsView(second == nullptr ? first : *second)} {}

bool Product::plan(const bl_matmul_args& call, const Input& input, const Finish& finish, int64_t sharing) {
  const PanelFormat& f = views_[0].panel;
  const MatmulKernelRow* kernel = choose_matmul(call, f, input.rows(), kAllTables);
  // Tables of values can differ where formats are the same.
  if (kernel == nullptr || choose_matmul(call, views_[1].panel, input.rows(), kAllTables) != kernel) {
    return false;
  }
  input_ = &input;
  finish_ = &finish;
  pack_ = choose_pack_panel(isa_of(call.run), f);
  plan_.emplace(call.run, ChosenKernels{kernel, choose_spare(call, *kernel, f)}, views_[0], input, finish,
                views_[0].rows, 1 /* batch */, 0 /* additions */, sharing);
  return true;
}

void Product::pack_alone() { plan_->activations.tasks = plan_->spare_activations.tasks = 1; }

void Product::pack(const bl_matmul_args& call, uint8_t* memory) {
  const PanelFormat& f = views_[0].panel;
  const int64_t m = input_->rows();
  const Rounding rounding = rounding_of(call);
  if (!plan_->tile()) {
    packed_[0] = pack_activations(plan_->kernel, f, plan_->activations, call.run, *input_, rounding, memory);
    counts_[0] = m;
    return;
  }
  int64_t* rows = reinterpret_cast<int64_t*>(memory);
  for (int64_t i = 0; i < m; ++i) rows[i] = i;
  memory += plan_->rows_bytes;
  const TileActivations most = pack_tile_activations(plan_->kernel, f, plan_->activations, call.run, *input_,
                                                     rounding, rows, m, memory);
  packed_[0] = most.a;
  counts_[0] = most.count;
  rows_[0] = rows;
  if (most.count == m) return;
  rows_[1] = rows + most.count;
  const TileActivations rest =
      pack_tile_activations(*plan_->spare, f, plan_->spare_activations, call.run, *input_, rounding,
                            rows + most.count, m - most.count, memory + plan_->activations.total());
  packed_[1] = rest.a;
  counts_[1] = rest.count;
}

void Product::run_block(int pass, int64_t block, int64_t n, int64_t count, uint8_t* slot) const {
  const int64_t rows = plan_->block_rows(kernel(pass)), m = block * rows;
  run_columns({*plan_,
               *finish_,
               pack_,
               {{&views_[0], 0}, {&views_[1], 0}},
               0,
               m,
               std::min(m + rows, counts_[pass]),
               n,
               count},
              {kernel(pass), packed_[pass], counts_[pass], 0, 1, rows_[pass]}, slot);
}

int64_t Product::run(int64_t begin, int64_t end, uint8_t* slot) const {
  const int64_t width = plan_->unit_panels * kPanelRows, block = begin / plan_->units;
  const int64_t unit = begin % plan_->units;
  const int64_t units = std::min({end - begin, plan_->units - unit, plan_->most_units});
  const int64_t n = unit * width, count = std::min(units * width, plan_->columns - n);
  const int pass = block < blocks(0) ? 0 : 1;
  run_block(pass, pass == 0 ? block : block - blocks(0), n, count, slot);
  return begin + units;
}

void Product::run_rows(int64_t n, int64_t n_end, uint8_t* slot) const {
  for (int pass = 0; pass < 2; ++pass) {
    for (int64_t block = 0; block < blocks(pass); ++block) {
      for (int64_t at = n; at < n_end; at += plan_->width()) {
        run_block(pass, block, at, std::min(plan_->width(), n_end - at), slot);
      }
    }
  }
}

}  // namespace bitloom
