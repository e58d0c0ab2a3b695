#include "tensor.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstring>

#include "float16.h"

namespace bitloom {

namespace {

constexpr int64_t kMaxElements = int64_t{1} << 60;

// Elements from the first to one past the last, or -1 on overflow; 0 when empty.
int64_t extent(const bl_tensor& tensor) {
  int64_t last = 0;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] == 0) return 0;
    int64_t span = 0;
    if (__builtin_mul_overflow(tensor.shape[axis] - 1, tensor.strides[axis], &span) ||
        __builtin_add_overflow(last, span, &last)) {
      return -1;
    }
  }
  return last < kMaxElements ? last + 1 : -1;
}

}  // namespace

const char* dtype_name(int32_t dtype) {
  switch (dtype) {
#define BL_DTYPE(name, value, bytes, typed_array) \
  case value:                                     \
    return #name;
#include "dtypes.inc"
#undef BL_DTYPE
    default:
      return "unknown";
  }
}

int64_t dtype_bytes(int32_t dtype) {
  switch (dtype) {
#define BL_DTYPE(name, value, bytes, typed_array) \
  case value:                                     \
    return bytes;
#include "dtypes.inc"
#undef BL_DTYPE
    default:
      return 0;
  }
}

int64_t element_count(const bl_tensor& tensor) {
  int64_t count = 1;
  for (int axis = 0; axis < tensor.rank; ++axis) count *= tensor.shape[axis];
  return count;
}

bool is_contiguous(const bl_tensor& tensor) {
  int64_t expected = 1;
  for (int axis = tensor.rank - 1; axis >= 0; --axis) {
    if (tensor.shape[axis] != 1 && tensor.strides[axis] != expected) return false;
    expected *= tensor.shape[axis];
  }
  return true;
}

bl_status check_tensor(Argument argument, const bl_tensor& tensor, uint32_t dtypes, int min_rank,
                       int max_rank, bl_error* error) {
  const char* op = argument.op;
  const char* name = argument.name;
  BL_CHECK(dtype_bytes(tensor.dtype) != 0, invalid_dtype, "%s: %s.dtype is %d, expected a known dtype", op,
           name, tensor.dtype);
  if ((dtypes & dtype_bit(tensor.dtype)) == 0) {
    char expected[64] = "";
    for (int32_t dtype = 0; dtype_bytes(dtype) != 0; ++dtype) {
      if ((dtypes & dtype_bit(dtype)) == 0) continue;
      if (expected[0] != 0) std::strncat(expected, " or ", sizeof(expected) - 1 - std::strlen(expected));
      std::strncat(expected, dtype_name(dtype), sizeof(expected) - 1 - std::strlen(expected));
    }
    return fail(error, BL_STATUS_invalid_dtype, "%s: %s.dtype is %s, expected %s", op, name,
                dtype_name(tensor.dtype), expected);
  }
  if (min_rank == max_rank) {
    BL_CHECK(tensor.rank == min_rank, invalid_shape, "%s: %s.rank is %d, expected %d", op, name, tensor.rank,
             min_rank);
  }
  BL_CHECK(tensor.rank >= min_rank && tensor.rank <= max_rank, invalid_shape,
           "%s: %s.rank is %d, expected %d to %d", op, name, tensor.rank, min_rank, max_rank);
  int64_t count = 1;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    BL_CHECK(tensor.shape[axis] >= 0, invalid_shape, "%s: %s.shape[%d] is %lld, expected at least 0", op,
             name, axis, static_cast<long long>(tensor.shape[axis]));
    BL_CHECK(tensor.strides[axis] >= 0, invalid_shape, "%s: %s.strides[%d] is %lld, expected at least 0", op,
             name, axis, static_cast<long long>(tensor.strides[axis]));
    BL_CHECK(!__builtin_mul_overflow(count, std::max<int64_t>(tensor.shape[axis], 1), &count) &&
                 count < kMaxElements,
             invalid_shape, "%s: %s.shape has more than 2^60 elements", op, name);
  }
  const int64_t elements = extent(tensor);
  BL_CHECK(elements >= 0, invalid_shape, "%s: %s.strides reach further than 2^60 elements", op, name);
  if (elements == 0) return BL_STATUS_ok;
  BL_CHECK(tensor.data != nullptr, invalid_argument, "%s: %s.data is null, expected %lld elements", op, name,
           static_cast<long long>(elements));
  const uint64_t needed = static_cast<uint64_t>(elements) * static_cast<uint64_t>(dtype_bytes(tensor.dtype));
  BL_CHECK(tensor.bytes >= needed, buffer_too_small,
           "%s: %s.bytes is %llu, expected at least %llu for its shape and strides", op, name,
           static_cast<unsigned long long>(tensor.bytes), static_cast<unsigned long long>(needed));
  return BL_STATUS_ok;
}

