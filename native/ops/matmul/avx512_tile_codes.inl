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

// Here and not where it is used: loads between tile products stand together (amx_tile_i8.cc).
inline __attribute__((always_inline)) void load_run(const uint8_t* at, __m512i& run) {
  run = _mm512_loadu_si512(at);
  __asm__ volatile("" : "+v"(run));
}

// The runs of a chunk; those of 1 and 2 bits with the bytes of a row side by side.
template <int kBits>
inline __attribute__((always_inline)) void load_runs(const uint8_t* chunk, __m512i* runs) {
  constexpr int kInPlace = kBits == 8 ? 8 : kBits >= 4 ? 4 : 0;  // runs of planes of 8 and 4 bits
  // Folds, not loops: loops that are unrolled late would leave the runs in memory.
  [&]<int... i>(std::integer_sequence<int, i...>) __attribute__((always_inline)) {
    (load_run(chunk + 64 * i, runs[i]), ...);
    ((runs[i] = i < kInPlace ? runs[i] : by_row(runs[i])), ...);
  }(std::make_integer_sequence<int, kBits>());
}

// Vectors q and q + 4 of a chunk (q = 0 to 3), which share their runs: codes[0], codes[1], or'ed to `base`; the code of row r
// and weight 4 v + j in byte 4 r + j. kTop: the bit where the third of 3 bits goes.
template <int kBits, int kQuarter, int kTop = 2>
inline __attribute__((always_inline)) void quarter_codes(const __m512i* runs, __m512i base, __m512i* codes) {
  constexpr bool kFour = kBits >= 4 && kBits < 8, kTwo = (kBits & 3) >= 2, kOne = (kBits & 1) != 0;
  constexpr int q = kQuarter;
  codes[0] = codes[1] = base;
  if constexpr (kBits == 8) {
    codes[0] = _mm512_or_si512(base, runs[q]);
    codes[1] = _mm512_or_si512(base, runs[q + 4]);
  }
  if constexpr (kFour) {
    codes[0] = place_bits<0, 4, 0>(codes[0], runs[q]);
    codes[1] = place_bits<4, 4, 0>(codes[1], runs[q]);
  }
  if constexpr (kTwo) {
    constexpr int kTo = kFour ? 4 : 0;
    codes[0] = place_bits<2 * (q / 2), 2, kTo>(codes[0], runs[kTo + q % 2]);
    codes[1] = place_bits<2 * (q / 2) + 4, 2, kTo>(codes[1], runs[kTo + q % 2]);
  }
  if constexpr (kOne) {
    constexpr int kTo = kBits == 3 ? kTop : kBits - 1;
    codes[0] = place_bits<q, 1, kTo>(codes[0], runs[kBits - 1]);
    codes[1] = place_bits<q + 4, 1, kTo>(codes[1], runs[kBits - 1]);
  }
}
