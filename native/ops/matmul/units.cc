#include "units.h"

#include <algorithm>

namespace bitloom {

namespace {

// Panels side by side, as kernels read them.
struct Panels {
  const uint8_t* data;
  int64_t stride, count;
};

// The panels with the rows of a part.
struct Found {
  Panels panels[2];  // those in memory, then canonical rows brought into place
  int kinds = 0;     // how many of the two there are
  int64_t before;    // rows of the first panel that stand before the first of them
};

// `rows` rows from `row` on; canonical rows are brought into place in `packed`.
Found find_panels(const Columns& columns, const WeightsView& b, int64_t row, int64_t rows, uint8_t* packed) {
  Found found;
  found.before = b.in_panel(row) ? row % kPanelRows : 0;
  row -= found.before;
  rows += found.before;
  const int64_t wanted = (rows + kPanelRows - 1) / kPanelRows;
  const int64_t in_memory = std::clamp<int64_t>(b.panels() - row / kPanelRows, 0, wanted);
  if (in_memory > 0) {
    found.panels[found.kinds++] = {b.panel_of(row), b.panel.panel_bytes, in_memory};
    row += in_memory * kPanelRows;
    rows -= in_memory * kPanelRows;
  }
  if (rows <= 0) return found;
  const int64_t stride = columns.plan.packed_stride;
  found.panels[found.kinds++] = {packed, stride, (rows + kPanelRows - 1) / kPanelRows};
  for (int64_t done = 0; done < rows; done += kPanelRows, packed += stride) {
    columns.pack(b.panel, b.canonical_row(row + done), b.row_bytes, std::min(rows - done, kPanelRows),
                 packed);
  }
  return found;
}

// Products of packed rows [m, m_end) with panels of b, to columns of `values` from the first on.
void multiply(const WeightsView& b, const Pass& pass, const Panels& panels, int64_t m, int64_t m_end,
              float* values, int64_t stride, uint8_t* scratch) {
  for (int64_t panel = 0; panel < panels.count; panel += pass.kernel.panels) {
    const Tile tile{panels.data + panel * panels.stride,
                    panels.stride,
                    std::min<int64_t>(pass.kernel.panels, panels.count - panel),
                    m,
                    m_end,
                    values + panel * kPanelRows,
                    stride,
                    false,
                    scratch};
    pass.kernel.run(b.panel, pass.a, tile);
  }
}

}  // namespace

void run_columns(const Columns& columns, const Pass& pass, uint8_t* memory) {
  const Plan& plan = columns.plan;
  const int64_t parts = columns.finish.parts();
  float* values = reinterpret_cast<float*>(memory);
  uint8_t* scratch = memory + plan.values_bytes;
  uint8_t* packed = scratch + plan.kernel_bytes;
  Found found[2];
  for (int64_t part = 0; part < parts; ++part) {
    const ProductPart& from = columns.parts[part];
    found[part] = find_panels(columns, *from.b, from.first + columns.n, columns.count,
                              packed + part * plan.packed_panels * plan.packed_stride);
  }
  const int64_t stride = parts * plan.part_width();
  for (int64_t m = columns.m_begin; m < columns.m_end; m += pass.kernel.rows) {
    const int64_t last = std::min<int64_t>(m + pass.kernel.rows, columns.m_end);
    for (int64_t part = 0; part < parts; ++part) {
      float* out = values + part * plan.part_width() + plan.margin - found[part].before;
      for (int kind = 0; kind < found[part].kinds; ++kind) {
        const Panels& panels = found[part].panels[kind];
        multiply(*columns.parts[part].b, pass, panels, m, last, out, stride, scratch);
        out += panels.count * kPanelRows;
      }
    }
    columns.finish.store({values + plan.margin,
                          stride,
                          plan.part_width(),
                          {m, last, pass.rows},
                          columns.batch,
                          columns.n,
                          columns.count,
                          packed + plan.packed_bytes,
                          m == columns.m_begin});
  }
}

}  // namespace bitloom
