// The suites of the operators once more, on a CUDA device: `npm run test:cuda`. Without a GPU, on the emulated driver.
import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: [
      'test/{norm,elementwise,rope,softmax,embedding,attention,sampling,quantize}/**/*.test.ts',
      // Of matmul's suite what device and processor have in common: README.md of test/cuda says what is left out.
      'test/matmul/{additions,batch,e4m3,epilogue}.test.ts',
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
