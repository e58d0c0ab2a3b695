// The suites of the operators once more, on a CUDA device: `npm run test:cuda`. Without a GPU, on the emulated driver.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: [
      'test/{norm,elementwise,rope,softmax,embedding,attention,sampling,quantize}/**/*.test.ts',
      // Not: those of products to the last bits of f32 (matmul, matmul_values, codebooks, dequant_f32, real_weights),
      // which devices form of f16 weights; of the processor's algorithms and packing (dequant_i8, lut, lut_fast, tile,
      // tile_options, tune, prepare_activations, mixed_packed); of the memory of arguments (matmul_errors).
      'test/matmul/{additions,batch,compositions,e4m3,epilogue,input}.test.ts',
      'test/kv/kv_write.test.ts',
      'test/cuda/**/*.test.ts',
    ],
    // decodeAttention does not run on devices.
    exclude: ['test/attention/decode*.test.ts'],
    setupFiles: ['test/setup.ts', 'test/cuda/on_device.ts'],
    env: { BITLOOM_TEST_DEVICE: process.env.BITLOOM_TEST_DEVICE ?? 'cuda:0' },
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 120_000,
    hookTimeout: 60_000,
  },
});
