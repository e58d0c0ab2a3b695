import { defineConfig } from 'vitest/config';

export default defineConfig({
  test: {
    include: ['test/**/*.test.ts'],
    // On a device: npm run test:cuda.
    exclude: ['**/node_modules/**', 'test/cuda/**'],
    setupFiles: ['test/setup.ts'],
    // A process per file: a crash of the addon is seen as one, and takes no other file along.
    pool: 'forks',
    maxWorkers: 2,
    testTimeout: 60_000,
    hookTimeout: 60_000,
  },
});
