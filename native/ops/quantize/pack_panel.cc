#include "pack_panel.h"

namespace bitloom {

PackPanel choose_pack_panel(int32_t, const PanelFormat&) { return pack_panel; }

}  // namespace bitloom
