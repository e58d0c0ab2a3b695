// Finds the peers: in the folder that BITLOOM_PEERS names, or installed beside bitloom.
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { root } from '../native.mjs';

const versions = {
  'onnxruntime-node': '1.30.0',
  'onnx-proto': '8.0.1',
  'node-llama-cpp': '3.22.1',
};

/** What to type to have the peers. */
export const installCommand = `npm install --no-save --ignore-scripts ${Object.entries(versions)
  .map(([name, version]) => `${name}@${version}`)
  .join(' ')}`;

/** { version, module } of an installed package, or undefined. */
export async function findPeer(name) {
  const given = process.env.BITLOOM_PEERS;
  const folders = [
    ...(given === undefined ? [] : [given, join(given, 'node_modules')]),
    join(root, 'node_modules'),
  ];
  for (const folder of folders) {
    const file = join(folder, name, 'package.json');
    if (!existsSync(file)) continue;
    const manifest = JSON.parse(readFileSync(file, 'utf8'));
    const imported = await import(pathToFileURL(join(folder, name, manifest.main)));
    return { version: manifest.version, module: imported };
  }
  return undefined;
}
