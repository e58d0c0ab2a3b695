// Packing keys and values of a chunk as integers. Included after amx_prompt.inl.
//
//   keys    [32 units][steps of 64 channels][16 quads][16 tokens] x 4 codes of k less the chunk's mean of its channel, which a
//           query's product with the mean puts back
//   values  [8 steps of 64 tokens][tiles of 16 channels][16 quads][16 channels] x 4 codes. Quad 4 l + j of a step has the tokens
//           16 j + 4 l and up: that is the order in which weights are packed

namespace {

constexpr int64_t kChunkSteps = kKeyChunk / 64;

int64_t steps_of(int64_t channels) { return (channels + 63) / 64; }
int64_t value_tiles(const AttentionCall& call) { return (call.value_dim + 31) / 32 * 2; }

// The parts of a packed chunk.
template <typename Byte>
struct PackedOf {
  using Float = std::conditional_t<std::is_const_v<Byte>, const float, float>;
  Byte *keys, *values;
  Float* mean;         // [steps * 64]
  Float* value_scale;  // [tiles * 16]
  Float* key_scale;    // [kBlocks]

  PackedOf(const AttentionCall& call, Byte* memory) : keys(memory) {
    values = keys + kKeyChunk / kUnit * steps_of(call.head_dim) * kTileBytes;
    mean = reinterpret_cast<Float*>(values + kChunkSteps * value_tiles(call) * kTileBytes);
    value_scale = mean + steps_of(call.head_dim) * 64;
    key_scale = value_scale + value_tiles(call) * 16;
  }
  static uint64_t bytes_of(const AttentionCall& call) {
    return static_cast<uint64_t>(steps_of(call.head_dim) * (kKeyChunk / kUnit * kTileBytes + 256) +
                                 value_tiles(call) * (kChunkSteps * kTileBytes + 64) + kBlocks * 4);
  }
};
using PackedI8 = PackedOf<const uint8_t>;

inline __m512i magnitude_of(__m512 x) {
  return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(0x7fffffff));
}
// Of magnitudes as bits, in which order infinity and NaN come last.
inline float largest_of(__m512i magnitudes) {
  return _mm_cvtss_f32(_mm_castsi128_ps(_mm_cvtsi32_si128(_mm512_reduce_max_epi32(magnitudes))));
}
// 127 / largest, or 0 where that is not finite.
inline float inverse_of(float largest) {
  const float inverse = 127 / largest;
  return inverse < __builtin_inff() ? inverse : 0;
}

// Four vectors of numbers up to 127, rounded to nearest even, as the bytes of dwords.
inline __m512i quads(__m512 a, __m512 b, __m512 c, __m512 d) {
  const __m512i byte = _mm512_set1_epi32(255);
  const __m512i low =
      _mm512_or_si512(_mm512_and_si512(_mm512_cvtps_epi32(a), byte),
                      _mm512_slli_epi32(_mm512_and_si512(_mm512_cvtps_epi32(b), byte), 8));
  const __m512i high = _mm512_or_si512(_mm512_slli_epi32(_mm512_and_si512(_mm512_cvtps_epi32(c), byte), 16),
                                       _mm512_slli_epi32(_mm512_cvtps_epi32(d), 24));
  return _mm512_or_si512(low, high);
}

struct PackMemory {
  float *rows, *scales, *spare;
  float* sums;  // [head_dim][16]: of keys, token by token of a unit
  float* all;   // the chunk's keys [32 units][head_dim][16 tokens], then its values [512][tiles * 16]
  uint64_t bytes;

  PackMemory(const AttentionCall& call, uint8_t* memory) {
    float* next = reinterpret_cast<float*>(memory);
    const auto take = [&](int64_t floats) {
      float* taken = next;
      next += padded16(floats);
      return taken;
    };
    rows = take(padded16(call.value_dim) * kUnit);
    scales = take(2 * call.head_dim);
    spare = take(padded16(std::max(call.head_dim, call.value_dim)) + kUnit * call.head_dim);
    sums = take(call.head_dim * kUnit);
    all = take(std::max(call.head_dim, value_tiles(call) * 16) * kKeyChunk);
    bytes = static_cast<uint64_t>(reinterpret_cast<uint8_t*>(next) - memory);
  }
};

// Lanes of a unit's tokens that are there.
inline __mmask16 tokens_of(int64_t count, int64_t unit) {
  const int64_t present = std::min(std::max<int64_t>(count - unit * kUnit, 0), kUnit);
  return static_cast<__mmask16>((1u << present) - 1);
}

// The chunk's keys to own.all, absent tokens 0, and their mean.
void gather_keys(const AttentionCall& call, const PackMemory& own, Units& units, int64_t first, int64_t count,
                 float* mean) {
  const int64_t panel = call.head_dim * kUnit;
  std::memset(own.sums, 0, static_cast<size_t>(panel) * sizeof(float));
  // Blocks end at whole pairs of units.
  for (int64_t u = 0; u < (count + 31) / 32 * 2; ++u) {
    const __mmask16 tokens = tokens_of(count, u);
    float* to = own.all + u * panel;
    const float* keys = tokens != 0 ? units.keys(first + u * kUnit, to) : to;
    for (int64_t i = 0; i < panel; i += kUnit) {
      const __m512 x = _mm512_maskz_loadu_ps(tokens, keys + i);
      _mm512_storeu_ps(to + i, x);
      _mm512_storeu_ps(own.sums + i, _mm512_add_ps(_mm512_loadu_ps(own.sums + i), x));
    }
  }
  for (int64_t i = 0; i < call.head_dim; ++i) {
    mean[i] = _mm512_reduce_add_ps(_mm512_loadu_ps(own.sums + i * kUnit)) / static_cast<float>(count);
  }
}

