// Checks of tensor and weight arguments, and row access for kernels that work in f32.
#pragma once

#include <cstdint>

#include "../include/bitloom.h"
#include "error.h"

namespace bitloom {

const char* dtype_name(int32_t dtype);           // "f32"; "unknown" for a value outside the list
int64_t dtype_bytes(int32_t dtype);              // 0 for a value outside the list
int64_t element_count(const bl_tensor& tensor);  // product of the shape, 1 for rank 0
bool is_contiguous(const bl_tensor& tensor);

constexpr uint32_t dtype_bit(int32_t dtype) { return 1u << dtype; }
constexpr uint32_t kFloatTypes = dtype_bit(BL_DTYPE_f32) | dtype_bit(BL_DTYPE_f16) | dtype_bit(BL_DTYPE_bf16);

// One argument as messages name it: "matmul" and "a" give "matmul: a.shape[1] is ...".
struct Argument {
  const char* op;
  const char* name;
};

// A well-formed view: known dtype among `dtypes`, rank within limits, shape and strides not negative,
// every element inside `bytes`, data not null unless the tensor is empty.
bl_status check_tensor(Argument argument, const bl_tensor& tensor, uint32_t dtypes, int min_rank,
                       int max_rank, bl_error* error);
// As above, and no two indices may share an element: every axis longer than 1 has a stride of at least
// the extent of the axes inside it.
bl_status check_output(Argument argument, const bl_tensor& tensor, uint32_t dtypes, int min_rank,
                       int max_rank, bl_error* error);
bl_status check_same_shape(Argument argument, const bl_tensor& tensor, const char* expected_name,
                           const bl_tensor& expected, bl_error* error);
bl_status check_dim(Argument argument, const bl_tensor& tensor, int axis, int64_t expected,
                    const char* expected_name, bl_error* error);
// [size] of the given dtypes, contiguous; data null is allowed and means "not given".
bl_status check_optional_vector(Argument argument, const bl_tensor& tensor, uint32_t dtypes, int64_t size,
                                const char* size_name, bl_error* error);
// Known format and layout, dimensions that the format takes, enough bytes, a codebook where needed.
bl_status check_weights(Argument argument, const bl_weights& weights, bl_error* error);
// The levels of this machine as messages name them: "scalar, avx2, avx512".
struct SupportedIsas {
  char names[64];
  SupportedIsas();
};
bl_status check_run(const char* op, const bl_run& run, bl_error* error);

bool overlaps(const void* a, uint64_t a_bytes, const void* b, uint64_t b_bytes);
// `output` must be `input` itself (same data, dtype and strides) or lie apart from it.
bl_status check_alias(Argument argument, const bl_tensor& output, const char* input_name,
                      const bl_tensor& input, bl_error* error);
bl_status check_apart(Argument argument, const bl_tensor& output, const char* input_name, const void* input,
                      uint64_t input_bytes, bl_error* error);

// The rows of a tensor: its last axis is the row, all axes before it are counted together.
struct Rows {
  explicit Rows(const bl_tensor& tensor);

  int64_t count = 1;
  int64_t length = 1;
  int64_t stride = 1;  // in elements, within a row

  uint8_t* at(int64_t row) const;                      // first element of a row
  void load(int64_t row, float* values) const;         // [length], converted to f32
  void store(int64_t row, const float* values) const;  // [length], rounded to nearest even
  // The row itself when it is contiguous f32, else null: saves a copy.
  float* direct(int64_t row) const;

  bl_tensor tensor;
};

void load_values(int32_t dtype, const void* data, int64_t stride, int64_t count, float* values);
void store_values(int32_t dtype, void* data, int64_t stride, int64_t count, const float* values);

// Copies the caller's argument struct into one of this version: members that an older caller does not
// know are zero. False when args is null or its size is not a size this ABI has had.
template <typename Args>
bool read_args(const Args* args, Args* copy) {
  if (args == nullptr || args->size < sizeof(size_t) + sizeof(bl_run)) return false;
  *copy = Args{};
  const size_t bytes = args->size < sizeof(Args) ? args->size : sizeof(Args);
  __builtin_memcpy(static_cast<void*>(copy), args, bytes);
  copy->size = sizeof(Args);
  return true;
}

}  // namespace bitloom

// Begins an entry point: `args` becomes a checked copy named `name`.
#define BL_READ_ARGS(Type, op, name)                                   \
  Type name;                                                           \
  BL_CHECK(::bitloom::read_args(args, &name), invalid_argument,        \
           op ": args is null or args.size is not sizeof(" #Type ")"); \
  BL_RETURN_IF_ERROR(::bitloom::check_run(op, name.run, error))
