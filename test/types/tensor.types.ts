// What TypeScript infers, by exact equality: checked by the compiler (npm run check:types), never run.
import { expectTypeOf } from 'vitest';
import {
  type DType,
  dequantize,
  matmul,
  matmulAsync,
  QuantizedTensor,
  quantize,
  Tensor,
} from '../../lib/index.js';

const f32 = new Tensor('f32', new Float32Array(6), [2, 3]);
expectTypeOf(f32).toEqualTypeOf<Tensor<'f32'>>();
expectTypeOf(f32.dtype).toEqualTypeOf<'f32'>();
expectTypeOf(f32.data).toEqualTypeOf<Float32Array>();
expectTypeOf(f32.shape).toEqualTypeOf<readonly number[]>();
expectTypeOf(f32.reshape([6])).toEqualTypeOf<Tensor<'f32'>>();
expectTypeOf(f32.slice(0, 1)).toEqualTypeOf<Tensor<'f32'>>();

expectTypeOf(Tensor.zeros('bf16', [2]).data).toEqualTypeOf<Uint16Array>();
expectTypeOf(Tensor.zeros('i32', [2]).data).toEqualTypeOf<Int32Array>();
expectTypeOf(Tensor.zeros('f8e4m3', [2]).data).toEqualTypeOf<Uint8Array>();
// The spellings of ONNX Runtime mean the same dtypes.
expectTypeOf(Tensor.zeros('float32', [2])).toEqualTypeOf<Tensor<'f32'>>();
expectTypeOf(Tensor.zeros('uint8', [2])).toEqualTypeOf<Tensor<'u8'>>();
// A dtype known only at run time leaves the union of what it may be.
expectTypeOf(Tensor.zeros('f32' as DType, [2]).dtype).toEqualTypeOf<DType>();
// @ts-expect-error there is no such dtype
Tensor.zeros('f64', [2]);

const weights = quantize(f32, 'u4_g32');
expectTypeOf(weights).toEqualTypeOf<QuantizedTensor<'u4_g32'>>();
expectTypeOf(weights.format).toEqualTypeOf<'u4_g32'>();
expectTypeOf(weights.shape).toEqualTypeOf<readonly [rows: number, cols: number]>();
// @ts-expect-error there is no such format
quantize(f32, 'u9_g32');
expectTypeOf(QuantizedTensor.empty('q4_0', [1, 32])).toEqualTypeOf<QuantizedTensor<'q4_0'>>();

expectTypeOf(matmul(f32, weights)).toEqualTypeOf<Tensor<'f32'>>();
expectTypeOf(matmul(f32, weights, { out: Tensor.zeros('f16', [2, 2]) })).toEqualTypeOf<
  Tensor<'f16'>
>();
expectTypeOf(matmulAsync(f32, weights)).toEqualTypeOf<Promise<Tensor<'f32'>>>();
expectTypeOf(dequantize(weights)).toEqualTypeOf<Tensor<'f32'>>();
// @ts-expect-error activations are floats
matmul(Tensor.zeros('i32', [2, 3]), weights);
