#include "shadow.h"

namespace bitloom::ptx {

void Shadow::prepare(Page& page) {
  const uint32_t count = kPageBytes >> page.granule;
  if (!page.cells) {
    page.cells = std::make_unique<Cell[]>(count);
  } else {
    for (uint32_t i = 0; i < count; ++i) {
      Cell& cell = page.cells[i];
      cell = {cell.writer == kUnwritten ? kUnwritten : kHost, 0, 0, 0, 0, 0};
    }
  }
  page.launch = launch_;
}

void Shadow::refine(Page& page, uint32_t finest) {
  uint8_t granule = 0;
  while (!(finest >> granule & 1)) ++granule;
  const uint32_t pieces = 1u << (page.granule - granule);
  auto cells = std::make_unique<Cell[]>(kPageBytes >> granule);
  for (uint32_t i = 0; i < kPageBytes >> page.granule; ++i) {
    for (uint32_t j = 0; j < pieces; ++j) {
      Cell& cell = cells[i * pieces + j];
      cell = page.cells[i];
      // A set belongs to one cell: the pieces get copies.
      if (j > 0 && (cell.reader & kReaderSet)) {
        const AccessSet copy = set_of(cell.reader);
        cell.reader = make_set();
        set_of(cell.reader) = copy;
      }
    }
  }
  page.cells = std::move(cells);
  page.granule = granule;
}

}  // namespace bitloom::ptx
