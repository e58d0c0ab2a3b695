#include "weights.h"

namespace bitloom::cuda::testing {

std::vector<float> codebook_for(int32_t format) {
  const bl_format_info& info = *bl_get_format_info(format);
  std::vector<float> levels;
  const int tables = info.kind == BL_KIND_codebook ? 1 : info.kind == BL_KIND_codebooks ? 3 : 0;
  const int count = tables << info.bits;
  for (int i = 0; i < count; ++i) {
    const float at = static_cast<float>(i % (1 << info.bits)) / static_cast<float>(1 << info.bits);
    levels.push_back((2 * at - 0.93f) * static_cast<float>(1 + i / (1 << info.bits)));
  }
  return levels;
}

Weights::Weights(TestQueue& queue, int32_t format, int64_t rows, int64_t cols, float tensor_scale,
                 bool random_bytes)
    : memory_(bl_weights_bytes(format, rows, cols)), codebook_(codebook_for(format)) {
  std::vector<float> values(static_cast<size_t>(rows * cols));
  Random random(11);
  for (float& value : values) value = random.uniform();
  host_.data = memory_.data();
  host_.bytes = memory_.size();
  host_.format = format;
  host_.rows = rows;
  host_.cols = cols;
  host_.tensor_scale = tensor_scale;
  if (!codebook_.empty()) {
    host_.codebook = codebook_.data();
    host_.codebook_size = static_cast<int32_t>(codebook_.size());
  }
  bl_quantize_args args{};
  args.size = sizeof(args);
  args.run.isa = BL_ISA_default;
  args.input.data = values.data();
  args.input.bytes = values.size() * 4;
  args.input.rank = 2;
  args.input.shape[0] = rows, args.input.shape[1] = cols;
  args.input.strides[0] = cols, args.input.strides[1] = 1;
  args.output = host_;
  bl_error error{};
  if (random_bytes) {
    for (uint8_t& byte : memory_) byte = static_cast<uint8_t>(random.next() >> 20);
    // Of formats whose blocks begin with a scale of a byte: every kind of it.
    const uint8_t scales[] = {0, 255, 127, 1, 128};
    const int64_t row = static_cast<int64_t>(bl_row_bytes(format, cols));
    for (int64_t r = 0; r < rows; ++r) memory_[static_cast<size_t>(r * row)] = scales[r % 5];
  } else {
    check_ok(bl_quantize(&args, &error), error,
             std::string("weights of ") + bl_get_format_info(format)->name);
  }
  device_ = host_;
  device_.data = queue.allocate(memory_.size());
  queue.write(device_.data, memory_.data(), memory_.size());
}

}  // namespace bitloom::cuda::testing
