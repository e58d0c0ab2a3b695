// The loops of matmul_f32 around block_f32 and decode, the same at levels avx2 and avx512; included inside their
// regions. kActivations, kRows: the register tile.

// values[m][n] of a tile: decode kChunk weights of kRows rows, multiply them with all rows of a.
void matmul_f32(const Activations& a, const WeightsView& b, const Tile& tile) {
  const Unpack unpack(*b.info);
  alignas(64) float weights[kRows][kChunk];
  for (int64_t m = tile.m_begin; m < tile.m_end; ++m) {
    std::memset(tile.values + (m - tile.m_begin) * tile.stride, 0,
                static_cast<size_t>(tile.n_end - tile.n_begin) * sizeof(float));
  }
  for (int64_t n = tile.n_begin; n < tile.n_end; n += kRows) {
    const int64_t rows = tile.n_end - n < kRows ? tile.n_end - n : kRows;
    for (int64_t k = 0; k < b.cols; k += kChunk) {
      const int64_t count = b.cols - k < kChunk ? b.cols - k : kChunk;
      const int64_t padded = padded_k(count);
      for (int64_t r = 0; r < rows; ++r) decode(b, unpack, n + r, k, count, weights[r]);
      float* out = tile.values + (n - tile.n_begin);
      int64_t m = tile.m_begin;
      if (rows == kRows) {
        for (; m + kActivations <= tile.m_end; m += kActivations, out += kActivations * tile.stride) {
          block_f32<kActivations, kRows>(a, weights, m, k, padded, out, tile.stride);
        }
        for (; m < tile.m_end; ++m, out += tile.stride) {
          block_f32<1, kRows>(a, weights, m, k, padded, out, tile.stride);
        }
      } else {
        for (; m < tile.m_end; ++m, out += tile.stride) {
          for (int64_t r = 0; r < rows; ++r) {
            block_f32<1, 1>(a, weights + r, m, k, padded, out + r, tile.stride);
          }
        }
      }
    }
  }
}
