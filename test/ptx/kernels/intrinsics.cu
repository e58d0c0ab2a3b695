// One of each intrinsic that inference kernels use, so that the instructions nvcc makes of them are all
// known. It is compiled and bound, not run: its results mean nothing.
#include <cooperative_groups.h>
#include <cstdint>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_fp8.h>

namespace cg = cooperative_groups;

extern "C" __global__ void intrinsics(const float* x, const __half* h, const __nv_bfloat16* b,
                                      const uint32_t* u, float* out, int n, const __nv_fp8_e4m3* f8) {
  int i = threadIdx.x + blockIdx.x * blockDim.x;
  if (i >= n) return;
  float v = x[i];
  float r = __expf(v) + __logf(v) + __sinf(v) + __cosf(v) + tanhf(v) + rsqrtf(v) + sqrtf(v) +
            __fdividef(v, 3.f) + expf(v) + logf(v) + powf(v, 1.3f) + erff(v) + sinf(v) + cosf(v) +
            v / (1 + __expf(-v)) + roundf(v) + rintf(v) + floorf(v) + ceilf(v) + truncf(v) + fmodf(v, 2.f) +
            log1pf(v) + exp2f(v) + cbrtf(v) + exp10f(v) + log2f(v) + atanf(v);
  __half2 a = __ldg(reinterpret_cast<const __half2*>(h) + i);
  a = __hfma2(a, a, __hadd2(a, __float2half2_rn(1.f)));
  a = h2exp2(a);
  a = __hmax2(a, __hmul2_sat(a, a));
  a = __hmin2_nan(a, a);
  a = h2rcp(a);
  a = h2tanh_approx(a);
  a = __habs2(a);
  a = __hneg2(a);
  r += __low2float(a) + __high2float(a);
  if (__hgt(__low2half(a), __high2half(a))) r += 1;
  if (__hbgt2(a, a)) r += 2;
  __nv_bfloat162 c = reinterpret_cast<const __nv_bfloat162*>(b)[i];
  c = __hfma2(c, c, c);
  c = __hadd2(c, c);
  c = __hmul2(c, c);
  c = __hmax2(c, c);
  c = __hsub2(c, c);
  c = __hneg2(c);
  r += __low2float(c);
  r += __bfloat162float(hexp(c.x));
  r += __bfloat162float(__float2bfloat16_rz(r));
  uint32_t w = u[i];
  r += __popc(w) + __clz(w) + __ffs(w) + __brev(w) + __byte_perm(w, w, 0x1234) + __dp4a((int)w, (int)w, 3) +
       __dp2a_lo((int)w, (int)w, 1) + __funnelshift_l(w, w, 3) + __umulhi(w, w) + __vadd4(w, w) +
       __vsub4(w, w) + __vmaxs4(w, w) + __vcmpeq4(w, w) + __sad(3, w, 1) + __usad(1, 2, 3) +
       __mul24((int)w, 3);
  r += (float)((uint64_t)w * w / 7) + (float)((int64_t)w * w % 13) + (double)v * 3.0 / (double)w;
  r += (float)f8[i];
  __nv_fp8x2_e5m2 f5(make_float2(v, v));
  r += float2(f5).x;
  __nv_fp8x4_e4m3 f4(make_float4(v, v, v, v));
  r += float4(f4).w;
  unsigned m = __match_any_sync(__activemask(), w);
  r += m;
  r += __reduce_add_sync(0xffffffffu, w);
  r += __ballot_sync(~0u, w > 3);
  r += __any_sync(~0u, w);
  auto blk = cg::this_thread_block();
  auto t = cg::tiled_partition<16>(blk);
  r += t.shfl_xor(r, 3);
  t.sync();
  r += __syncthreads_count(w > 2) + __syncthreads_or(w);
  atomicAdd(out + 1, r);
  atomicMax((int*)out + 2, (int)r);
  atomicCAS((unsigned*)out + 3, 1u, 2u);
  atomicAdd((__half2*)(out + 4), a);
  atomicExch((unsigned*)out + 5, w);
  atomicAdd((double*)(out + 8), 1.0);
  atomicAdd((__nv_bfloat162*)(out + 10), c);
  atomicInc((unsigned*)out + 12, 5);
  __threadfence();
  __threadfence_block();
  __threadfence_system();
  __nanosleep(10);
  switch (w % 9) {
    case 0:
      r += sinf(r);
      break;
    case 1:
      r -= 5;
      break;
    case 2:
      r *= 3;
      break;
    case 3:
      r = -r;
      break;
    case 4:
      r /= 7;
      break;
    case 5:
      r = r * r;
      break;
    case 6:
      r += 99;
      break;
    case 7:
      r = 1 / r;
      break;
    default:
      r = 0;
  }
  float loc[16];
  for (int k = 0; k < 16; ++k) loc[k] = v * k;
  r += loc[w % 16];
  long long t0 = clock64();
  if (t0 == 5) r = 1;
  __stcs(out + i, r);
  __stwt(out + 2 * i + 100, __ldcs(x + i) + __ldcg(x + i));
  *(volatile float*)(out + 300) = isnan(r) || isinf(v)
                                      ? 1
                                      : __int2float_rz(w) + __uint_as_float(w) + __float2int_rd(v) +
                                            __double2float_rn(v) + __float2uint_rn(v) + __half2int_rz(h[i]) +
                                            __ll2float_rn(w) + __saturatef(v) + copysignf(v, r) +
                                            fminf(v, r) + __frcp_rn(v) + __fsqrt_rn(v) + __fadd_rz(v, v) +
                                            __fmul_ru(v, v) + hypotf(v, r) + ldexpf(v, 3) + max(w, 3u) +
                                            min((int)w, 4) + abs((int)w) + fabs(v);
}
