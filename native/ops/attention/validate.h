// Checks of a call of attention.
#pragma once

#include "kernel.h"

namespace bitloom {

// Bytes for copies of block tables, lengths and offsets: what decides addresses is read once, so that a
// caller who changes it meanwhile can not lead kernels astray.
uint64_t attention_index_bytes(const bl_attention_args& args);

// Checks everything; nothing is written but *call and `indices` [attention_index_bytes()].
bl_status check_attention_shapes(const bl_attention_args& args, bl_error* error);
// Checks rope and fills in what zero stands for there; after the shapes.
bl_status check_attention_rope(bl_attention_args& args, bl_error* error);
bl_status read_attention(const bl_attention_args& args, int32_t* indices, AttentionCall* call,
                         bl_error* error);

// Whether the call asks for no more than CUDA devices do.
bl_status check_attention_on_device(const bl_attention_args& args, bl_error* error);

}  // namespace bitloom
