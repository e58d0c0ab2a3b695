// Devices in JavaScript: memory, streams, events and graphs as tagged objects that free themselves.
#pragma once

#include <napi.h>

#include <memory>

#include "../include/bitloom.h"

namespace bitloom::node {

// A part of an allocation, from `offset` on. The object keeps the whole alive.
struct DeviceMemory {
  std::shared_ptr<bl_memory> memory;
  int32_t device;
  uint64_t offset;
  uint64_t bytes;

  // Null once it is freed, or the device was reset.
  uint8_t* address() const;
};

// What a value holds, or null if it is another object.
DeviceMemory* device_memory_of(napi_env env, napi_value value);
struct DeviceStream;
DeviceStream* device_stream_of(napi_env env, napi_value value);
bl_stream* handle_of(const DeviceStream& stream);
int32_t device_of(const DeviceStream& stream);

// Settles a promise when what is queued on the stream by now has run: resolves it with undefined.  `held` is
// kept until then. On an error the promise is rejected with it.
void settle_after(napi_env env, int32_t device, bl_stream* stream, napi_deferred deferred, napi_value held);

void init_devices(Napi::Env env, Napi::Object exports);

}  // namespace bitloom::node
