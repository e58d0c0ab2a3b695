#include "hold_memory.h"

#include <dlfcn.h>

namespace bitloom::node {

// Node-API can hold the object but not its memory, and an async operator must not copy; V8's own accessor
// can, and its symbol has been the same since Node 14. (Node documents that a napi_value is a v8::Local; a
// Local is a pointer to a slot.)
BackingStore hold_memory(napi_env env, napi_value buffer) {
  using GetBackingStore = BackingStore (*)(void* array_buffer);
  static const GetBackingStore of_array_buffer =
      reinterpret_cast<GetBackingStore>(dlsym(RTLD_DEFAULT, "_ZN2v811ArrayBuffer15GetBackingStoreEv"));
  bool is_array_buffer = false;
  napi_is_arraybuffer(env, buffer, &is_array_buffer);
  return is_array_buffer && of_array_buffer != nullptr ? of_array_buffer(buffer) : nullptr;
}

}  // namespace bitloom::node
