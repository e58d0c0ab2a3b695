// Scores of a row to weights in 0 to 255. Part of amx_prompt_i8.cc.

namespace {

// A row's scores less its base where all keys are seen and the base stays.
[[gnu::always_inline]] inline void TaskI8::begin_row(Weighed& w, int64_t i, const Block& block,
                                                     const Seen& seen, int64_t buffer) {
  constexpr int kVectors = kBlock / 16;
  const int32_t* from = scores[buffer] + i * kBlock;
  const float scale = query_scale[i] * key_scale[block.offset / kBlock];
  const bool plain = !terms && seen.all;
  __m512i x[kVectors];
  for (int v = 0; v < kVectors; ++v) x[v] = _mm512_loadu_si512(from + 16 * v);
  // The base of a chunk comes from its first block.
  if (plain && block.first) {
    const __m512i largest =
        _mm512_max_epi32(_mm512_max_epi32(_mm512_max_epi32(x[0], x[1]), _mm512_max_epi32(x[2], x[3])),
                         _mm512_max_epi32(_mm512_max_epi32(x[4], x[5]), _mm512_max_epi32(x[6], x[7])));
    base[parity][i] = fmaf(static_cast<float>(_mm512_reduce_max_epi32(largest)), scale, offset[i]) + kRoom;
  }
  const __m512 by = _mm512_set1_ps(scale), shift = _mm512_set1_ps(offset[i] - base[parity][i] + kTop);
  for (int v = 0; v < kVectors; ++v) w.y[v] = _mm512_fmadd_ps(_mm512_cvtepi32_ps(x[v]), by, shift);
  if (!plain || !block.first) {
    const __m512 largest =
        _mm512_max_ps(_mm512_max_ps(_mm512_max_ps(w.y[0], w.y[1]), _mm512_max_ps(w.y[2], w.y[3])),
                      _mm512_max_ps(_mm512_max_ps(w.y[4], w.y[5]), _mm512_max_ps(w.y[6], w.y[7])));
    if (!plain || _mm512_cmp_ps_mask(largest, _mm512_set1_ps(kTop), _CMP_GT_OQ) != 0) {
      prepare(i, block, seen, from, scale);
      for (int v = 0; v < kVectors; ++v) w.y[v] = _mm512_loadu_ps(row + 16 * v);
    }
  }
  w.to = weight_row(parity, i, block.offset / 64);
}

// The same, to `row`, where there are terms, not all keys are seen, or the base must rise.
[[gnu::noinline]] void TaskI8::prepare(int64_t i, const Block& block, const Seen& seen, const int32_t* from,
                                       float scale) {
  for (int64_t s = 0; s < kBlock; s += 16) {
    const __m512 x = _mm512_cvtepi32_ps(_mm512_loadu_si512(from + s));
    _mm512_storeu_ps(row + s, _mm512_fmadd_ps(x, _mm512_set1_ps(scale), _mm512_set1_ps(offset[i])));
  }
  if (terms) add_terms(call, rows[i], block.at, block.present, row);
  const __m512 unit = _mm512_set1_ps(terms ? kLog2E : 1);
  __m512 largest = _mm512_set1_ps(kMinusInfinity);
  for (int v = 0; v < kBlock / 16; ++v) {
    const __mmask16 keys = static_cast<__mmask16>(seen.keys[v / 4] >> (v % 4 * 16));
    __m512 x = _mm512_mask_mul_ps(_mm512_set1_ps(kMinusInfinity), keys, _mm512_loadu_ps(row + 16 * v), unit);
    // NaN and +infinity, which codes can not hold
    const __mmask16 odd = _mm512_fpclass_ps_mask(x, 0x89);
    if (odd != 0) poison[parity][i] = __builtin_nanf("");
    x = _mm512_mask_mov_ps(x, odd, _mm512_setzero_ps());
    _mm512_storeu_ps(row + 16 * v, x);
    largest = _mm512_max_ps(largest, x);
  }
  const float most = _mm512_reduce_max_ps(largest);
  if (most > base[parity][i]) raise(i, most, block.offset / 64);
  // Nothing seen yet: -infinity stays.
  const float less = base[parity][i] == kMinusInfinity ? 0 : kTop - base[parity][i];
  for (int64_t s = 0; s < kBlock; s += 16) {
    _mm512_storeu_ps(row + s, _mm512_add_ps(_mm512_loadu_ps(row + s), _mm512_set1_ps(less)));
  }
}

template <int kPart>
[[gnu::always_inline]] inline void TaskI8::weigh(Weighed& w) {
  const __m512i low = _mm512_cvtps_epi32(exp2_weight(w.y[2 * kPart]));
  const __m512i high = _mm512_cvtps_epi32(exp2_weight(w.y[2 * kPart + 1]));
  const __m512i both = _mm512_packus_epi32(low, high);
  if constexpr (kPart % 2 == 0) {
    w.half = both;
  } else {
    _mm512_storeu_si512(w.to + kPart / 2 * kTileBytes, _mm512_packus_epi16(w.half, both));
  }
}

// A row's base to one at or above `largest`: that itself, or a whole number above the one before, so that the
// weights of the chunk so far are halved.
[[gnu::noinline]] void TaskI8::raise(int64_t i, float largest, int64_t step) {
  const float before = base[parity][i];
  const float by = before == kMinusInfinity ? 0 : std::ceil(largest - before);
  base[parity][i] = before == kMinusInfinity ? largest + kRoom : before + by;
  const int bits = by < 16 ? static_cast<int>(by) : 16;
  const __m512i half = _mm512_set1_epi16(static_cast<int16_t>(1 << bits >> 1));
  for (int64_t j = begin[parity]; j < step; ++j) {
    __m256i* at = reinterpret_cast<__m256i*>(weight_row(parity, i, j));
    for (int part = 0; part < 2; ++part) {
      const __m512i w = _mm512_add_epi16(_mm512_cvtepu8_epi16(_mm256_loadu_si256(at + part)), half);
      _mm256_storeu_si256(at + part, _mm512_cvtepi16_epi8(_mm512_srl_epi16(w, _mm_cvtsi32_si128(bits))));
    }
  }
}

}  // namespace