bl_status check_output(Argument argument, const bl_tensor& tensor, uint32_t dtypes, int min_rank,
                       int max_rank, bl_error* error) {
  BL_RETURN_IF_ERROR(check_tensor(argument, tensor, dtypes, min_rank, max_rank, error));
  // Axes by stride, innermost first: each must step over all that lies inside it.
  int order[BL_MAX_RANK] = {};
  int axes = 0;
  for (int axis = 0; axis < tensor.rank; ++axis) {
    if (tensor.shape[axis] == 0) return BL_STATUS_ok;
    if (tensor.shape[axis] == 1) continue;
    int place = axes++;
    for (; place > 0 && tensor.strides[order[place - 1]] > tensor.strides[axis]; --place) {
      order[place] = order[place - 1];
    }
    order[place] = axis;
  }
  int64_t inside = 1;
  for (int i = 0; i < axes; ++i) {
    const int64_t stride = tensor.strides[order[i]];
    BL_CHECK(stride >= inside, invalid_shape,
             "%s: %s.strides[%d] is %lld, expected at least %lld: an output must not overlap itself",
             argument.op, argument.name, order[i], static_cast<long long>(stride),
             static_cast<long long>(inside));
    inside = stride * (tensor.shape[order[i]] - 1) + inside;
  }
  return BL_STATUS_ok;
}

bl_status check_dim(Argument argument, const bl_tensor& tensor, int axis, int64_t expected,
                    const char* expected_name, bl_error* error) {
  BL_CHECK(tensor.shape[axis] == expected, invalid_shape, "%s: %s.shape[%d] is %lld, expected %lld (= %s)",
           argument.op, argument.name, axis, static_cast<long long>(tensor.shape[axis]),
           static_cast<long long>(expected), expected_name);
  return BL_STATUS_ok;
}

bl_status check_same_shape(Argument argument, const bl_tensor& tensor, const char* expected_name,
                           const bl_tensor& expected, bl_error* error) {
  BL_CHECK(tensor.rank == expected.rank, invalid_shape, "%s: %s.rank is %d, expected %d (= %s.rank)",
           argument.op, argument.name, tensor.rank, expected.rank, expected_name);
  for (int axis = 0; axis < tensor.rank; ++axis) {
    BL_CHECK(tensor.shape[axis] == expected.shape[axis], invalid_shape,
             "%s: %s.shape[%d] is %lld, expected %lld (= %s.shape[%d])", argument.op, argument.name, axis,
             static_cast<long long>(tensor.shape[axis]), static_cast<long long>(expected.shape[axis]),
             expected_name, axis);
  }
  return BL_STATUS_ok;
}

bl_status check_optional_vector(Argument argument, const bl_tensor& tensor, uint32_t dtypes, int64_t size,
                                const char* size_name, bl_error* error) {
  if (tensor.data == nullptr) return BL_STATUS_ok;
  BL_RETURN_IF_ERROR(check_tensor(argument, tensor, dtypes, 1, 1, error));
  BL_RETURN_IF_ERROR(check_dim(argument, tensor, 0, size, size_name, error));
  BL_CHECK(is_contiguous(tensor), invalid_shape, "%s: %s.strides[0] is %lld, expected 1", argument.op,
           argument.name, static_cast<long long>(tensor.strides[0]));
  return BL_STATUS_ok;
}

