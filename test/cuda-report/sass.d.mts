export interface Instruction {
  name: string;
  kind: string;
  target?: number;
}
export interface Loop {
  first: number;
  instructions: Instruction[];
  mma: number;
  accesses: number;
  isInner: boolean;
}
export function decode(code: Buffer, arch: number): Instruction[];
export function trim(instructions: Instruction[]): Instruction[];
export function histogram(
  instructions: Instruction[],
  key?: 'name' | 'kind',
): Record<string, number>;
export function hotLoop(instructions: Instruction[]): Loop | null;
