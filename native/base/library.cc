// Names and versions.
#include "../include/bitloom.h"

extern "C" {

uint32_t bl_abi_version(void) { return BL_ABI_VERSION; }

const char* bl_version(void) { return BITLOOM_VERSION; }

const char* bl_status_name(int32_t status) {
  switch (status) {
#define BL_STATUS(name, value, js_class) \
  case value:                            \
    return #name;
#include "status.inc"
#undef BL_STATUS
    default:
      return nullptr;
  }
}

}  // extern "C"
