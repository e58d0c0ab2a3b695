// npm run test:ptx:all: the kernels' tests over PTX of compute_90 and compute_100 too, which CI leaves out for time.
// npm run test:cuda:mutations: every mutant of the kernels' mutation test; CI takes a part of them.
//   node test/cuda/ptx_all.mjs [--archs '90;100'] [--mutations]
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const root = fileURLToPath(new URL('../..', import.meta.url));
const { values } = parseArgs({
  options: { archs: { type: 'string' }, mutations: { type: 'boolean', default: false } },
});
const archs = values.archs ?? (values.mutations ? '80;90;100;120' : '90;100');
const build = join(root, 'build', `ptx-${archs.replaceAll(';', '-')}`);

function run(command, args, env = {}) {
  const { status } = spawnSync(command, args, {
    cwd: root,
    env: { ...process.env, ...env },
    stdio: 'inherit',
  });
  if (status !== 0) process.exit(status ?? 1);
}

const targets = values.mutations ? ['cuda_test'] : ['ptx_test', 'cuda_test'];
run('cmake', [
  ...['-S', '.', '-B', build, '-DBITLOOM_CUDA_TESTS=ON'],
  ...[`-DBITLOOM_CUDA_TEST_ARCHS=${archs}`, `-DBITLOOM_PTX_TEST_ARCHS=${archs}`],
]);
run('cmake', ['--build', build, '--parallel', '2', '--target', ...targets]);
if (!values.mutations) run(join(build, 'test', 'ptx', 'ptx_test'), []);
run(join(build, 'test', 'cuda', 'cuda_test'), values.mutations ? ['mutations'] : [], {
  ...(values.mutations ? { BITLOOM_CUDA_MUTATIONS: 'all' } : {}),
});
