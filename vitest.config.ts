import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The package by its own name, as examples/ import it: its sources.
  resolve: {
    alias: [
      { find: /^bitloom$/, replacement: fileURLToPath(new URL('lib/index.ts', import.meta.url)) },
      {
        find: /^bitloom\/(nn|io)$/,
        replacement: fileURLToPath(new URL('lib/$1/index.ts', import.meta.url)),
      },
    ],
  },
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
