// The codes of a chunk (16 rows x 32 weights), a byte each. Included in regions of levels avx512 and amx.

// Byte 16 j + r of a run of 1 or 2 bits to byte 4 r + j.
inline __m512i by_row(__m512i run) {
  const __m512i rows = _mm512_setr_epi32(
      0x30201000, 0x31211101, 0x32221202, 0x33231303, 0x34241404, 0x35251505, 0x36261606, 0x37271707, 0x38281808,
      0x39291909, 0x3a2a1a0a, 0x3b2b1b0b, 0x3c2c1c0c, 0x3d2d1d0d, 0x3e2e1e0e, 0x3f2f1f0f);
  return _mm512_permutexvar_epi8(rows, run);
}

// Bits [from, from + width) of every byte, moved to bit `to`, or'ed to `codes`.
template <int kFrom, int kWidth, int kTo>
inline __m512i place_bits(__m512i codes, __m512i bytes) {
  const __m512i mask = _mm512_set1_epi8(static_cast<char>(((1 << kWidth) - 1) << kTo));
  __m512i moved = bytes;
  if constexpr (kFrom > kTo) moved = _mm512_srli_epi16(bytes, kFrom - kTo);
  if constexpr (kFrom < kTo) moved = _mm512_slli_epi16(bytes, kTo - kFrom);
  return _mm512_ternarylogic_epi32(codes, moved, mask, 0xf8);  // codes | (moved & mask)
}

// Calls body.template operator()<v>() for v = 0 to 7.
template <typename Body>
inline void for_vectors(const Body& body) {
  [&]<int... kV>(std::integer_sequence<int, kV...>) {
    (body.template operator()<kV>(), ...);
  }(std::make_integer_sequence<int, 8>{});
}

// codes[v]: vector v of the chunk (panel.h), code of row r and weight 4 v + j in byte 4 r + j. The bits above `kLift`
// stand one place higher for each of 3 more: 3 bits as 2 + 1 with kTop = 6 put the third into bit 6.
template <int kBits, int kTop = 2>
inline void chunk_codes(const uint8_t* chunk, __m512i base, __m512i* codes) {
  constexpr bool kEight = kBits == 8, kFour = kBits >= 4 && kBits < 8, kTwo = (kBits & 3) >= 2 && !kEight,
                 kOne = (kBits & 1) != 0;
  constexpr int kTwoShift = kFour ? 4 : 0, kOneShift = kBits == 3 ? kTop : kBits - 1;
  const __m512i* runs = reinterpret_cast<const __m512i*>(chunk);
  __m512i twos[2], ones = base;
  if constexpr (kTwo) {
    twos[0] = by_row(_mm512_loadu_si512(runs + (kFour ? 4 : 0)));
    twos[1] = by_row(_mm512_loadu_si512(runs + (kFour ? 5 : 1)));
  }
  if constexpr (kOne) ones = by_row(_mm512_loadu_si512(runs + kBits - 1));
  for_vectors([&]<int kV>() {
    __m512i code = base;
    if constexpr (kEight) code = _mm512_or_si512(base, _mm512_loadu_si512(runs + kV));
    if constexpr (kFour) code = place_bits<4 * (kV / 4), 4, 0>(code, _mm512_loadu_si512(runs + kV % 4));
    if constexpr (kTwo) code = place_bits<2 * (kV / 2), 2, kTwoShift>(code, twos[kV % 2]);
    if constexpr (kOne) code = place_bits<kV, 1, kOneShift>(code, ones);
    codes[kV] = code;
  });
}
