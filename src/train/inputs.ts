import { checkInteger, rangeError, raw, typeError } from "../checks.ts";
import type { HlmConfig } from "../models/hlm_weights.ts";
import type { RowGroups } from "../ops/embed_backward.ts";

/** What the device gets to know of one micro-batch of B rows of n tokens. */
export interface MicroBatch {
  readonly batch: number;
  readonly length: number;
  /** `[B·n]` */
  readonly ids: Uint32Array<ArrayBuffer>;
  readonly targets: Uint32Array<ArrayBuffer>;
  readonly idGroups: RowGroups;
  /** The positions that occur, rising, perhaps followed by zeros that no token has; and `[B·n]` which of them a token has. */
  readonly positions: readonly number[];
  readonly positionRows: Uint32Array<ArrayBuffer>;
  readonly positionGroups: RowGroups;
}

const POSITION_STEP = 64;

export interface CheckedTokens {
  readonly tokens: Int32Array;
  readonly batch: number;
  /** n: inputs of a row. */
  readonly length: number;
  /** One position a batch row. */
  readonly offsets: Int32Array;
}

/** Checks tokens `[B·(n+1)]` and the rows' positions. @throws TypeError, RangeError */
export function checkTokens(
  where: string,
  tokens: unknown,
  batch: unknown,
  posOffset: unknown,
  limits: { readonly vocabSize: number; readonly contextLength: number },
): CheckedTokens {
  const rows = checkInteger(where, "batch", batch, 1);
  if (!(tokens instanceof Int32Array)) throw typeError(where, "tokens", "be an Int32Array", tokens);
  const width = tokens.length / rows;
  if (!Number.isInteger(width) || width < 2) {
    const hint = "a row has its n inputs and one more token, the last target";
    throw rangeError(where, "tokens", `have ${rows} rows of n + 1 >= 2 tokens`, raw(`${tokens.length} ids`), hint);
  }
  const { vocabSize, contextLength } = limits;
  if (width - 1 > contextLength) {
    const got = raw(`${width - 1}`);
    throw rangeError(
      where,
      "tokens",
      `have at most contextLength = ${contextLength} inputs a row`,
      got,
      "use shorter rows, or a longer contextLength",
    );
  }
  const bad = tokens.findIndex((id) => id < 0 || id >= vocabSize);
  if (bad !== -1) throw rangeError(where, `tokens[${bad}]`, `be a token id from 0 to ${vocabSize - 1}`, tokens[bad]);
  return { tokens, batch: rows, length: width - 1, offsets: checkOffsets(where, posOffset, rows) };
}

function checkOffsets(where: string, offset: unknown, batch: number): Int32Array {
  if (typeof offset === "number") return new Int32Array(batch).fill(checkInteger(where, "posOffset", offset, 0, 0x7fffffff));
  if (!(offset instanceof Int32Array)) throw typeError(where, "posOffset", "be a number or an Int32Array", offset);
  if (offset.length !== batch) throw rangeError(where, "posOffset", `have ${batch} elements, one a batch row`, raw(`${offset.length}`));
  const bad = offset.findIndex((p) => p < 0);
  if (bad !== -1) throw rangeError(where, `posOffset[${bad}]`, "be >= 0", offset[bad]);
  return offset;
}

/** Batch rows [first, first + batch) of checked tokens. */
export function microBatch(
  { tokens, length, offsets }: CheckedTokens,
  first: number,
  batch: number,
  { vocabSize, positions: positioned = true }: Pick<HlmConfig, "vocabSize" | "positions">,
): MicroBatch {
  const ids = new Uint32Array(batch * length);
  const targets = new Uint32Array(batch * length);
  const places = new Float64Array(batch * length);
  for (let row = 0, at = 0; row < batch; row++) {
    for (let t = 0; t < length; t++, at++) {
      const source = (first + row) * (length + 1) + t;
      ids[at] = tokens[source] ?? 0;
      targets[at] = tokens[source + 1] ?? 0;
      places[at] = positioned ? (offsets[first + row] ?? 0) + t : 0;
    }
  }
  const positions = [...new Set(places)].sort((a, b) => a - b);
  const distinct = positions.length;
  const rowOf = new Map(positions.map((position, i) => [position, i]));
  // Random offsets give another number almost every time: filled up, they share a plan.
  if (distinct > length) while (positions.length % POSITION_STEP !== 0) positions.push(0);
  const positionRows = Uint32Array.from(places, (position) => rowOf.get(position) ?? 0);
  return {
    batch,
    length,
    ids,
    targets,
    idGroups: groupRows(ids, vocabSize),
    positions,
    positionRows,
    positionGroups: groupRows(positionRows, positions.length),
  };
}

/** Groups rows by their key, each from 0 to `keys` - 1: in order of keys, and of rows within a key. */
export function groupRows(keyOf: Uint32Array, keys: number): RowGroups {
  const next = new Uint32Array(keys + 1);
  for (const key of keyOf) next[key + 1] = (next[key + 1] ?? 0) + 1;
  const present: number[] = [];
  const starts: number[] = [];
  for (let key = 0; key < keys; key++) {
    if ((next[key + 1] ?? 0) > 0) {
      present.push(key);
      starts.push(next[key] ?? 0);
    }
    next[key + 1] = (next[key + 1] ?? 0) + (next[key] ?? 0);
  }
  starts.push(keyOf.length);
  const order = new Uint32Array(keyOf.length);
  keyOf.forEach((key, row) => {
    order[next[key] ?? 0] = row;
    next[key] = (next[key] ?? 0) + 1;
  });
  return { order, starts: Uint32Array.from(starts), keys: Uint32Array.from(present) };
}
