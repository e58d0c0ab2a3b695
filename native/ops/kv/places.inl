// The places of a token's codes in a page, for one level: plain loops that the compiler turns into vectors of the region's
// width. Codes stand side by side in a row, those of 8 bits and less in a byte each. Bounds are copied, since a byte that is
// written may be anything, also the layout's. Included inside a region, once.

namespace {


// kv_place() of a token's first channel, without its divisions: they would take as long as the codes of 16 channels.
inline int64_t key_offset(const KvPage& layout, int64_t token) {
  return layout.header_bytes + token / kKvUnit * layout.unit_bytes + token % kKvUnit * 4;
}
template <int kBits>
KvPlace value_place(const KvPage& layout, int64_t token) {
  constexpr int64_t kPerDword = 32 / kBits;
  const int64_t t = token % kKvUnit;
  const int32_t j = static_cast<int32_t>(t % kPerDword);
  return {layout.header_bytes + token / kKvUnit * layout.unit_bytes + t / kPerDword * layout.lanes * 4,
          kBits >= 8 ? j * kBits : j % 4 * 8 + j / 4 * kBits};
}

template <int kBits>
void place_key(const KvPage& layout, uint8_t* page, int64_t token, const uint8_t* __restrict codes) {
  uint8_t* to = page + key_offset(layout, token);
  const int64_t rows = layout.rows;
  for (int64_t i = 0; i < rows; ++i) {
    uint32_t dword;
    if constexpr (kBits >= 8) {
      dword = load_as<uint32_t>(codes + 4 * i);
    } else if constexpr (kBits == 4) {
      const uint64_t eight = load_as<uint64_t>(codes + 8 * i);
      dword = static_cast<uint32_t>(eight | eight >> 28);
    } else {
      const uint64_t low = load_as<uint64_t>(codes + 16 * i);
      const uint64_t high = load_as<uint64_t>(codes + 16 * i + 8);
      dword = static_cast<uint32_t>(low | low >> 30 | high << 4 | high >> 26);
    }
    std::memcpy(to + 64 * i, &dword, sizeof(dword));
  }
}

template <int kBits>
void place_value(const KvPage& layout, uint8_t* page, int64_t token, const uint8_t* __restrict codes) {
  using Code = std::conditional_t<kBits == 32, uint32_t, std::conditional_t<kBits == 16, uint16_t, uint8_t>>;
  const KvPlace place = value_place<kBits>(layout, token);
  uint32_t* __restrict to = reinterpret_cast<uint32_t*>(page + place.offset);
  const Code* from = reinterpret_cast<const Code*>(codes);
  const uint32_t keep = kBits == 32 ? 0 : ~(((1u << (kBits % 32)) - 1) << place.shift);
  const int64_t lanes = layout.lanes;
  for (int64_t c = 0; c < lanes; ++c) {
    to[c] = (to[c] & keep) | static_cast<uint32_t>(from[c]) << place.shift;
  }
}

template <int kBits>
void fetch_key(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  const uint8_t* from = page + key_offset(layout, token);
  const int64_t rows = layout.rows;
  for (int64_t i = 0; i < rows; ++i) {
    const uint32_t dword = load_as<uint32_t>(from + 64 * i);
    if constexpr (kBits >= 8) {
      std::memcpy(codes + 4 * i, &dword, 4);
    } else {
      for (int j = 0; j < 8 / kBits; ++j) {
        const uint32_t four = dword >> (j * kBits) & ((1u << kBits) - 1) * 0x01010101u;
        std::memcpy(codes + 32 / kBits * i + 4 * j, &four, 4);
      }
    }
  }
}

template <int kBits>
void fetch_value(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  using Code = std::conditional_t<kBits == 32, uint32_t, std::conditional_t<kBits == 16, uint16_t, uint8_t>>;
  const KvPlace place = value_place<kBits>(layout, token);
  const uint32_t* __restrict from = reinterpret_cast<const uint32_t*>(page + place.offset);
  Code* __restrict to = reinterpret_cast<Code*>(codes);
  constexpr uint32_t kMask = kBits == 32 ? ~0u : (1u << (kBits % 32)) - 1;
  const int64_t lanes = layout.lanes;
  for (int64_t c = 0; c < lanes; ++c) to[c] = static_cast<Code>(from[c] >> place.shift & kMask);
}

template <int kBits>
void place(const KvPage& layout, uint8_t* page, int64_t token, const uint8_t* codes) {
  if (layout.values) {
    place_value<kBits>(layout, page, token, codes);
  } else {
    place_key<kBits>(layout, page, token, codes);
  }
}

template <int kBits>
void fetch(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  if (layout.values) {
    fetch_value<kBits>(layout, page, token, codes);
  } else {
    fetch_key<kBits>(layout, page, token, codes);
  }
}

inline void fetch_any(const KvPage& layout, const uint8_t* page, int64_t token, uint8_t* codes) {
  switch (layout.bits) {
    case 32:
      return fetch<32>(layout, page, token, codes);
    case 16:
      return fetch<16>(layout, page, token, codes);
    case 8:
      return fetch<8>(layout, page, token, codes);
    case 4:
      return fetch<4>(layout, page, token, codes);
    default:
      return fetch<2>(layout, page, token, codes);
  }
}

}  // namespace
