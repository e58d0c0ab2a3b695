// Canonical rows into panels (formats/panel.h): for pack, and for matmul with canonical weights.
#pragma once

#include <cstdint>

#include "../../formats/formats.h"
#include "pack_plan.h"

namespace bitloom {

// As pack_panel() of formats/panel.h, bit for bit.
using PackPanel = void (*)(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count,
                           uint8_t* panel);

PackPanel choose_pack_panel(int32_t isa, const PanelFormat& f);

// `spans` spans of sixteen rows that lie `stride` bytes apart, one after the other, to `target`. Rows that
// are not among the bits of `present` are zero and stay so. Reads no byte outside the spans.
using PackSpans = void (*)(const PackPlan& plan, const uint8_t* rows, int64_t stride, uint32_t present,
                           int64_t spans, uint8_t* target);
namespace avx2 {
void pack_spans(const PackPlan& plan, const uint8_t* rows, int64_t stride, uint32_t present, int64_t spans,
                uint8_t* target);
}
namespace avx512 {
void pack_spans(const PackPlan& plan, const uint8_t* rows, int64_t stride, uint32_t present, int64_t spans,
                uint8_t* target);
}

}  // namespace bitloom