// Units [begin, end) of keys less the mean to codes. False if one is not finite.
bool quantize_keys(const PackMemory& own, int64_t head_dim, int64_t count, int64_t begin, int64_t end,
                   const float* mean, uint8_t* tiles, float* scale) {
  __m512i largest = _mm512_setzero_si512();
  for (int64_t u = begin; u < end; ++u) {
    const float* keys = own.all + u * head_dim * kUnit;
    const __mmask16 tokens = tokens_of(count, u);
    for (int64_t i = 0; i < head_dim; ++i) {
      const __m512 x = _mm512_maskz_sub_ps(tokens, _mm512_loadu_ps(keys + i * kUnit), _mm512_set1_ps(mean[i]));
      largest = _mm512_max_epi32(largest, magnitude_of(x));
    }
  }
  const float most = largest_of(largest);
  if (!(most < __builtin_inff())) return false;
  *scale = most / 127;
  const __m512 inverse = _mm512_set1_ps(inverse_of(most));
  const int64_t quads_of_unit = steps_of(head_dim) * 16;
  for (int64_t u = begin; u < end; ++u) {
    const float* keys = own.all + u * head_dim * kUnit;
    const __mmask16 tokens = tokens_of(count, u);
    for (int64_t quad = 0; quad < quads_of_unit; ++quad) {
      __m512 x[4];
      for (int64_t j = 0; j < 4; ++j) {
        const int64_t i = 4 * quad + j;
        const __m512 key = i < head_dim ? _mm512_loadu_ps(keys + i * kUnit) : _mm512_setzero_ps();
        x[j] = _mm512_maskz_mul_ps(tokens, _mm512_sub_ps(key, _mm512_set1_ps(mean[i])), inverse);
      }
      _mm512_storeu_si512(tiles + (u * quads_of_unit + quad) * 64, quads(x[0], x[1], x[2], x[3]));
    }
  }
  return true;
}

// The values in own.all, `count` tokens, to codes. False if one is not finite.
bool quantize_values(const PackMemory& own, int64_t count, int64_t tiles, uint8_t* to, float* scale) {
  const int64_t stride = tiles * 16;
  for (int64_t tile = 0; tile < tiles; ++tile) {
    const float* values = own.all + tile * 16;
    __m512i largest = _mm512_setzero_si512();
    for (int64_t s = 0; s < count; ++s) {
      largest = _mm512_max_epi32(largest, magnitude_of(_mm512_loadu_ps(values + s * stride)));
    }
    if (!(largest_of(largest) < __builtin_inff())) return false;
    const __m512 most = _mm512_castsi512_ps(largest);
    _mm512_storeu_ps(scale + tile * 16, _mm512_div_ps(most, _mm512_set1_ps(127)));
    __m512 inverse = _mm512_div_ps(_mm512_set1_ps(127), most);
    inverse = _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(inverse, _mm512_set1_ps(__builtin_inff()), _CMP_LT_OQ), inverse);
    for (int64_t step = 0; step < (count + 63) / 64; ++step) {
      for (int64_t quad = 0; quad < 16; ++quad) {
        const float* at = values + (step * 64 + quad % 4 * 16 + quad / 4 * 4) * stride;
        __m512 x[4];
        for (int64_t t = 0; t < 4; ++t) x[t] = _mm512_mul_ps(_mm512_loadu_ps(at + t * stride), inverse);
        _mm512_storeu_si512(to + (step * tiles + tile) * kTileBytes + quad * 64, quads(x[0], x[1], x[2], x[3]));
      }
    }
  }
  return true;
}

}  // namespace

bool pack_prompt_i8(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment, int64_t chunk,
                    uint8_t* packed, uint8_t* memory) {
  const PackMemory own(call, memory);
  const PackedOf<uint8_t> to(call, packed);
  Units units(call, sequence, kv_head, segment, own.scales, own.spare);
  const int64_t first = chunk * kKeyChunk;
  const int64_t count = std::min(units.count() - first, kKeyChunk);
  std::memset(to.mean, 0, static_cast<size_t>(steps_of(call.head_dim)) * 256);
  gather_keys(call, own, units, first, count, to.mean);
  for (int64_t b = 0; b * kBlock < count; ++b) {
    const int64_t begin = b * kBlock / kUnit, end = std::min(begin + kBlock / kUnit, (count + 31) / 32 * 2);
    if (!quantize_keys(own, call.head_dim, count, begin, end, to.mean, to.keys, to.key_scale + b)) return false;
  }
  const int64_t stride = value_tiles(call) * 16;
  const int64_t whole = (count + 63) / 64 * 64;  // absent tokens are 0
  std::memset(own.all + count * stride, 0, static_cast<size_t>((whole - count) * stride) * sizeof(float));
  for (int64_t u = 0; u * kUnit < count; ++u) {
    const float* rows = units.values(first + u * kUnit, own.rows, true);
    for (int64_t s = u * kUnit; s < std::min(count, (u + 1) * kUnit); ++s) {
      float* value = own.all + s * stride;
      std::memcpy(value, rows + (s - u * kUnit) * units.row_stride(),
                  static_cast<size_t>(call.value_dim) * sizeof(float));
      std::fill(value + call.value_dim, value + stride, 0.0f);
    }
  }
  return quantize_values(own, count, value_tiles(call), to.values, to.value_scale);
}
