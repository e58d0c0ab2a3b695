#include "tensors.h"

#include <cmath>
#include <cstring>

#include "native/base/float16.h"
#include "native/base/tensor.h"

namespace bitloom::cuda::testing {

float to_f32(int32_t dtype, const void* element) {
  switch (dtype) {
    case BL_DTYPE_f16:
      return f16_to_f32(load_as<uint16_t>(element));
    case BL_DTYPE_bf16:
      return bf16_to_f32(load_as<uint16_t>(element));
    case BL_DTYPE_i8:
      return load_as<int8_t>(element);
    case BL_DTYPE_u8:
      return load_as<uint8_t>(element);
    case BL_DTYPE_i32:
      return static_cast<float>(load_as<int32_t>(element));
    default:
      return load_as<float>(element);
  }
}

void from_f32(int32_t dtype, float value, void* element) {
  const auto put = [&](auto bits) { std::memcpy(element, &bits, sizeof(bits)); };
  switch (dtype) {
    case BL_DTYPE_f16:
      return put(f32_to_f16(value));
    case BL_DTYPE_bf16:
      return put(f32_to_bf16(value));
    case BL_DTYPE_i8:
      return put(static_cast<int8_t>(value));
    case BL_DTYPE_u8:
      return put(static_cast<uint8_t>(value));
    case BL_DTYPE_i32:
      return put(static_cast<int32_t>(value));
    default:
      return put(value);
  }
}

Tensor::Tensor(TestQueue& queue, int32_t dtype, std::vector<int64_t> shape, std::vector<int64_t> strides,
               int64_t offset)
    : queue_(queue), dtype_(dtype), element_bytes_(static_cast<uint32_t>(dtype_bytes(dtype))) {
  const size_t rank = shape.size();
  if (strides.empty()) {
    strides.assign(rank, 1);
    for (size_t axis = rank; axis-- > 1;) strides[axis - 1] = strides[axis] * shape[axis];
  }
  int64_t count = 1;
  for (int64_t size : shape) count *= size;
  for (int64_t i = 0; i < count; ++i) {
    int64_t place = offset, rest = i;
    for (size_t axis = rank; axis-- > 0;) {
      place += rest % shape[axis] * strides[axis];
      rest /= shape[axis];
    }
    places_.push_back(place);
    extent_ = std::max(extent_, place + 1);
  }
  memory_.assign(static_cast<size_t>(extent_) * element_bytes_, 0xa5);
  device_memory_ = static_cast<uint8_t*>(queue.allocate(memory_.size()));
  bl_tensor view{};
  view.dtype = dtype;
  view.rank = static_cast<int32_t>(rank);
  for (size_t axis = 0; axis < rank; ++axis) {
    view.shape[axis] = shape[axis];
    view.strides[axis] = strides[axis];
  }
  const int64_t skipped = count == 0 ? 0 : offset * element_bytes_;
  view.bytes = memory_.size() - static_cast<size_t>(skipped);
  host_view_ = device_view_ = view;
  host_view_.data = memory_.data() + skipped;
  device_view_.data = device_memory_ + skipped;
}

Tensor& Tensor::fill(const std::function<float(int64_t)>& value) {
  bool dense = true;
  for (int64_t i = 0; i < size(); ++i) {
    const int64_t at = places_[static_cast<size_t>(i)];
    from_f32(dtype_, value(i), memory_.data() + at * element_bytes_);
    dense = dense && at == i;
  }
  if (dense) {
    queue_.write(device_memory_, memory_.data(), memory_.size());
    return *this;
  }
  for (int64_t at : places_)
    queue_.write(device_memory_ + at * element_bytes_, memory_.data() + at * element_bytes_, element_bytes_);
  return *this;
}

Tensor& Tensor::uniform(uint64_t seed, float scale) {
  Random random(seed);
  return fill([&](int64_t) { return random.uniform() * scale; });
}

Tensor& Tensor::integers(const std::vector<int32_t>& values) {
  for (size_t i = 0; i < places_.size(); ++i) {
    const int64_t at = places_[i] * 4;
    std::memcpy(memory_.data() + at, &values[i], 4);
    queue_.write(device_memory_ + at, &values[i], 4);
  }
  return *this;
}

float Tensor::host_value(int64_t i) const {
  return to_f32(dtype_, memory_.data() + places_[static_cast<size_t>(i)] * element_bytes_);
}

std::vector<uint8_t> Tensor::host_bytes() const {
  std::vector<uint8_t> bytes(places_.size() * element_bytes_);
  for (size_t i = 0; i < places_.size(); ++i)
    std::memcpy(bytes.data() + i * element_bytes_, memory_.data() + places_[i] * element_bytes_,
                element_bytes_);
  return bytes;
}

std::vector<uint8_t> Tensor::device_bytes() {
  std::vector<uint8_t> bytes(places_.size() * element_bytes_);
  for (size_t i = 0; i < places_.size(); ++i)
    queue_.read(bytes.data() + i * element_bytes_, device_memory_ + places_[i] * element_bytes_,
                element_bytes_);
  return bytes;
}

std::vector<float> Tensor::device_values() {
  const std::vector<uint8_t> bytes = device_bytes();
  std::vector<float> values;
  for (size_t i = 0; i < places_.size(); ++i)
    values.push_back(to_f32(dtype_, bytes.data() + i * element_bytes_));
  return values;
}

bool Tensor::padding_untouched() {
  std::vector<bool> used(static_cast<size_t>(extent_), false);
  for (int64_t at : places_) used[static_cast<size_t>(at)] = true;
  for (int64_t at = 0; at < extent_; ++at) {
    if (used[static_cast<size_t>(at)]) continue;
    for (uint32_t byte = 0; byte < element_bytes_; ++byte) {
      if (queue_.is_written(device_memory_ + at * element_bytes_ + byte, 1)) return false;
    }
  }
  return true;
}

void check_close(Tensor& actual, const std::vector<float>& expected, double relative, double absolute,
                 const std::string& what) {
  const std::vector<float> values = actual.device_values();
  if (values.size() != expected.size()) return check(false, what + ": another number of elements");
  for (size_t i = 0; i < values.size(); ++i) {
    const double want = expected[i], got = values[i];
    const bool same = want == got || (std::isnan(want) && std::isnan(got));
    if (same || std::fabs(want - got) <= absolute + relative * std::fabs(want)) continue;
    return check(false, what + ": element " + std::to_string(i) + " is " + std::to_string(got) +
                            ", expected " + std::to_string(want) + ", difference " +
                            std::to_string((got - want) * 1e6) + "e-6");
  }
  check(true, what);
  check(actual.padding_untouched(), what + ": wrote between the elements");
}

void check_same(Tensor& tensor, const std::string& what) {
  const std::vector<float> values = tensor.device_values();
  const std::vector<uint8_t> device = tensor.device_bytes(), host = tensor.host_bytes();
  const size_t width = values.empty() ? 1 : device.size() / values.size();
  for (size_t i = 0; i < values.size(); ++i) {
    const bool same = std::memcmp(device.data() + i * width, host.data() + i * width, width) == 0;
    const float want = tensor.host_value(static_cast<int64_t>(i));
    if (same || (std::isnan(want) && std::isnan(values[i]))) continue;
    return check(false, what + ": element " + std::to_string(i) + " is " + std::to_string(values[i]) +
                            ", expected the bits of " + std::to_string(want));
  }
  check(true, what);
  check(tensor.padding_untouched(), what + ": wrote between the elements");
}

double epsilon_of(int32_t dtype) {
  return dtype == BL_DTYPE_f32 ? 0x1p-23 : dtype == BL_DTYPE_f16 ? 0x1p-10 : 0x1p-7;
}

}  // namespace bitloom::cuda::testing