bl_status check_weights(Argument argument, const bl_weights& weights, bl_error* error) {
  const char* op = argument.op;
  const char* name = argument.name;
  const bl_format_info* info = bl_get_format_info(weights.format);
  BL_CHECK(info != nullptr, invalid_format, "%s: %s.format is %d, expected a known format", op, name,
           weights.format);
  BL_CHECK(weights.layout >= BL_LAYOUT_canonical && weights.layout <= BL_LAYOUT_fragments, invalid_layout,
           "%s: %s.layout is %d, expected 0 (canonical), 1 (lanes16) or 2 (fragments)", op, name,
           weights.layout);
  BL_CHECK(weights.rows >= 0 && weights.cols >= 0, invalid_shape,
           "%s: %s is %lld x %lld, expected dimensions of at least 0", op, name,
           static_cast<long long>(weights.rows), static_cast<long long>(weights.cols));
  BL_CHECK(
      info->block_elements == 0 || info->kind != BL_KIND_block || weights.cols % info->block_elements == 0,
      invalid_shape, "%s: %s.cols is %lld, expected a multiple of %d (the block of %s)", op, name,
      static_cast<long long>(weights.cols), info->block_elements, info->name);
  const uint64_t needed = bl_layout_bytes(weights.format, weights.layout, weights.rows, weights.cols);
  BL_CHECK(needed != 0 || weights.rows == 0 || weights.cols == 0, invalid_shape,
           "%s: %s is %lld x %lld, more than 2^62 bytes", op, name, static_cast<long long>(weights.rows),
           static_cast<long long>(weights.cols));
  BL_CHECK(weights.bytes >= needed, buffer_too_small, "%s: %s.bytes is %llu, expected at least %llu", op,
           name, static_cast<unsigned long long>(weights.bytes), static_cast<unsigned long long>(needed));
  BL_CHECK(needed == 0 || weights.data != nullptr, invalid_argument, "%s: %s.data is null", op, name);
  BL_CHECK(weights.tensor_scale >= 0 && std::isfinite(weights.tensor_scale), invalid_argument,
           "%s: %s.tensor_scale is %g, expected a finite number of at least 0 (0: 1)", op, name,
           static_cast<double>(weights.tensor_scale));
  if (info->kind == BL_KIND_codebook) {
    BL_CHECK(weights.codebook != nullptr && weights.codebook_size == 1 << info->bits, invalid_argument,
             "%s: %s.codebook has %d entries, expected %d (format %s)", op, name,
             weights.codebook == nullptr ? 0 : weights.codebook_size, 1 << info->bits, info->name);
  }
  // Tables that a byte can number; those of 3 and 4 bits have built-in ones.
  if (info->kind == BL_KIND_codebooks && (weights.codebook != nullptr || info->bits == 2)) {
    const int32_t size = weights.codebook == nullptr ? 0 : weights.codebook_size;
    BL_CHECK(size > 0 && size % (1 << info->bits) == 0 && size <= 256 << info->bits, invalid_argument,
             "%s: %s.codebook has %d entries, expected 1 to 256 tables of %d (format %s)", op, name, size,
             1 << info->bits, info->name);
  }
  return BL_STATUS_ok;
}

SupportedIsas::SupportedIsas() {
  size_t length = 0;
  for (int32_t isa = 0; bl_isa_name(isa) != nullptr; ++isa) {
    if (bl_isa_supported(isa) == 0) continue;
    length += static_cast<size_t>(std::snprintf(names + length, sizeof(names) - length, "%s%s",
                                                length == 0 ? "" : ", ", bl_isa_name(isa)));
  }
}

