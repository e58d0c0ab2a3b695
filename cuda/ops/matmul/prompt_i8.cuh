// Many rows of a in int8: the prompt kernel's tile (prompt.cuh) by mma.m16n8k32, in stages of 128 columns. Sums of
// integers begin at kMagic and so are floats as they come out of the mma; scales meet them in registers.
#pragma once

#include <type_traits>

#include "../../tile/integer_codes.cuh"
#include "../../tile/integer_scale.cuh"
#include "product_sums.cuh"
#include "stage_i8.cuh"
#include "whole_i8.cuh"

namespace bitloom::cuda::gemm {

template <class Codes, Steps kSteps>
struct IntegerPromptTile {
  static constexpr int kUnitBytes = 128 * Codes::kWords;
  static constexpr int kActivationBytes = kPromptRows * kStageDepth;
  static constexpr bool kCentred = Codes::kCentred;
  static constexpr bool kWhole = kSteps == Steps::whole, kFine = kSteps == Steps::fine;
  static constexpr int kSides = side_kinds(kSteps, kCentred);
  static constexpr int kSideBytes = side_bytes(kSteps, kCentred);  // of a stage
  // Scales with offsets are brought into f32 a stage ahead, a column per thread; plain ones by the lane that needs them.
  static constexpr bool kReady = !kWhole && !kCentred;
  static constexpr int kGroups = kFine ? 4 : 1;                    // at most, of a stage
  static constexpr int kSidesAt = kActivationBytes + 2 * kPromptRowTiles * kUnitBytes;  // in a stage
  static constexpr int kRecordsAt = kSidesAt + kSideBytes;
  using Sum = std::conditional_t<kWhole, int32_t, float>;
  using Product = typename Codes::Product;
  using Sums = ProductSums<Product>;

  const IntegerParams& p;
  int thread, lane, warp;
  int row, row_tile;
  int begin, end;  // stages
  int stage_bytes;
  char* stages;  // [kIntegerStages]: activations, units, sides, records, supers
  float* ready;  // [2][scale, offset][groups][128 columns]
  CodeCopy activations;
  UnitPairCopy<kUnitBytes> units;
  RecordCopy records, supers;

  __device__ __forceinline__ IntegerPromptTile(const IntegerParams& params)
      : p(params),
        thread(threadIdx.x),
        lane(threadIdx.x % 32),
        warp(threadIdx.x / 32),
        row(blockIdx.y * kPromptRows),
        row_tile(blockIdx.x * kPromptRowTiles),
        begin(static_cast<int>(static_cast<int64_t>(params.stages) * blockIdx.z / params.splits)),
        end(static_cast<int>(static_cast<int64_t>(params.stages) * (blockIdx.z + 1) / params.splits)),
        stage_bytes(
            integer_stage_bytes(kSteps, kCentred, kUnitBytes, params.raw_bytes, params.b.super_bytes)),
        activations(static_cast<const char*>(params.a) + static_cast<int64_t>(row) * params.stages * kStageDepth,
                    static_cast<int64_t>(params.stages) * kStageDepth, params.m - row, begin, thread),
        units(params.b, row_tile, begin, thread),
        records(params.b.records, params.b.tile_records, params.raw_bytes, row_tile, params.b.row_tiles, kRecordsAt,
                thread),
        supers(params.b.supers, params.b.tile_supers, kCentred ? 0 : params.b.super_bytes, row_tile, params.b.row_tiles,
               kRecordsAt + kPromptRowTiles * params.raw_bytes, thread) {
    stages = shared_memory;
    ready = reinterpret_cast<float*>(stages + kIntegerStages * stage_bytes);
  }

  __device__ __forceinline__ int first_group(int stage) const {
    return p.b.group_shift >= 31 ? 0 : stage * kStageDepth >> p.b.group_shift;
  }

