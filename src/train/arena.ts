import { padded } from "../layers/params.ts";
import type { HlmConfig } from "../models/hlm_weights.ts";
import { BIND_ALIGNMENT } from "../runtime/kernel.ts";
import { Random } from "./random.ts";

/** A Linear layer of the checkpoint inside a packed matrix. */
export interface ArenaLinear {
  /** `<name>.weight` and `<name>.bias`. */
  readonly name: string;
  readonly inner: number;
  readonly outer: number;
  /** The padded channels: `count` stretches of `width`, each padded to a multiple of 4. */
  readonly chunks: { readonly inner: number; readonly outer: number };
  /** First column of the packed matrix. */
  readonly column: number;
}

/** A matrix as the kernels read it: `[rows + 1, columns]`, the weights transposed, the last row the biases; or the token table, or a vector, as it is. */
export interface ArenaMatrix {
  readonly name: string;
  /** In bytes, a multiple of 256. */
  readonly offset: number;
  readonly rows: number;
  readonly columns: number;
  readonly size: number;
  /** The Linears side by side; none: `[rows, columns]` of a tensor, row-major and without a bias. */
  readonly linears: readonly ArenaLinear[];
  /** Of one without Linears: its checkpoint name, and whether weight decay applies to it. */
  readonly bare?: { readonly key: string; readonly shape: readonly number[]; readonly decayed: boolean };
}

/** Elements [start, end) of the arena. */
export interface ArenaRange {
  readonly start: number;
  readonly end: number;
}

/**
 * Where every trained tensor of a model lies in one buffer. Gradients and optimiser moments have buffers of the same layout, so that what works
 * element by element needs to know nothing of matrices. Padding is 0 everywhere and stays so.
 */
export interface ArenaLayout {
  readonly matrices: readonly ArenaMatrix[];
  /** Bytes of the whole, a multiple of 256. */
  readonly size: number;
}

export function arenaLayout(config: HlmConfig): ArenaLayout {
  const { vocabSize: V, dim: D, layers, order: k, orderExpand, ffwExpand } = config;
  const E = orderExpand * D;
  const matrices: ArenaMatrix[] = [];
  let size = 0;
  const place = (matrix: Omit<ArenaMatrix, "offset">) => {
    matrices.push({ ...matrix, offset: size });
    size += Math.ceil(matrix.size / BIND_ALIGNMENT) * BIND_ALIGNMENT;
  };
  const add = (name: string, rows: number, columns: number, linears: readonly ArenaLinear[]) =>
    place({ name, rows, columns, size: (rows + 1) * columns * 4, linears });
  const bare = (name: string, key: string, shape: readonly number[], decayed: boolean) => {
    const [columns = 0, rows = 1] = [...shape].reverse();
    // Gradients of a vector are added up four at a time.
    const size = shape.length === 1 ? padded(columns) * 4 : rows * columns * 4;
    place({ name, rows, columns, size, linears: [], bare: { key, shape, decayed } });
  };
  const linear = (name: string, inner: number, outer: number, chunks = { inner: 1, outer: 1 }, column = 0): ArenaLinear => ({
    name,
    inner,
    outer,
    chunks,
    column,
  });
  const single = (name: string, inner: number, outer: number) => add(name, padded(inner), padded(outer), [linear(name, inner, outer)]);

  bare("token_emb", "token_emb.weight", [V, D], true);
  if (config.positions !== false) {
    single("pos_emb.0", D, 2 * D);
    single("pos_emb.2", 2 * D, D);
  }
  for (let i = 0; i < layers; i++) {
    const prefix = `layers.${i}.`;
    const moments = { inner: 1, outer: k };
    const half = k * padded(E);
    add(`${prefix}projections`, padded(D), 2 * half, [
      linear(`${prefix}hom.ho_proj`, D, k * E, moments),
      linear(`${prefix}hom.se_proj`, D, k * E, moments, half),
    ]);
    add(`${prefix}ag`, half, padded(D), [linear(`${prefix}hom.ag_proj`, k * E, D, { inner: k, outer: 1 })]);
    if (config.tokenShift) bare(`${prefix}shift`, `${prefix}shift.mix`, [D], false);
    single(`${prefix}ffw.0`, D, ffwExpand * D);
    single(`${prefix}ffw.2`, ffwExpand * D, D);
  }
  single("output_proj", D, V);
  return { matrices, size };
}

