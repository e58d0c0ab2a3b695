// Tables of rows in panels, in scalar code.
#include "panel.h"

#include "elements.h"

namespace bitloom {

void pack_row_table(const PanelFormat& f, const uint8_t* row, int64_t lane, uint8_t* panel) {
  uint8_t* low = panel + row_table_byte(f, lane);
  for (int64_t e = 0; e < 1 << f.bits; ++e) {
    low[e] = row[2 * e];
    low[row_table_plane(f) + e] = row[2 * e + 1];
  }
}

void unpack_row_table(const PanelFormat& f, const uint8_t* panel, int64_t lane, uint8_t* row) {
  const uint8_t* low = panel + row_table_byte(f, lane);
  for (int64_t e = 0; e < 1 << f.bits; ++e) {
    row[2 * e] = low[e];
    row[2 * e + 1] = low[row_table_plane(f) + e];
  }
}

float row_table_entry(const PanelFormat& f, const uint8_t* panel, int64_t lane, uint32_t code) {
  const uint8_t* low = panel + row_table_byte(f, lane) + code;
  const uint8_t bytes[2] = {low[0], low[row_table_plane(f)]};
  return scale_value(f.scale_type, bytes);
}

}  // namespace bitloom
