// Packing keys and values of a chunk in bf16: tiles as they are loaded. Included after amx_prompt.inl.
//
//   keys    [32 units][steps of 32 channels][16 pairs][16 tokens] x 2
//   values  [16 steps of 32 tokens][tiles of 16 channels][16 pairs][16 channels] x 2

namespace {

constexpr int64_t kChunkSteps = kKeyChunk / 32;

int64_t steps_of(int64_t channels) { return (channels + 31) / 32; }
int64_t value_tiles(const AttentionCall& call) { return (call.value_dim + 31) / 32 * 2; }
int64_t key_unit_bytes(const AttentionCall& call) { return steps_of(call.head_dim) * kTileBytes; }
int64_t value_step_bytes(const AttentionCall& call) { return value_tiles(call) * kTileBytes; }
int64_t key_bytes(const AttentionCall& call) { return kKeyChunk / kUnit * key_unit_bytes(call); }

// Pairs of bf16: `low` in the lower half of each dword.
inline __m512i pairs(__m512 low, __m512 high) {
  const __m256i a = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(low));
  const __m256i b = reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(high));
  return _mm512_or_si512(_mm512_cvtepu16_epi32(a), _mm512_slli_epi32(_mm512_cvtepu16_epi32(b), 16));
}

struct PackMemory {
  float *panel, *rows, *scales, *spare;
  uint64_t bytes;

  PackMemory(const AttentionCall& call, uint8_t* memory) {
    float* next = reinterpret_cast<float*>(memory);
    const auto take = [&](int64_t floats) {
      float* taken = next;
      next += padded16(floats);
      return taken;
    };
    panel = take(call.head_dim * kUnit);
    rows = take(padded16(call.value_dim) * kUnit);
    scales = take(2 * call.head_dim);
    spare = take(padded16(std::max(call.head_dim, call.value_dim)) + kUnit * call.head_dim);
    bytes = static_cast<uint64_t>(reinterpret_cast<uint8_t*>(next) - memory);
  }
};

void pack_keys(const float* panel, int64_t head_dim, int64_t present, uint8_t* tiles) {
  // Tokens that are not there get 0, as what stands in their lanes may be anything.
  const __mmask16 tokens = static_cast<__mmask16>((1u << present) - 1);
  for (int64_t i = 0; i < steps_of(head_dim) * 16; ++i) {
    const __m512 low =
        2 * i < head_dim ? _mm512_maskz_loadu_ps(tokens, panel + 2 * i * kUnit) : _mm512_setzero_ps();
    const __m512 high = 2 * i + 1 < head_dim ? _mm512_maskz_loadu_ps(tokens, panel + (2 * i + 1) * kUnit)
                                             : _mm512_setzero_ps();
    _mm512_storeu_si512(tiles + i * 64, pairs(low, high));
  }
}

// Values of a unit to pairs half * 8 and up of a step's tiles. False if one is not finite.
bool pack_values(const float* rows, int64_t stride, int64_t value_dim, int64_t present, int64_t half,
                 uint8_t* tiles) {
  __m512 sum = _mm512_setzero_ps();
  for (int64_t c = 0; c < (value_dim + 31) / 32 * 32; c += 16) {
    const int64_t left = value_dim - c;
    const __mmask16 channels = left >= 16  ? __mmask16{0xffff}
                               : left <= 0 ? __mmask16{0}
                                           : static_cast<__mmask16>((1u << left) - 1);
    for (int64_t i = 0; i < 8; ++i) {
      const auto load = [&](int64_t token) {
        return token < present ? _mm512_maskz_loadu_ps(channels, rows + token * stride + c)
                               : _mm512_setzero_ps();
      };
      const __m512 low = load(2 * i), high = load(2 * i + 1);
      const __m512i both = pairs(low, high);
      // x * 0 is 0 for finite x and NaN for others; as bf16, where large numbers round to infinity.
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_slli_epi32(both, 16)), _mm512_setzero_ps(), sum);
      sum = _mm512_fmadd_ps(_mm512_castsi512_ps(_mm512_and_si512(both, _mm512_set1_epi32(-65536))),
                            _mm512_setzero_ps(), sum);
      _mm512_storeu_si512(tiles + c / 16 * kTileBytes + (half * 8 + i) * 64, both);
    }
  }
  return _mm512_reduce_add_ps(sum) == 0;
}

}  // namespace

bool pack_prompt_bf16(const AttentionCall& call, int64_t sequence, int64_t kv_head, int32_t segment,
                      int64_t chunk, uint8_t* packed, uint8_t* memory) {
  const PackMemory own(call, memory);
  Units units(call, sequence, kv_head, segment, own.scales, own.spare);
  const int64_t first = chunk * kKeyChunk;
  const int64_t count = std::min(units.count() - first, kKeyChunk);
  uint8_t* const values = packed + key_bytes(call);
  bool finite = true;
  // To whole steps of 32 tokens: absent ones are 0.
  for (int64_t unit = 0; unit < (count + 31) / 32 * 2; ++unit) {
    const int64_t present = std::min(std::max<int64_t>(count - unit * kUnit, 0), kUnit);
    uint8_t* tiles = values + unit / 2 * value_step_bytes(call);
    const float* panel = own.panel;
    const float* rows = own.rows;
    if (present > 0) panel = units.keys(first + unit * kUnit, own.panel);
    pack_keys(panel, call.head_dim, present, packed + unit * key_unit_bytes(call));
    if (present > 0) rows = units.values(first + unit * kUnit, own.rows, false);
    finite &= pack_values(rows, units.row_stride(), call.value_dim, present, unit % 2, tiles);
  }
  return finite;
}
