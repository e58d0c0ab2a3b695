// Memory of JavaScript buffers beyond the life of the buffer objects.
#pragma once

#include <node_api.h>

#include <memory>

namespace bitloom::node {

using BackingStore = std::shared_ptr<void>;

// Keeps the memory of an ArrayBuffer alive, whatever JavaScript does to the buffer object (transfer,
// postMessage, garbage collection) while a worker thread uses it. Null for a SharedArrayBuffer, which can not
// be detached: holding the object is enough.
BackingStore hold_memory(napi_env env, napi_value buffer);

}  // namespace bitloom::node
