#include "prepared.h"

#include <algorithm>
#include <cstring>

#include "../../base/scratch.h"
#include "tables.h"

namespace bitloom {
namespace {

constexpr uint64_t kMaxBytes = uint64_t{1} << 62;

}  // namespace

PreparedLayout::PreparedLayout(int64_t rows_, int64_t cols_, int32_t table_kinds_)
    : rows(rows_),
      cols(cols_),
      stride(0),
      table_kinds(table_kinds_),
      codes(0),
      scales(0),
      sums(0),
      negatives(0),
      tables{},
      fast_tables{},
      table_scales{},
      bytes(0) {
  uint64_t elements = 0;
  const uint64_t most =
      kMaxBytes / 64;  // all parts have less than 1 + 12 / 32 + 24 + 12 + 1 bytes an element
  if (rows < 0 || cols < 0 || static_cast<uint64_t>(cols) > most) return;
  stride = padded_k(cols);
  if (__builtin_mul_overflow(static_cast<uint64_t>(rows), static_cast<uint64_t>(stride), &elements)) return;
  if (elements > most || static_cast<uint64_t>(rows) > most) return;
  uint64_t at = sizeof(PreparedHeader);
  const auto take = [&at](uint64_t size) {
    const uint64_t begin = at;
    at += align_up(size);
    return begin;
  };
  codes = take(elements);
  scales = take(elements / kGroup * sizeof(float));
  sums = take(elements / kGroup * sizeof(int32_t));
  negatives = take(elements / kGroup * sizeof(int32_t));
  for (int32_t bits = 1; bits <= 2; ++bits) {
    if ((table_kinds >> (bits - 1) & 1) != 0) {
      tables[bits - 1] = take(elements / kGroup * static_cast<uint64_t>(table_bytes(bits)));
    }
  }
  const uint64_t scale_count = static_cast<uint64_t>(rows * pieces(stride, kTableGroup));
  for (int32_t bits = 1; bits <= 2; ++bits) {
    if ((table_kinds >> (bits - 1 + kFastTables) & 1) == 0) continue;
    fast_tables[bits - 1] = take(elements / kGroup * static_cast<uint64_t>(fast_table_bytes(bits)));
    table_scales[bits - 1] = take(scale_count * sizeof(float));
  }
  bytes = at;
}

int32_t table_kinds_of(const PanelFormat& f, int32_t algorithm) {
  if (!is_lut(algorithm)) return 0;
  int32_t kinds = 0;
  for (int32_t p = 0; p < f.plane_count; ++p) kinds |= f.planes[p].bits <= 2 ? f.planes[p].bits : 0;
  return algorithm == BL_ALGORITHM_lut_fast ? kinds << kFastTables : kinds;
}

PrepareKernels prepare_kernels(int32_t isa) {
#if defined(__x86_64__)
  if (isa >= BL_ISA_avx512)
    return {avx512::pack_activations_i8, avx512::build_tables, avx512::build_fast_tables, avx512::sum_codes};
  if (isa >= BL_ISA_avx2)
    return {avx2::pack_activations_i8, avx2::build_tables, avx2::build_fast_tables, avx2::sum_codes};
#elif defined(__aarch64__)
  if (isa >= BL_ISA_neon)
    return {neon::pack_activations_i8, neon::build_tables, scalar::build_fast_tables, neon::sum_codes};
#endif
  (void)isa;
  return {scalar::pack_activations_i8, scalar::build_tables, scalar::build_fast_tables, scalar::sum_codes};
}

void prepare_row(const PrepareKernels& kernels, const PreparedLayout& layout, int64_t row, const float* x,
                 uint8_t* memory) {
  const int64_t groups = layout.stride / kGroup, first = row * groups;
  int8_t* codes = reinterpret_cast<int8_t*>(memory + layout.codes) + row * layout.stride;
  int32_t* sums = reinterpret_cast<int32_t*>(memory + layout.sums) + first;
  int32_t* negatives = reinterpret_cast<int32_t*>(memory + layout.negatives) + first;
  kernels.pack(x, layout.cols, codes, reinterpret_cast<float*>(memory + layout.scales) + first);
  kernels.sum_codes(codes, layout.stride, sums, negatives);
  for (int32_t bits = 1; bits <= 2; ++bits) {
    if (layout.tables[bits - 1] != 0) {
      kernels.build_tables(codes, layout.stride, bits,
                           memory + layout.tables[bits - 1] + first * table_bytes(bits));
    }
    if (layout.fast_tables[bits - 1] != 0) {
      float* table_scales = reinterpret_cast<float*>(memory + layout.table_scales[bits - 1]);
      kernels.build_fast_tables(codes, reinterpret_cast<float*>(memory + layout.scales) + first,
                                layout.stride, bits,
                                memory + layout.fast_tables[bits - 1] + first * fast_table_bytes(bits),
                                table_scales + row * pieces(layout.stride, kTableGroup));
    }
  }
}

bl_status read_prepared(const void* data, uint64_t bytes, PreparedHeader* header, bl_error* error) {
  BL_CHECK(reinterpret_cast<uintptr_t>(data) % alignof(PreparedHeader) == 0, invalid_argument,
           "matmul: prepared is at an address that is no multiple of %zu", alignof(PreparedHeader));
  BL_CHECK(bytes >= sizeof(PreparedHeader), buffer_too_small,
           "matmul: prepared has %llu bytes, expected at least %zu", static_cast<unsigned long long>(bytes),
           sizeof(PreparedHeader));
  std::memcpy(header, data, sizeof(PreparedHeader));
  BL_CHECK(header->magic == kPreparedMagic, invalid_argument,
           "matmul: prepared does not begin as bl_prepare_activations of this version writes it");
  const PreparedLayout layout(header->rows, header->cols, header->tables);
  BL_CHECK((header->tables & ~kAllTables) == 0 && layout.bytes != 0 && header->bytes == layout.bytes,
           invalid_argument,
           "matmul: prepared has a header of %lld rows, %lld columns, tables %d and %llu bytes, which do not "
           "fit each "
           "other",
           static_cast<long long>(header->rows), static_cast<long long>(header->cols), header->tables,
           static_cast<unsigned long long>(header->bytes));
  BL_CHECK(bytes >= layout.bytes, buffer_too_small, "matmul: prepared has %llu bytes, expected %llu",
           static_cast<unsigned long long>(bytes), static_cast<unsigned long long>(layout.bytes));
  return BL_STATUS_ok;
}

void set_sums(const PreparedLayout& layout, const uint8_t* memory, const PanelFormat& f, int64_t row,
              int32_t* starts, float* moments) {
  const int64_t g = std::min(kGroup, f.group), count = layout.stride / g,
                first = row * layout.stride / kGroup;
  const int8_t* codes = reinterpret_cast<const int8_t*>(memory + layout.codes) + row * layout.stride;
  const float* scales = reinterpret_cast<const float*>(memory + layout.scales) + first;
  const int32_t* sums = reinterpret_cast<const int32_t*>(memory + layout.sums) + first;
  starts += row * count;
  moments += row * count;
  for (int64_t i = 0; i < count; ++i) {
    int32_t sum = 0;
    if (g == kGroup) {
      sum = sums[i];
    } else {
      for (int64_t k = i * g; k < i * g + g; ++k) sum += codes[k];
    }
    // Unsigned: what stands in a foreign buffer may be any number.
    starts[i] = static_cast<int32_t>(0u - static_cast<uint32_t>(f.zero) * static_cast<uint32_t>(sum));
    moments[i] = scales[i * g / kGroup] * static_cast<float>(sum);
  }
}

Activations activations_of(const PreparedLayout& layout, const uint8_t* memory, const int32_t* starts,
                           const float* moments) {
  Activations a{};
  a.stride = layout.stride;
  a.codes = reinterpret_cast<const int8_t*>(memory + layout.codes);
  a.scales = reinterpret_cast<const float*>(memory + layout.scales);
  a.starts = starts;
  a.moments = moments;
  a.negatives = reinterpret_cast<const int32_t*>(memory + layout.negatives);
  for (int i = 0; i < 2; ++i) {
    if (layout.tables[i] != 0) a.tables[i] = memory + layout.tables[i];
    if (layout.fast_tables[i] == 0) continue;
    a.fast_tables[i] = memory + layout.fast_tables[i];
    a.table_scales[i] = reinterpret_cast<const float*>(memory + layout.table_scales[i]);
  }
  return a;
}

}  // namespace bitloom
