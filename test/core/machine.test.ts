// Instruction set levels: which there are here, and what happens to the others.
import { describe, expect, it } from 'vitest';
import { isas as allLevels } from '../../lib/generated.js';
import { type Isa, machine, setIsa, silu, Tensor } from '../../lib/index.js';
import { thrown } from '../reference/views.js';

const { isas, isaAvailable } = machine();
const all = Object.keys(allLevels) as Isa[];
const x = new Tensor('f32', Float32Array.of(1, 2, 3), [3]);

describe('levels of this machine', () => {
  it('are scalar and those of one family up to the best', () => {
    const families = [
      ['avx2', 'avx512', 'amx'],
      ['neon', 'dotprod', 'i8mm'],
    ] as Isa[][];
    expect(all).toEqual(['scalar', ...families.flat()]);
    const family = families.find((levels) => levels.includes(isaAvailable)) ?? [];
    expect(isas).toEqual(['scalar', ...family.slice(0, family.indexOf(isaAvailable) + 1)]);
  });

  it.each(isas)('%s can be forced for a call and for all', (isa) => {
    expect(silu(x, { isa }).shape).toEqual([3]);
    const before = machine().isa;
    setIsa(isa);
    expect(machine().isa).toBe(isa);
    setIsa(before);
  });

  it.each(all.filter((isa) => !isas.includes(isa)))('%s is refused', (isa) => {
    const levels = `expected one of ${isas.join(', ')} (what this machine has)`;
    const call = thrown(() => silu(x, { isa }));
    expect(call).toMatchObject({ code: 'BL_UNSUPPORTED' });
    expect(call.message).toBe(`silu: run.isa is ${isa}, ${levels}`);
    const forAll = thrown(() => setIsa(isa));
    expect(forAll).toMatchObject({ code: 'BL_UNSUPPORTED' });
    expect(forAll.message).toBe(`set_isa: isa is ${isa}, ${levels}`);
    expect(machine().isas).toEqual(isas);
  });
});
