// A mixture's rows: to their experts and back, a product per expert, and the same as a block-sparse matrix. Mixtral-like
// proportions, smaller: 8 experts, top 2.
import { activationCase } from '../activations.mjs';
import { gaussianTensor } from '../data.mjs';
import { bitloom } from '../native.mjs';

function routed(tokens, experts, topK, hidden) {
  const x = gaussianTensor([tokens, hidden]);
  const logits = gaussianTensor([tokens, experts]);
  const { indices, weights } = bitloom.moeRoute(logits, { topK });
  return { x, indices, weights, ...bitloom.moePermute(x, indices, { experts }) };
}

/** The first row of a product of rows [rows, k] with the first expert's weights [n, k]. */
function firstRow(rows, offsets, weights, n, k) {
  let expert = 0;
  while (offsets.data[expert + 1] === 0) expert++;
  return Float64Array.from({ length: n }, (_, j) => {
    let sum = 0;
    for (let i = 0; i < k; i++) sum += rows.data[i] * weights.data[(expert * n + j) * k + i];
    return sum;
  });
}

function* moves({ tokens, experts, topK, hidden }) {
  const names = { family: 'block_sparse', m: tokens, n: hidden, k: topK };
  const routes = tokens * topK;
  yield activationCase(
    { ...names, op: 'moe_permute', case: `top ${topK} of ${experts}, ${hidden} wide` },
    { bytes: 4 * hidden * (tokens + routes), operations: routes },
    () => {
      const { x, indices, offsets, order, inverse } = routed(tokens, experts, topK, hidden);
      return {
        shape: [routes, hidden],
        call: (run, rows) =>
          bitloom.moePermute(x, indices, {
            ...run,
            experts,
            out: { rows, offsets, order, inverse },
          }),
        reference: () => {
          const token = Math.floor(order.data[0] / topK);
          return Float64Array.from(x.data.slice(token * hidden, (token + 1) * hidden));
        },
      };
    },
  );
  yield activationCase(
    { ...names, op: 'moe_unpermute', case: `top ${topK} of ${experts}, ${hidden} wide` },
    { bytes: 4 * hidden * (tokens + routes), operations: 2 * routes * hidden },
    () => {
      const { x, inverse, weights, rows } = routed(tokens, experts, topK, hidden);
      return {
        shape: [tokens, hidden],
        call: (run, out) => bitloom.moeUnpermute(rows, inverse, { ...run, weights, out }),
        reference: () => {
          const sum = weights.data.slice(0, topK).reduce((a, b) => a + b, 0);
          return Float64Array.from(x.data.slice(0, hidden), (value) => value * sum);
        },
      };
    },
  );
}

function* products({ tokens, experts, topK, hidden, ffn }) {
  const rowsCount = tokens * topK;
  const names = { family: 'block_sparse', m: rowsCount, n: ffn, k: hidden };
  const work = {
    bytes: 4 * (rowsCount * (hidden + ffn) + experts * ffn * hidden),
    operations: 2 * rowsCount * hidden * ffn,
  };
  const make = () => ({
    ...routed(tokens, experts, topK, hidden),
    weights: gaussianTensor([experts, ffn, hidden]),
  });
  for (const compute of ['f32', 'bf16']) {
    yield activationCase(
      { ...names, op: 'grouped_matmul', case: `${experts} experts, ${compute}` },
      { ...work, type: compute },
      () => {
        const { rows, offsets, weights } = make();
        return {
          shape: [rowsCount, ffn],
          call: (run, out) =>
            bitloom.groupedMatmul(rows, weights, offsets, { ...run, compute, out }),
          reference: () => firstRow(rows, offsets, weights, ffn, hidden),
        };
      },
    );
  }
  const sparse = (blockSize) => {
    const { rows, offsets, weights } = make();
    const topology = bitloom.topology(offsets, ffn, blockSize);
    const flat = new bitloom.Tensor('f32', weights.data, [experts * ffn, hidden]);
    return { rows, offsets, weights, flat, topology };
  };
  for (const blockSize of [16, 128]) {
    const named = { ...names, case: `blocks of ${blockSize}` };
    yield activationCase({ ...named, op: 'sdd' }, work, () => {
      const { rows, offsets, weights, flat, topology } = sparse(blockSize);
      const columns = Math.min(blockSize, ffn);
      return {
        shape: [topology.blocks, blockSize, blockSize],
        call: (run, out) => bitloom.sdd(rows, flat, topology, { ...run, transposeB: true, out }),
        reference: () => firstRow(rows, offsets, weights, ffn, hidden).slice(0, columns),
      };
    });
    const back = { ...named, n: hidden, k: ffn };
    yield activationCase({ ...back, op: 'dsd' }, work, () => {
      const { rows, flat, topology } = sparse(blockSize);
      const s = bitloom.sdd(rows, flat, topology, { transposeB: true });
      return {
        shape: [rowsCount, hidden],
        call: (run, out) => bitloom.dsd(s, flat, { ...run, out }),
        reference: () => Float64Array.from(bitloom.dsd(s, flat, { isa: 'scalar' }).data),
      };
    });
    yield activationCase(
      { ...back, op: 'dds', m: hidden, n: experts * ffn, k: rowsCount },
      work,
      () => {
        const { rows, flat, topology } = sparse(blockSize);
        const s = bitloom.sdd(rows, flat, topology, { transposeB: true });
        return {
          shape: [hidden, experts * ffn],
          call: (run, out) => bitloom.dds(rows, s, { ...run, transposeA: true, out }),
          reference: () =>
            Float64Array.from(bitloom.dds(rows, s, { transposeA: true, isa: 'scalar' }).data),
        };
      },
    );
  }
}

export function* cases({ tiny }) {
  const shape = tiny
    ? { tokens: 5, experts: 3, topK: 2, hidden: 32, ffn: 48 }
    : { tokens: 256, experts: 8, topK: 2, hidden: 1024, ffn: 1536 };
  yield* moves(shape);
  yield* products(shape);
  if (tiny) return;
  // The layers of moe/moe_forward.mjs.
  yield* moves({ tokens: 256, experts: 128, topK: 8, hidden: 2048 });
  yield* moves({ tokens: 256, experts: 8, topK: 2, hidden: 4096 });
}
