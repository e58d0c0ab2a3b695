// Canonical rows into panels (formats/panel.h): for pack, and for matmul with canonical weights.
#pragma once

#include <cstdint>

#include "../../formats/formats.h"

namespace bitloom {

// As pack_panel() of formats/panel.h, bit for bit.
using PackPanel = void (*)(const PanelFormat& f, const uint8_t* rows, int64_t row_bytes, int64_t count,
                           uint8_t* panel);

PackPanel choose_pack_panel(int32_t isa, const PanelFormat& f);

}  // namespace bitloom
