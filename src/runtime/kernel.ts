export type BindingType = "uniform" | "read-only-storage" | "storage";

export interface KernelBinding {
  readonly name: string;
  readonly binding: number;
  readonly type: BindingType;
}

export interface UniformField {
  readonly offset: number;
  readonly type: "u32" | "f32";
}

/** Storage of a tensor's elements. */
export type Dtype = "f32" | "f16";
/** Storage of weights: i8 has one scale a channel, i4 one for every 32 inputs of a channel. */
export type WeightDtype = "f32" | "f16" | "i8" | "i4";

export const BYTES: Readonly<Record<Dtype, number>> = { f32: 4, f16: 2 };

/** How rows are read and written: whole vec4s of f32, element by element for lengths or positions that are not multiples of 4, or f16 in fours. */
export type RowAccess = "vec4" | "scalar" | "half";

/** An expansion (shaders/shared/expand_*.wgsl) with the files that it needs for each register tile. Carried by who uses it: HoM has no use for PoM's. */
export interface Expand {
  readonly name: string;
  readonly files: Readonly<Record<TileName, readonly string[]>>;
}

export type Split = 4 | 16 | 64;

/** Compile-time choices of a kernel; a kernel ignores those it has no use for. */
export interface Variant {
  readonly x?: RowAccess;
  readonly y?: RowAccess;
  readonly w?: WeightDtype;
  readonly activation?: "gelu" | "tanh" | "identity" | "x_erf" | "silu" | "leaky_clamp" | "hard_sigmoid";
  /** What logits become: HoM's gates unless given; "none" leaves the gates to another kernel. */
  readonly gate?: "sigmoid" | "hard_sigmoid" | "none";
  /** How projections become moments: HoM's products unless given. */
  readonly expand?: Expand;
  /** Rows x channels of the register tile. */
  readonly tile?: TileName;
  /** Lanes that share a tile's inner dimension; alone unless given. */
  readonly split?: Split;
  /** Lanes over the outputs of select.wgsl, and over the groups of blocks of merge_moments.wgsl. */
  readonly lanes?: 1 | 16 | 32 | 64;
  /** Queries of a lane, and columns of 4 outputs, in attention.wgsl. */
  readonly queryRows?: 4 | 8;
  readonly headColumns?: 1 | 2 | 4;
  /** What random_features.wgsl computes. */
  readonly featureMap?: "favor" | "rfa" | "maclaurin_exp" | "maclaurin_gaussian";
}

/** One WGSL kernel. What is bound where and how the uniform is laid out is read from its source, so that it is said once. */
export interface Kernel {
  readonly name: string;
  readonly bindings: readonly KernelBinding[];
  readonly uniforms: ReadonlyMap<string, UniformField>;
  readonly uniformBytes: number;
  /** Every variant that can be asked for: the compile test and the bench walk it. */
  readonly variants: readonly Variant[];
  key(variant: Variant): string;
  code(variant: Variant): string;
}

/** A byte range of one of the buffers that a program is run with; offsets are multiples of 256, as every adapter can bind. */
export interface Slot {
  readonly buffer: string;
  readonly offset: number;
  readonly size: number;
}

/** One dispatch, without a GPU object in it. */
export interface Step {
  readonly kernel: Kernel;
  readonly variant: Variant;
  readonly uniforms: Readonly<Record<string, number>>;
  readonly slots: Readonly<Record<string, Slot>>;
  readonly workgroups: readonly [number, number, number];
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/** One dispatch of a call, in the order in which they run. */
export interface PlannedDispatch {
  readonly kernel: string;
  readonly workgroups: readonly [number, number, number];
  /** Its inputs, each counted once, and its outputs. */
  readonly bytesRead: number;
  readonly bytesWritten: number;
}

/** What a plan says of a step. */
export function planned({ kernel, workgroups, bytesRead, bytesWritten }: Step): PlannedDispatch {
  return { kernel: kernel.name, workgroups, bytesRead, bytesWritten };
}

/** Invocations of a workgroup; the same for every kernel, so that one number divides the work. */
export const WORKGROUP_SIZE = 64;
/** Partial sums are added in groups of this many: two levels keep the error of long sums small. */
export const GROUP = 32;
export type TileName = "1x4" | "8x4" | "16x8" | "16x8_quads";

/** Rows, and columns in vec4s, of the register tiles (shaders/shared/tile_*.wgsl). */
export const TILES: Readonly<Record<TileName, { readonly rows: number; readonly cols4: number }>> = {
  "1x4": { rows: 1, cols4: 1 },
  "8x4": { rows: 8, cols4: 1 },
  "16x8": { rows: 16, cols4: 2 },
  "16x8_quads": { rows: 16, cols4: 2 },
};

/** Rows of the tile that select.wgsl is written for. */
export const SELECT_TILE_ROWS = 8;

/** The tile for this many rows and columns, `largest` at most. One row of eight is where the small one and the next meet. */
export function tileFor(rows: number, largest: TileName, cols4: number): TileName {
  if (rows <= 2) return "1x4";
  return rows < TILES["16x8"].rows ? "8x4" : tileOver(largest, cols4);
}

/** Quads need whole tiles of columns, in fours: others take the same tile without them, and get the same bits. */
export function tileOver(tile: TileName, cols4: number): TileName {
  return tile === "16x8_quads" && cols4 % 8 !== 0 ? "16x8" : tile;
}

/** Invocations that cover `rows` x `cols4` with a tile each. */
export function tilesOver(tile: TileName, rows: number, cols4: number): number {
  return Math.ceil(rows / TILES[tile].rows) * Math.ceil(cols4 / TILES[tile].cols4);
}

/** The tile of tileFor for this many decoded rows, and how many lanes share one. Lanes add in another order: all numbers of rows take them, or none. */
export function tileForSplit(rows: number, largest: TileName, cols4: number, lanes: 1 | Split) {
  const tile = tileFor(rows, lanes === 1 ? largest : "8x4", cols4);
  return { tile, ...(lanes > 1 && { split: lanes as Split }) };
}

/** Bind offsets are multiples of this on every adapter (the largest `minStorageBufferOffsetAlignment` allowed). */
export const BIND_ALIGNMENT = 256;

/** The uniform block of a step, in the layout of the kernel's source. */
export function packUniforms(kernel: Kernel, values: Readonly<Record<string, number>>): Uint32Array<ArrayBuffer> {
  const words = new Uint32Array(kernel.uniformBytes / 4);
  const floats = new Float32Array(words.buffer);
  for (const [name, field] of kernel.uniforms) {
    const value = values[name];
    if (value === undefined) throw new Error(`${kernel.name}: uniform ${name} has no value`);
    if (field.type === "f32") floats[field.offset / 4] = value;
    else if (!Number.isInteger(value) || value < 0 || value > 0xffffffff)
      throw new Error(`${kernel.name}: uniform ${name} must fit in u32, got ${value}`);
    else words[field.offset / 4] = value;
  }
  for (const name of Object.keys(values)) if (!kernel.uniforms.has(name)) throw new Error(`${kernel.name}: no uniform is called ${name}`);
  return words;
}