  // Stages one after the other.
  __device__ __forceinline__ void copy_stage(int stage, char* to) {
    const uint32_t at = ptx::shared_address(to);
    activations.copy(at);
    units.copy(at + kActivationBytes, 2 * stage + 2 <= p.b.units, thread);
    copy_sides<kSteps, kSideBytes>(p, stage, row, at + kSidesAt, thread);
    if (kWhole) return;
    records.copy(at, static_cast<uint32_t>(first_group(stage)) * p.b.record_bytes);
    if (!kCentred) supers.copy(at, static_cast<uint32_t>(2 * stage >> p.b.super_shift) * p.b.super_bytes);
  }

  // Scales of a stage that has arrived, to f32: a column per thread.
  __device__ __forceinline__ void convert_scales(const char* stage, float* to) const {
    const char* records = stage + kRecordsAt;
    const char* supers = records + kPromptRowTiles * p.raw_bytes + thread / 16 * p.b.super_bytes;
    const int place = 2 * (thread % 8) + thread / 8 % 2;
    records += thread / 16 * p.raw_bytes;
    GroupBits<1> bits{};
    if (p.b.super_bytes != 0) {
      bits.super_scale[0] = reinterpret_cast<const uint16_t*>(supers)[place];
      if (p.b.second == Second::sub_min) bits.super_min[0] = reinterpret_cast<const uint16_t*>(supers)[16 + place];
    }
    const bool bytes = has_byte_scales(p.b);
    to += thread;
#pragma unroll 1
    for (int group = 0; group < (kGroups == 1 ? 1 : p.ready_groups); ++group) {
      const auto stored = [&](const char* from) -> uint32_t {
        return bytes ? reinterpret_cast<const uint8_t*>(from)[place] : reinterpret_cast<const uint16_t*>(from)[place];
      };
      bits.scale[0] = stored(records);
      if (p.b.second != Second::none) bits.second[0] = stored(records + p.b.second_offset);
      float scale[1], offset[1];
      integer_scales<false>(p.b, bits, scale, offset);
      to[0] = scale[0];
      to[(kGroups == 1 ? 1 : p.ready_groups) * kPromptColumns] = offset[0];
      records += p.b.record_bytes;
      to += kPromptColumns;
    }
  }

  // Scales and offsets of rows g and g + 8 of the warp's row tile `tile`, in group `group` of the stage.
  __device__ __forceinline__ void scales_of(const char* stage, const float* now, int group, int tile, float (&scale)[2],
                                            float (&offset)[2]) const {
    if constexpr (kReady) {
      const float* at = now + group * kPromptColumns + 32 * warp + 16 * tile + lane / 4;
      const int part = (kGroups == 1 ? 1 : p.ready_groups) * kPromptColumns;
      scale[0] = at[0], scale[1] = at[8];
      offset[0] = at[part], offset[1] = at[part + 8];
    } else {
      const char* record = stage + kRecordsAt + (2 * warp + tile) * p.raw_bytes + group * p.b.record_bytes;
      if constexpr (Codes::kByteScales) {  // of e8m0
        const uint32_t two = reinterpret_cast<const uint16_t*>(record)[lane / 4];
        scale[0] = e8m0_value(two & 0xff) * p.b.factor, scale[1] = e8m0_value(two >> 8) * p.b.factor;
        return;
      }
      const uint32_t two = reinterpret_cast<const uint32_t*>(record)[lane / 4];
      if (p.b.scale_type == kScaleF16) {
        scale[0] = ptx::f32_of_f16(static_cast<uint16_t>(two)), scale[1] = ptx::f32_of_f16(static_cast<uint16_t>(two >> 16));
      } else {
        scale[0] = __uint_as_float(two << 16), scale[1] = __uint_as_float(two & 0xffff0000u);
      }
      scale[0] *= p.b.factor, scale[1] *= p.b.factor;
    }
  }

  // Two units' operands of a row tile: [half of 32 columns].
  __device__ __forceinline__ void decode(const char* unit, uint32_t (*a)[4]) const {
    uint32_t words[Codes::kWords];
    load_words<Codes::kWords>(words, unit, lane);
#pragma unroll
    for (int half = 0; half < 2; ++half) Codes::operand(words, half, p.value_shift, a[half]);
  }

