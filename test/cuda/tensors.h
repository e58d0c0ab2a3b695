// Tensors that exist twice, on the host for the CPU's operator and on a test queue's device for the CUDA one.
// Device memory is exactly as long as the view's last element; what lies between elements is never written,
// so that reading it is a fault, and writing it is noticed.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

#include "harness.h"
#include "test_queue.h"

namespace bitloom::cuda::testing {

float to_f32(int32_t dtype, const void* element);
void from_f32(int32_t dtype, float value, void* element);  // to nearest even; integers are cut

class Tensor {
 public:
  // Contiguous unless strides are given. `offset`: elements of unused memory before the first one.
  Tensor(TestQueue& queue, int32_t dtype, std::vector<int64_t> shape, std::vector<int64_t> strides = {},
         int64_t offset = 0);

  // value(i), i counting the elements in row-major order, on both sides.
  Tensor& fill(const std::function<float(int64_t)>& value);
  Tensor& uniform(uint64_t seed, float scale = 1);       // in [-scale, scale]
  Tensor& integers(const std::vector<int32_t>& values);  // of an i32 tensor

  const bl_tensor& host() const { return host_view_; }
  const bl_tensor& device() const { return device_view_; }
  int64_t size() const { return static_cast<int64_t>(places_.size()); }

  float host_value(int64_t i) const;    // element i in row-major order
  std::vector<float> device_values();   // throws if one was never written
  std::vector<uint8_t> device_bytes();  // of the elements one after another
  std::vector<uint8_t> host_bytes() const;
  bool padding_untouched();

 private:
  TestQueue& queue_;
  int32_t dtype_;
  uint32_t element_bytes_;
  std::vector<int64_t> places_;  // of each element, in elements from the start of memory
  int64_t extent_ = 0;           // elements of memory
  std::vector<uint8_t> memory_;
  uint8_t* device_memory_;
  bl_tensor host_view_, device_view_;
};

// Elements agree: equal, both NaN, or within absolute + relative * |expected|; and the padding of `actual` is
// untouched. `expected` is the host side of a tensor of equal shape.
void check_close(Tensor& actual, const std::vector<float>& expected, double relative, double absolute,
                 const std::string& what);
// The device side has the host side's bits (any NaN for any NaN).
void check_same(Tensor& tensor, const std::string& what);
// One unit in the last place of 1.0: 2^-23, 2^-10, 2^-7.
double epsilon_of(int32_t dtype);
constexpr int32_t kFloatDtypes[] = {BL_DTYPE_f32, BL_DTYPE_f16, BL_DTYPE_bf16};

}  // namespace bitloom::cuda::testing
