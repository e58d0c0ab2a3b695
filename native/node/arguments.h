// Reads the positional arguments of one operator call into its C ABI struct.
//
// lib/native.ts passes a tensor as two values (typed array, descriptor) and weights as three (typed
// array, descriptor, codebook or undefined). A descriptor is a Float64Array that the TypeScript object
// made once; the memory of tensors and weights on a device is a tagged object (device.h) in place of the
// typed array. [dtype, rank, shape..., strides...] or [format, layout, rows, cols,
// tensor_scale]. Reading it is one
// Node-API call, where reading named properties would be one per number.
#pragma once

#include <node_api.h>

#include "../include/bitloom_moe.h"

namespace bitloom::node {

class Arguments {
 public:
  // `values` must outlive this object; `error` is filled by the first read that fails.
  Arguments(napi_env env, const char* op, const napi_value* values, size_t count, bl_error* error)
      : env_(env), op_(op), values_(values), count_(count), error_(error) {}

  // Each read consumes its values and is false, with the error set, if they do not fit.
  bool tensor(const char* name, bl_tensor* out);
  bool optional_tensor(const char* name, bl_tensor* out);  // undefined: data null
  bool weights(const char* name, bl_weights* out);
  // What createExperts() made; see experts.h.
  bool experts(const char* name, const bl_moe_expert** out, int64_t* count);
  void skip(size_t values) { position_ += values; }
  bool number(const char* name, float* out);
  bool integer(const char* name, int32_t* out);
  bool bits64(const char* name, uint64_t* out);  // a bigint, or a safe integer not below 0
  // The first `bytes` bytes of a typed array, to be written.
  bool memory(const char* name, uint64_t bytes, void** out);
  // A typed array as it is; undefined: data null, 0 bytes.
  bool optional_bytes(const char* name, void** data, uint64_t* bytes);
  // The last value of every operator: undefined, an Int32Array [isa, threads], or a stream. The device is the
  // one that all tensors and weights before it lie on.
  bool run(bl_run* out);

 private:
  napi_value next();
  bool bad(const char* name, const char* problem, bl_status status = BL_STATUS_invalid_argument);
  bool view(const char* name, napi_value value, uint8_t** data, uint64_t* bytes);
  // The same of a tensor or weights, which may lie on a device.
  bool memory_view(const char* name, napi_value value, uint8_t** data, uint64_t* bytes);
  bool on_device(const char* name, int32_t device);
  bool descriptor(const char* name, napi_value value, double* numbers, size_t capacity, size_t* length);

  napi_env env_;
  const char* op_;
  const napi_value* values_;
  size_t count_;
  size_t position_ = 0;
  int32_t device_ = -1;          // bl_run.device of the tensors so far
  const char* first_ = nullptr;  // the one that decided it
  bl_error* error_;
};

// Bytes of a typed array or DataView; false if `value` is neither. A detached one has no bytes.
bool view_of(napi_env env, napi_value value, uint8_t** data, uint64_t* bytes, napi_value* buffer);

}  // namespace bitloom::node