  // Activations and sides of the CPU's groups: 32 columns, both scales.
  __device__ __forceinline__ void multiply_fine(const char* stage, const float* now, float (&acc)[2][8][4]) const {
    const char* codes = stage + kActivationBytes + 2 * warp * (2 * kUnitBytes);
    const float* side = reinterpret_cast<const float*>(stage + kSidesAt) +
                        4 * (lane % 4);
    const Product zero[4] = {Sums::first(), Sums::first(), Sums::first(), Sums::first()};
#pragma unroll 1
    for (int unit = 0; unit < 2; ++unit, side += 2 * kPromptRows, codes += kUnitBytes) {
      uint32_t a[2][2][4];
      float scale[2][2][2], offset[2][2][2];  // [tile][half][row g, g + 8]
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        decode(codes + tile * 2 * kUnitBytes, a[tile]);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const int group = (64 * unit + 32 * half) >> min(p.b.group_shift, 7);
          scales_of(stage, now, group, tile, scale[tile][half], offset[tile][half]);
        }
      }
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        const uint4 x = load_activations(stage, 8 * i, unit, lane);
        const auto of_rows = [&](int kind) {  // rows 2 t, 2 t + 1; both halves
          return *reinterpret_cast<const float4*>(side + kind * 4 * kPromptRows + 16 * i);
        };
        const float4 row_scales = of_rows(0);
        const float4 moments = kCentred ? row_scales : of_rows(1), starts = kCentred ? row_scales : of_rows(2);
#pragma unroll
        for (int half = 0; half < 2; ++half) {
          const float s[2] = {half == 0 ? row_scales.x : row_scales.z, half == 0 ? row_scales.y : row_scales.w};
          const float moment[2] = {half == 0 ? moments.x : moments.z, half == 0 ? moments.y : moments.w};
          const float start[2] = {half == 0 ? starts.x : starts.z, half == 0 ? starts.y : starts.w};
#pragma unroll
          for (int tile = 0; tile < 2; ++tile) {
            Product d[4];
            Codes::multiply(d, a[tile][half], half == 0 ? x.x : x.z, half == 0 ? x.y : x.w, zero);
#pragma unroll
            for (int j = 0; j < 4; ++j) {
              const float value = Sums::value(d[j], kCentred ? kMagic : start[j % 2]);
              float& sum = acc[tile][i][j];
              sum = fmaf(value, scale[tile][half][j / 2] * s[j % 2], sum);
              if (!kCentred) sum = fmaf(offset[tile][half][j / 2], moment[j % 2], sum);
            }
          }
        }
      }
    }
  }

  // A whole stage's sums are one integer.
  __device__ __forceinline__ void multiply_long(const char* stage, const float* now, Sum (&acc)[2][8][4]) const {
    const char* codes = stage + kActivationBytes + 2 * warp * (2 * kUnitBytes);
    uint32_t a[2][4][4];
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int unit = 0; unit < 2; ++unit) decode(codes + (2 * tile + unit) * kUnitBytes, a[tile] + 2 * unit);
    }
    float scale[2][2] = {}, offset[2][2] = {};
    if constexpr (!kWhole) {
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) scales_of(stage, now, 0, tile, scale[tile], offset[tile]);
    }
    const float* side = reinterpret_cast<const float*>(stage + kSidesAt) +
                        2 * (lane % 4);
    const Product zero[4] = {Sums::first(), Sums::first(), Sums::first(), Sums::first()};
