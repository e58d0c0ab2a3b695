// Products: choose matmul's kernel, pack all of a, then per unit of b's rows: pack them, multiply, store.
//
// a is packed once in a call; of b a thread packs the panels that it is about to use, into memory that stays
// in its L2 cache, and uses them for all rows of the product. Packing f32 moves 8 bytes for each weight,
// which the product then uses m times: with few rows a product is bound by that, where moe_forward with
// packed weights is not.
#include "product.h"

#include <algorithm>
#include <atomic>

#include "../../base/scratch.h"
#include "../../base/tensor.h"
#include "../../base/thread_pool.h"
#include "../../isa/isa.h"
#include "../matmul/choose.h"
#include "../quantize/pack_panel.h"

namespace bitloom {

namespace {

// Panels of b that are packed and used together: 64 columns of c. kernels take 2 (tile) or 4 (dequant) at
// once.
constexpr int64_t kUnitPanels = 4;
constexpr int64_t kUnitColumns = kUnitPanels * kPanelRows;
// Multiply-adds below which waking other threads costs more than it brings (as in matmul.cc).
constexpr int64_t kSerialWork = int64_t{1} << 18;

const MatmulKernelRow* kernel_of(const bl_run& run, int32_t compute, const PanelFormat& f) {
  bl_matmul_args args{};
  args.run = run;
  args.compute = compute;
  args.algorithm = compute == BL_COMPUTE_bf16 ? BL_ALGORITHM_tile : BL_ALGORITHM_dequant;
  return choose_matmul(args, f, 1, 0);
}

// Sizes of a call.
struct Plan {
  const Products& products;
  const MatmulKernelRow& kernel;
  std::vector<int64_t> a_begin;     // elements of packed a before each product
  std::vector<int64_t> row_begin;   // blocks of sixteen rows before it
  std::vector<int64_t> unit_begin;  // units before it
  int64_t longest = 0;              // k
  int64_t work = 0;                 // multiply-adds

