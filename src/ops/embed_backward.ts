import source from "../../shaders/embed_backward.wgsl?raw";
import { type Slot, type Step, WORKGROUP_SIZE } from "../runtime/kernel.ts";
import { bindRows, defineKernel, type Rows, workgroupsFor } from "./op.ts";

export const embedBackward = defineKernel({ name: "embed_backward", source });

/** Rows by key: rows `order[starts[i]]` to `order[starts[i + 1] - 1]` have `keys[i]`; no key twice. */
export interface RowGroups {
  readonly order: Uint32Array;
  readonly starts: Uint32Array;
  readonly keys: Uint32Array;
}

export interface EmbedBackwardArguments {
  /** `[rows, dim]`, f32, without spans. */
  readonly x: Rows;
  /** What `packRowGroups` made, u32. */
  readonly table: Slot;
  /** `[keys, dim]`, f32 */
  readonly gradient: Slot;
  /** Keys are from 0 to `keys` - 1. */
  readonly keys: number;
  /** Scratch buffer for sums of parts of a frequent key. */
  readonly partial: string;
  /** Adds to what the gradient holds. Either way, rows of keys that do not occur are left as they are. */
  readonly accumulate: boolean;
  readonly maxWorkgroups: number;
}

/** Rows that an invocation adds up; a key with more is cut. */
const BLOCK = 64;
const TO_PARTIAL = 0x80000000;
const HEADER = 2;

/** Where the parts of a table begin, in words, for any grouping of this many rows by this many keys. */
function tableLayout(rows: number, keys: number) {
  const items = Math.min(rows, keys + Math.floor(rows / BLOCK));
  const frequent = Math.min(keys, Math.floor(rows / (BLOCK + 1)));
  const frequentAt = HEADER + 3 * items;
  const orderAt = frequentAt + 3 * frequent;
  return { items, frequent, itemsAt: HEADER, frequentAt, orderAt, words: orderAt + rows, partialRows: Math.floor((2 * rows) / BLOCK) };
}

/** Words of the table for this many rows and keys, whatever their groups. */
export function rowGroupWords(rows: number, keys: number): number {
  return tableLayout(rows, keys).words;
}

/** The groups as embed_backward.wgsl reads them: keys of up to BLOCK rows as they are, others in parts. */
export function packRowGroups(groups: RowGroups, keys: number): Uint32Array<ArrayBuffer> {
  const layout = tableLayout(groups.order.length, keys);
  const table = new Uint32Array(layout.words);
  const counts = [0, 0];
  const add = (level: 0 | 1, start: number, end: number, destination: number) => {
    table.set([start, end, destination], (level === 0 ? layout.itemsAt : layout.frequentAt) + 3 * counts[level]!);
    counts[level]!++;
  };
  let parts = 0;
  for (const [i, key] of groups.keys.entries()) {
    const start = groups.starts[i] ?? 0;
    const end = groups.starts[i + 1] ?? start;
    if (end - start <= BLOCK) {
      add(0, start, end, key);
      continue;
    }
    const first = parts;
    for (let from = start; from < end; from += BLOCK) add(0, from, Math.min(from + BLOCK, end), (TO_PARTIAL | parts++) >>> 0);
    add(1, first, parts, key);
  }
  table.set(counts);
  table.set(groups.order, layout.orderAt);
  return table;
}

/**
 * The gradient of a table whose rows were looked up; two dispatches, or one where no key can be frequent.
 * @returns the dispatches, and the bytes that `partial` needs for them
 */
export function planEmbedBackward(a: EmbedBackwardArguments): { steps: Step[]; partialBytes: number } {
  if (a.x.span !== undefined) throw new Error(`planEmbedBackward: x must lie without spans, got ${a.x.span}`);
  const { count: rows, length: dim, stride } = a.x;
  const bound = bindRows(a.x);
  const layout = tableLayout(rows, a.keys);
  const partialBytes = Math.max(16, layout.partialRows * dim * 4);
  const slots = { x: bound.slot, table: a.table, partial: { buffer: a.partial, offset: 0, size: partialBytes }, gradient: a.gradient };
  const level = (index: number, items: number, itemsAt: number, read: number): Step => ({
    kernel: embedBackward,
    variant: {},
    uniforms: {
      dim,
      level: index,
      items_at: itemsAt,
      order_at: layout.orderAt,
      x_offset: bound.offset,
      x_stride: stride,
      accumulate: a.accumulate ? 1 : 0,
    },
    slots,
    workgroups: workgroupsFor(Math.ceil((items * dim) / WORKGROUP_SIZE), a.maxWorkgroups),
    bytesRead: read * dim * 4,
    bytesWritten: items * dim * 4,
  });
  const steps = [level(0, layout.items, layout.itemsAt, rows)];
  if (layout.frequent > 0) steps.push(level(1, layout.frequent, layout.frequentAt, layout.partialRows));
  return { steps, partialBytes };
}