#pragma unroll
    for (int i = 0; i < 8; ++i) {
      const uint4 x = load_activations(stage, 8 * i, 0, lane), y = load_activations(stage, 8 * i, 1, lane);
      float2 sums = make_float2(0, 0);
      if (kSides != 0) sums = *reinterpret_cast<const float2*>(side + 8 * i);
#pragma unroll
      for (int tile = 0; tile < 2; ++tile) {
        Product d[4];
        if constexpr (kWhole) {
          Codes::multiply(d, a[tile][0], x.x, x.y, acc[tile][i]);
        } else {
          Codes::multiply(d, a[tile][0], x.x, x.y, zero);
        }
        Codes::multiply(d, a[tile][1], x.z, x.w, d);
        Codes::multiply(d, a[tile][2], y.x, y.y, d);
        Codes::multiply(d, a[tile][3], y.z, y.w, d);
#pragma unroll
        for (int j = 0; j < 4; ++j) {
          if constexpr (kWhole) {
            acc[tile][i][j] = d[j];
          } else {
            float& sum = acc[tile][i][j];
            sum = fmaf(Sums::value(d[j], kMagic), scale[tile][j / 2], sum);
            if (!kCentred) sum = fmaf(offset[tile][j / 2], j % 2 == 0 ? sums.x : sums.y, sum);
          }
        }
      }
    }
  }

  // The tile through shared memory, then row by row to where it belongs.
  __device__ __forceinline__ void store(const Sum (&acc)[2][8][4]) const {
    Sum* staged = reinterpret_cast<Sum*>(shared_memory);
    __syncthreads();  // other warps may still read the last stage
#pragma unroll
    for (int tile = 0; tile < 2; ++tile) {
#pragma unroll
      for (int i = 0; i < 8; ++i) {
        Sum* at = staged + (8 * i + 2 * (lane % 4)) * kStagedStride + 32 * warp + 16 * tile + lane / 4;
        at[0] = acc[tile][i][0];
        at[kStagedStride] = acc[tile][i][1];
        at[8] = acc[tile][i][2];
        at[kStagedStride + 8] = acc[tile][i][3];
      }
    }
    __syncthreads();
    const int n = row_tile * 16 + thread;
    if (n >= p.n) return;
    const int rows = min(kPromptRows, p.m - row);
#pragma unroll 1
    for (int i = 0; i < rows; ++i) {
      const Sum sum = staged[i * kStagedStride + thread];
      if (p.partial != nullptr) {
        static_cast<Sum*>(p.partial)[(static_cast<int64_t>(blockIdx.z) * p.m + row + i) * p.n + n] = sum;
      } else if constexpr (kWhole) {
        store_product(p.epilogue, whole_product<kCentred>(p.b, p.row_scales, p.row_sums, sum, Codes::kTimes, row + i, n), row + i, n);
      } else {
        store_product(p.epilogue, sum, row + i, n);
      }
    }
  }

  __device__ __forceinline__ void run() {
    char* write = stages;  // of the next stage to be copied
    const char *read = stages, *last = stages + (kIntegerStages - 1) * stage_bytes;
#pragma unroll 1
    for (int i = 0; i < kIntegerStages - 1; ++i, write += stage_bytes) {
      if (begin + i < end) copy_stage(begin + i, write);
      ptx::copy_async_commit();
    }
    Sum acc[2][8][4] = {};
    float *now = ready, *then = ready + 2 * p.ready_groups * kPromptColumns;
    if constexpr (kReady) {
      ptx::copy_async_wait<kIntegerStages - 2>();
      __syncthreads();
      if (begin < end) convert_scales(read, now);
    }
#pragma unroll 1
    for (int stage = begin; stage < end; ++stage) {
      ptx::copy_async_wait<kReady ? kIntegerStages - 3 : kIntegerStages - 2>();
      __syncthreads();  // this stage (and the next one's scales) are there for all; the one before is used up
      if (stage + kIntegerStages - 1 < end) copy_stage(stage + kIntegerStages - 1, write);
      ptx::copy_async_commit();
      write = write == last ? stages : write + stage_bytes;
      const char* next = read == last ? stages : read + stage_bytes;
      if constexpr (kReady) {
        if (stage + 1 < end) convert_scales(next, then);
      }
      if constexpr (kFine) {
        multiply_fine(read, now, acc);
      } else {
        multiply_long(read, now, acc);
      }
      read = next;
      float* used = now;
      now = then;
      then = used;
    }
    store(acc);
  }
};

}  // namespace bitloom::cuda::gemm
