// The scalar and packed types of PTX and what is known of each: its spelling and its size in bytes.
#pragma once

#include <cstdint>
#include <string_view>

namespace bitloom::ptx {

// One row per type: enumerator (its PTX spelling without the dot), bytes, class letter
// (b: bits, u: unsigned, s: signed, f: floating, p: predicate).
// clang-format off
#define BITLOOM_PTX_TYPES(X) \
  X(pred, 4, 'p') X(b1, 4, 'b') X(b8, 1, 'b') X(b16, 2, 'b') X(b32, 4, 'b') X(b64, 8, 'b') \
  X(b128, 16, 'b') X(u8, 1, 'u') X(u16, 2, 'u') X(u32, 4, 'u') X(u64, 8, 'u') X(s8, 1, 's') \
  X(s16, 2, 's') X(s32, 4, 's') X(s64, 8, 's') X(u4, 4, 'u') X(s4, 4, 's') X(u16x2, 4, 'u') \
  X(s16x2, 4, 's') X(f16, 2, 'f') X(f16x2, 4, 'f') X(bf16, 2, 'f') X(bf16x2, 4, 'f') X(e4m3, 1, 'f') \
  X(e5m2, 1, 'f') X(e4m3x2, 2, 'f') X(e5m2x2, 2, 'f') X(tf32, 4, 'f') X(f32, 4, 'f') X(f64, 8, 'f')
// clang-format on

enum class Type : uint8_t {
  none,
#define BITLOOM_PTX_TYPE(name, bytes, letter) name,
  BITLOOM_PTX_TYPES(BITLOOM_PTX_TYPE)
#undef BITLOOM_PTX_TYPE
};

// Type::none if the spelling is no type.
inline Type type_named(std::string_view name) {
#define BITLOOM_PTX_TYPE(type, bytes, letter) \
  if (name == #type) return Type::type;
  BITLOOM_PTX_TYPES(BITLOOM_PTX_TYPE)
#undef BITLOOM_PTX_TYPE
  return Type::none;
}

inline uint32_t type_bytes(Type type) {
  switch (type) {
#define BITLOOM_PTX_TYPE(name, bytes, letter) \
  case Type::name:                            \
    return bytes;
    BITLOOM_PTX_TYPES(BITLOOM_PTX_TYPE)
#undef BITLOOM_PTX_TYPE
    default:
      return 0;
  }
}

inline char type_class(Type type) {
  switch (type) {
#define BITLOOM_PTX_TYPE(name, bytes, letter) \
  case Type::name:                            \
    return letter;
    BITLOOM_PTX_TYPES(BITLOOM_PTX_TYPE)
#undef BITLOOM_PTX_TYPE
    default:
      return 0;
  }
}

enum class Space : uint8_t { generic, global, shared, local, constant, param };

}  // namespace bitloom::ptx