bl_status check_run(const char* op, const bl_run& run, bl_error* error) {
  BL_CHECK(run.isa == BL_ISA_default || bl_isa_name(run.isa) != nullptr, invalid_argument,
           "%s: run.isa is %d, expected a known level", op, run.isa);
  BL_CHECK(run.isa == BL_ISA_default || bl_isa_supported(run.isa) != 0, unsupported,
           "%s: run.isa is %s, expected one of %s (what this machine has)", op, bl_isa_name(run.isa),
           SupportedIsas().names);
  BL_CHECK(run.threads >= 0 && run.threads <= 256, invalid_argument,
           "%s: run.threads is %d, expected 0 to 256", op, run.threads);
  BL_CHECK(run.device >= 0, invalid_argument, "%s: run.device is %d, expected 0 (the cpu) or more", op,
           run.device);
  return BL_STATUS_ok;
}

bool overlaps(const void* a, uint64_t a_bytes, const void* b, uint64_t b_bytes) {
  const uintptr_t a_begin = reinterpret_cast<uintptr_t>(a);
  const uintptr_t b_begin = reinterpret_cast<uintptr_t>(b);
  return a_bytes != 0 && b_bytes != 0 && a_begin < b_begin + b_bytes && b_begin < a_begin + a_bytes;
}

namespace {

uint64_t used_bytes(const bl_tensor& tensor) {
  return static_cast<uint64_t>(extent(tensor)) * static_cast<uint64_t>(dtype_bytes(tensor.dtype));
}

}  // namespace

bl_status check_apart(Argument argument, const bl_tensor& output, const char* input_name, const void* input,
                      uint64_t input_bytes, bl_error* error) {
  BL_CHECK(!overlaps(output.data, used_bytes(output), input, input_bytes), invalid_argument,
           "%s: %s overlaps %s, expected separate memory", argument.op, argument.name, input_name);
  return BL_STATUS_ok;
}

bl_status check_alias(Argument argument, const bl_tensor& output, const char* input_name,
                      const bl_tensor& input, bl_error* error) {
  if (input.data == nullptr) return BL_STATUS_ok;
  bool same = output.data == input.data && output.dtype == input.dtype && output.rank == input.rank;
  for (int axis = 0; same && axis < output.rank; ++axis) {
    same = output.shape[axis] == input.shape[axis] &&
           (output.shape[axis] <= 1 || output.strides[axis] == input.strides[axis]);
  }
  BL_CHECK(same || !overlaps(output.data, used_bytes(output), input.data, used_bytes(input)),
           invalid_argument, "%s: %s overlaps %s in part, expected the same view or separate memory",
           argument.op, argument.name, input_name);
  return BL_STATUS_ok;
}

Rows::Rows(const bl_tensor& view) : tensor(view) {
  if (view.rank == 0) return;
  length = view.shape[view.rank - 1];
  stride = view.strides[view.rank - 1];
  for (int axis = 0; axis + 1 < view.rank; ++axis) count *= view.shape[axis];
}

uint8_t* Rows::at(int64_t row) const {
  int64_t offset = 0;
  for (int axis = tensor.rank - 2; axis >= 0; --axis) {
    offset += row % tensor.shape[axis] * tensor.strides[axis];
    row /= tensor.shape[axis];
  }
  return static_cast<uint8_t*>(tensor.data) + offset * dtype_bytes(tensor.dtype);
}

void Rows::load(int64_t row, float* values) const {
  load_values(tensor.dtype, at(row), stride, length, values);
}

void Rows::store(int64_t row, const float* values) const {
  store_values(tensor.dtype, at(row), stride, length, values);
}

float* Rows::direct(int64_t row) const {
  if (tensor.dtype != BL_DTYPE_f32 || (stride != 1 && length > 1)) return nullptr;
  uint8_t* address = at(row);
  return reinterpret_cast<uintptr_t>(address) % alignof(float) == 0 ? reinterpret_cast<float*>(address)
                                                                    : nullptr;
}

}  // namespace bitloom
