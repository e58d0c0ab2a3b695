// Vector kernels of the elementwise operators, one text for all vector levels; see kernel.h for the contract.

void silu_f32(const float* left, const float*, float* output, int64_t count) {
  for_each_vec(count, [=](int64_t i, auto part) {
    const Vec x = part.load(left + i);
    part.store(output + i, times_sigmoid(x, x));
  });
}

void gelu_erf_f32(const float* left, const float*, float* output, int64_t count) {
  for_each_vec(count, [=](int64_t i, auto part) {
    const Vec x = part.load(left + i);
    const Vec tail = normal_tail(abs(x));
    part.store(output + i, x * if_negative(x, tail, Vec::set(1.0f) - tail));
  });
}

void gelu_tanh_f32(const float* left, const float*, float* output, int64_t count) {
  // (1 + tanh(z)) / 2 = sigmoid(2 z), 2 z = sqrt(8 / pi) x (1 + 0.044715 x^2)
  for_each_vec(count, [=](int64_t i, auto part) {
    const Vec x = part.load(left + i);
    const Vec cubic = fma(x * x, Vec::set(0.044715f), Vec::set(1.0f));
    part.store(output + i, times_sigmoid(x, x * Vec::set(1.59576912160573f) * cubic));
  });
}

void swiglu_f32(const float* left, const float* right, float* output, int64_t count) {
  // right first: what it loses among the subnormals stays small, since |left| is when the sigmoid is not 1.
  for_each_vec(count, [=](int64_t i, auto part) {
    const Vec x = part.load(left + i);
    part.store(output + i, times_sigmoid(part.load(right + i), x) * x);
  });
}

void add_f32(const float* left, const float* right, float* output, int64_t count) {
  for_each_vec(count, [=](int64_t i, auto part) {
    part.store(output + i, part.load(left + i) + part.load(right + i));
  });
}

void mul_f32(const float* left, const float* right, float* output, int64_t count) {
  for_each_vec(count, [=](int64_t i, auto part) {
    part.store(output + i, part.load(left + i) * part.load(right + i));
  });
}