/** Where parameter [outer, inner] of a checkpoint lies: calls back with its index there and in the arena. */
function eachElement(matrix: ArenaMatrix, part: ArenaLinear, weight: (index: number, at: number) => void, bias: (index: number, at: number) => void) {
  const base = matrix.offset / 4;
  const innerWidth = part.inner / part.chunks.inner;
  const outerWidth = part.outer / part.chunks.outer;
  for (let o = 0; o < part.outer; o++) {
    const column = part.column + Math.floor(o / outerWidth) * padded(outerWidth) + (o % outerWidth);
    for (let i = 0; i < part.inner; i++) {
      const row = Math.floor(i / innerWidth) * padded(innerWidth) + (i % innerWidth);
      weight(o * part.inner + i, base + row * matrix.columns + column);
    }
    bias(o, base + matrix.rows * matrix.columns + column);
  }
}

/** Parameters by checkpoint name; a Linear without a bias gets zeros. */
export function packArena(layout: ArenaLayout, params: Readonly<Record<string, ArrayLike<number>>>): Float32Array<ArrayBuffer> {
  const arena = new Float32Array(layout.size / 4);
  for (const matrix of layout.matrices) {
    if (matrix.bare) arena.set(params[matrix.bare.key] ?? [], matrix.offset / 4);
    for (const part of matrix.linears) {
      const weight = params[`${part.name}.weight`] ?? [];
      const bias = params[`${part.name}.bias`];
      eachElement(
        matrix,
        part,
        (i, at) => {
          arena[at] = weight[i] ?? 0;
        },
        (o, at) => {
          arena[at] = bias?.[o] ?? 0;
        },
      );
    }
  }
  return arena;
}

/** Every trained tensor's shape, by checkpoint name. */
export function arenaShapes(layout: ArenaLayout): Record<string, readonly number[]> {
  const shapes: Record<string, readonly number[]> = {};
  for (const { bare, linears } of layout.matrices) {
    if (bare) shapes[bare.key] = bare.shape;
    for (const part of linears) {
      shapes[`${part.name}.weight`] = [part.outer, part.inner];
      shapes[`${part.name}.bias`] = [part.outer];
    }
  }
  return shapes;
}

export interface ArenaTensor {
  readonly shape: readonly number[];
  readonly data: Float32Array<ArrayBuffer>;
}

/** The inverse of `packArena`. */
export function unpackArena(layout: ArenaLayout, arena: Float32Array): Record<string, ArenaTensor> {
  const tensors: Record<string, ArenaTensor> = {};
  for (const matrix of layout.matrices) {
    if (matrix.bare) {
      const data = arena.slice(matrix.offset / 4, matrix.offset / 4 + matrix.rows * matrix.columns);
      tensors[matrix.bare.key] = { shape: matrix.bare.shape, data };
    }
    for (const part of matrix.linears) {
      const weight = new Float32Array(part.outer * part.inner);
      const bias = new Float32Array(part.outer);
      eachElement(
        matrix,
        part,
        (i, at) => {
          weight[i] = arena[at] ?? 0;
        },
        (o, at) => {
          bias[o] = arena[at] ?? 0;
        },
      );
      tensors[`${part.name}.weight`] = { shape: [part.outer, part.inner], data: weight };
      tensors[`${part.name}.bias`] = { shape: [part.outer], data: bias };
    }
  }
  return tensors;
}

/** What weight decay applies to: tensors of two axes, not biases. */
export function decayedRanges(layout: ArenaLayout): ArenaRange[] {
  const decayed = layout.matrices.filter(({ bare }) => bare?.decayed !== false);
  return decayed.map(({ offset, rows, columns }) => ({ start: offset / 4, end: offset / 4 + rows * columns }));
}

/** Streams of a seed from here on initialise weights, one a tensor. */
const FIRST_STREAM = 16;

/**
 * Weights to begin with, as the original begins: a Linear U(-1/√inner, 1/√inner) with a bias of 0, but output_proj N(0, 0.02²); the token
 * embedding N(0, 1). A token shift begins halfway between the two tokens.
 */
export function initialParams(config: HlmConfig, seed: number): Record<string, Float32Array<ArrayBuffer>> {
  const params: Record<string, Float32Array<ArrayBuffer>> = {};
  let stream = FIRST_STREAM;
  for (const matrix of arenaLayout(config).matrices) {
    if (matrix.bare) {
      const random = new Random(seed, stream++);
      const draw = matrix.bare.key.endsWith(".mix") ? () => 0.5 : () => random.normal();
      params[matrix.bare.key] = Float32Array.from({ length: matrix.rows * matrix.columns }, draw);
    }
    for (const { name, inner, outer } of matrix.linears) {
      const random = new Random(seed, stream++);
      const bound = 1 / Math.sqrt(inner);
      const draw = name === "output_proj" ? () => 0.02 * random.normal() : () => bound * (2 * random.uniform() - 1);
      params[`${name}.weight`] = Float32Array.from({ length: outer * inner }, draw);
      params[`${name}.bias`] = new Float32Array(outer);
    }
  }
  return params;
}
