// npm run test:cuda: the suites of the operators on a CUDA device. On a machine without one, on the emulated driver of
// test/cuda-driver, which it builds (needs nvcc). Arguments go to vitest.
import { spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';

const root = fileURLToPath(new URL('../..', import.meta.url));
const require = createRequire(import.meta.url);
const env = { ...process.env };

function run(command, args) {
  const { status } = spawnSync(command, args, { cwd: root, env, stdio: 'inherit' });
  if (status !== 0) process.exit(status ?? 1);
}

const real = ['/usr/lib/x86_64-linux-gnu/libcuda.so.1', '/usr/lib64/libcuda.so.1'].some(existsSync);
if (env.BITLOOM_CUDA_DRIVER === undefined && !real) {
  const build = join(root, 'build'); // what npm install built goes on there
  const driver = join(build, 'test', 'cuda-driver', 'libcuda_emulated.so');
  run('cmake', ['-S', '.', '-B', build, '-DBITLOOM_CUDA_TESTS=ON']);
  run('cmake', ['--build', build, '--parallel', '2', '--target', 'cuda_emulated']);
  env.BITLOOM_CUDA_DRIVER = driver;
}
const vitest = join(dirname(require.resolve('vitest/package.json')), 'vitest.mjs');
run(process.execPath, [
  ...[vitest, 'run', '--config', 'vitest.cuda.config.ts'],
  ...process.argv.slice(2),
]);
