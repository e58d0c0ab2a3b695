// Mapped files as JavaScript objects.
#pragma once

#include <napi.h>

namespace bitloom::node {

// mapFile(path) -> { size, view(offset, length): ArrayBuffer, close() }. Views share the mapping's
// memory; the file is unmapped when it is closed and no view is left.
Napi::Value map_file(const Napi::CallbackInfo& info);

}  // namespace bitloom::node
