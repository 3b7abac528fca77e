import { rangeError, raw, typeError } from "../checks.ts";

/** Positions of tokens: `[n]` for every batch row or `[B, n]`, of pairs (row, column) where a rotation has two axes. */
export type Positions = Uint32Array | Int32Array;

/** The rows of the table of rotations for `rows` tokens, one for each axis. */
export interface PositionTable {
  /** Positions that each axis has. */
  readonly axes: readonly number[];
}

/**
 * Given positions as rows of the table, for batch · length tokens.
 * @throws TypeError, RangeError
 */
export function givenPositions(
  where: string,
  argument: string,
  { axes }: PositionTable,
  given: Positions,
  batch: number,
  length: number,
): Uint32Array {
  if (!(given instanceof Uint32Array) && !(given instanceof Int32Array)) throw typeError(where, argument, "be a Uint32Array or an Int32Array", given);
  const one = length * axes.length;
  if (given.length !== one && given.length !== batch * one) {
    const shape = axes.length === 2 ? ", 2]" : "]";
    const wanted = `have ${one} ([${length}${shape}) or ${batch * one} ([${batch}, ${length}${shape}) elements`;
    throw rangeError(where, argument, wanted, raw(`${given.length}`));
  }
  const rows = new Uint32Array(batch * one);
  for (let i = 0; i < rows.length; i++)
    rows[i] = rowOf(where, () => `${argument}[${i % given.length}]`, axes, i % axes.length, given[i % given.length] ?? 0);
  return rows;
}

/** Positions counted from `starts[b]` on, in rows of `length` tokens or in packed sequences. */
export function countedPositions(
  where: string,
  argument: string,
  { axes }: PositionTable,
  starts: readonly number[],
  length: number,
  cuSeqlens?: Uint32Array,
): Uint32Array {
  if (axes.length !== 1) throw typeError(where, argument, "be given for a 2d rotation", undefined, "pass [n, 2] rows and columns");
  const rows = new Uint32Array(cuSeqlens ? length : starts.length * length);
  starts.forEach((start, b) => {
    const first = cuSeqlens ? (cuSeqlens[b] ?? 0) : b * length;
    const end = cuSeqlens ? (cuSeqlens[b + 1] ?? 0) : first + length;
    if (end === first) return;
    rowOf(where, () => `the first position`, axes, 0, start);
    rowOf(where, () => `the last position`, axes, 0, start + end - first - 1);
    for (let i = first; i < end; i++) rows[i] = start + i - first;
  });
  return rows;
}

function rowOf(where: string, argument: () => string, axes: readonly number[], axis: number, position: number): number {
  const size = axes[axis] ?? 0;
  if (position < 0 || position >= size) {
    const hint = "create the layer with a larger maxPositions, or shift() the state";
    throw rangeError(where, argument(), `be from 0 to ${size - 1}`, position, hint);
  }
  return axis === 0 ? position : (axes[0] ?? 0) + position;
}