  Plan(const Products& p, const MatmulKernelRow& k) : products(p), kernel(k) {
    int64_t a = 0, rows = 0, units = 0;
    for (const Product& product : p.list) {
      a_begin.push_back(a);
      row_begin.push_back(rows);
      unit_begin.push_back(units);
      const int64_t blocks = pieces(product.m, kPanelRows);
      a += blocks * kPanelRows * padded_k(product.k);
      if (product.k > 0) rows += blocks;
      units += product.m == 0 ? 0 : pieces(product.n, kUnitColumns);
      longest = std::max(longest, product.k);
      work += product.m * product.n * product.k;
    }
    a_begin.push_back(a);
    row_begin.push_back(rows);
    unit_begin.push_back(units);
  }
  bool tile() const { return kernel.compute == BL_COMPUTE_bf16; }
  PanelFormat format(int64_t k) const {
    return panel_format(float_format(products.b_dtype), k, {nullptr, 1});
  }
  // The last product that begins at `index` or before it.
  static size_t product_of(const std::vector<int64_t>& begins, int64_t index) {
    return static_cast<size_t>(std::upper_bound(begins.begin(), begins.end(), index) - begins.begin() - 1);
  }
  // All of packed a, then each slot's memory.
  uint64_t a_bytes() const {
    return align_up(static_cast<uint64_t>(a_begin.back()) * (tile() ? sizeof(uint16_t) : sizeof(float)));
  }
  uint64_t rows_bytes() const {  // of sixteen rows on their way into tiles
    return tile() ? align_up(static_cast<uint64_t>(kPanelRows * padded_k(longest)) * sizeof(float)) : 0;
  }
  uint64_t panel_bytes() const { return align_up(static_cast<uint64_t>(format(longest).panel_bytes)); }
  uint64_t values_bytes() const { return static_cast<uint64_t>(kernel.rows * kUnitColumns) * sizeof(float); }
  uint64_t slot_bytes() const {
    const uint64_t scratch =
        align_up(static_cast<uint64_t>(kernel.scratch_bytes(format(longest), kernel.rows)));
    return std::max(rows_bytes(), kUnitPanels * panel_bytes() + values_bytes() + scratch);
  }
};

// Calls body(index, slot) for every index of [0, count), each slot on one thread at a time.
template <typename Body>
void for_each(const bl_run& run, int64_t slots, int64_t count, const Body& body) {
  std::atomic<int64_t> next{0};
  parallel_for(run, std::min(slots, count), [&](int64_t slot) {
    for (int64_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) body(i, slot);
  });
}

// Block `index` of sixteen rows of a to packed form.
void pack_rows(const Plan& plan, int64_t index, uint8_t* packed, uint8_t* memory) {
  const size_t at = Plan::product_of(plan.row_begin, index);
  const Product& product = plan.products.list[at];
  const int64_t row = (index - plan.row_begin[at]) * kPanelRows, stride = padded_k(product.k);
  const int64_t begin = plan.a_begin[at] + row * stride;
  if (!plan.tile()) {
    load_rows(plan.products, product, row, stride, reinterpret_cast<float*>(packed) + begin);
    return;
  }
  float* rows = reinterpret_cast<float*>(memory);
  load_rows(plan.products, product, row, stride, rows);
  // tile_at() of tile.h: rows of 32 elements, sixteen of them one after the other.
  for (int64_t i = 0; i < kPanelRows; ++i) {
    plan.kernel.pack_tile_halves(rows + i * stride, product.k,
                                 reinterpret_cast<uint16_t*>(packed) + begin + i * (kStep / 2));
  }
}

// All rows of a times unit `index` of b's.
void run_unit(const Plan& plan, PackPanel pack, int64_t index, const uint8_t* packed, uint8_t* memory) {
  const size_t at = Plan::product_of(plan.unit_begin, index);
  const Product& product = plan.products.list[at];
  const int64_t column = (index - plan.unit_begin[at]) * kUnitColumns;
  const int64_t columns = std::min(kUnitColumns, product.n - column);
  const int64_t panels = pieces(columns, kPanelRows);
  const int64_t panel_bytes = static_cast<int64_t>(plan.panel_bytes());
  float* values = reinterpret_cast<float*>(memory + kUnitPanels * panel_bytes);
  uint8_t* scratch = reinterpret_cast<uint8_t*>(values) + plan.values_bytes();
  const PanelFormat f = plan.format(product.k);
  for (int64_t p = 0; p < panels && product.k > 0; ++p) {
    load_panel(plan.products, product, column + p * kPanelRows, f, pack, memory + p * panel_bytes);
  }
  Activations a{};
  a.stride = padded_k(product.k);
  const int64_t begin = plan.a_begin[at];
  if (plan.tile()) {
    a.halves = reinterpret_cast<const uint16_t*>(packed) + begin;
  } else {
    a.values = reinterpret_cast<const float*>(packed) + begin;
  }
  if (product.k == 0) std::fill_n(values, plan.kernel.rows * kUnitColumns, 0.0f);
  for (int64_t m = 0; m < product.m; m += plan.kernel.rows) {
    const int64_t m_end = std::min<int64_t>(m + plan.kernel.rows, product.m);
    for (int64_t p = 0; p < panels && product.k > 0; p += plan.kernel.panels) {
      const int64_t count = std::min<int64_t>(plan.kernel.panels, panels - p);
      const Tile tile{memory + p * panel_bytes, panel_bytes,  count, m,      m_end,
                      values + p * kPanelRows,  kUnitColumns, false, scratch};
      plan.kernel.run(f, a, tile);
    }
    store_result(plan.products, product, m, m_end - m, column, columns, values, kUnitColumns);
  }
}

}  // namespace

bl_status run_products(const char* op, const bl_run& run_in, const Products& products, bl_error* error) {
  const PanelFormat any = panel_format(float_format(products.b_dtype), kChunk, {nullptr, 1});
  const MatmulKernelRow* kernel = kernel_of(run_in, products.compute, any);
  BL_CHECK(kernel != nullptr, unsupported, "%s: this level has no kernel for the product", op);
  const Plan plan(products, *kernel);
  bl_run run = run_in;
  if (plan.work < kSerialWork) run.threads = 1;
  const int64_t units = plan.unit_begin.back(), blocks = plan.row_begin.back();
  const int64_t slots = std::clamp<int64_t>(std::max(units, blocks), 1, thread_count(run));
  const uint64_t total = plan.a_bytes() + static_cast<uint64_t>(slots) * plan.slot_bytes();
  const Scratch scratch(total);
  BL_CHECK(scratch.data() != nullptr, out_of_memory, "%s: cannot allocate %llu bytes of workspace", op,
           static_cast<unsigned long long>(total));
  uint8_t* slot_memory = scratch.data() + plan.a_bytes();
  const auto memory_of = [&](int64_t slot) {
    return slot_memory + static_cast<uint64_t>(slot) * plan.slot_bytes();
  };
  for_each(run, slots, blocks,
           [&](int64_t i, int64_t slot) { pack_rows(plan, i, scratch.data(), memory_of(slot)); });
  const PackPanel pack = choose_pack_panel(isa_of(run), any);
  for_each(run, slots, units,
           [&](int64_t i, int64_t slot) { run_unit(plan, pack, i, scratch.data(), memory_of(slot)); });
  return BL_STATUS_ok;
}

}  // namespace bitloom
