// npm run prebuild: prebuilds/<platform>-<arch>/ with the addon and the library beside it, stripped.
// prebuildify moves what it finds in build/Release, so it works in a folder of its own and the checkout's build
// stays as it is. PREBUILD_ARCH, PREBUILD_LIBC, PREBUILD_STRIP_BIN and BITLOOM_TOOLCHAIN serve cross builds.
import { mkdirSync, readdirSync, renameSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const prebuildify = createRequire(import.meta.url)('prebuildify');
const root = fileURLToPath(new URL('..', import.meta.url));
const stage = join(root, 'build', 'prebuild');
const platform = process.env.PREBUILD_PLATFORM ?? process.platform;
const arch = process.env.PREBUILD_ARCH ?? process.arch;

mkdirSync(stage, { recursive: true });
const result = join(stage, 'prebuilds', `${platform}-${arch}`);
rmSync(result, { recursive: true, force: true });
prebuildify(
  {
    name: 'bitloom',
    napi: true,
    strip: true,
    tagLibc: true,
    cwd: stage,
    nodeGyp: join(root, 'native', 'as-node-gyp.cjs'),
    platform,
    arch,
  },
  (error) => {
    if (error) {
      console.error(`bitloom: prebuild: ${error.message}`);
      process.exit(1);
    }
    const target = join(root, 'prebuilds', `${platform}-${arch}`);
    mkdirSync(target, { recursive: true });
    for (const file of readdirSync(result)) {
      renameSync(join(result, file), join(target, file));
      console.log(`prebuilds/${platform}-${arch}/${file}`);
    }
  },
);
