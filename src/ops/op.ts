import activationGradients from "../../shaders/shared/activation_gradients.wgsl?raw";
import activations from "../../shaders/shared/activations.wgsl?raw";
import attentionSlopes from "../../shaders/shared/attention_slopes.wgsl?raw";
import attentionTiles from "../../shaders/shared/attention_tiles.wgsl?raw";
import decay from "../../shaders/shared/decay.wgsl?raw";
import eightRows from "../../shaders/shared/eight_rows.wgsl?raw";
import expandProducts from "../../shaders/shared/expand_products.wgsl?raw";
import fourRows from "../../shaders/shared/four_rows.wgsl?raw";
import gateOf from "../../shaders/shared/gate_of.wgsl?raw";
import lane from "../../shaders/shared/lane.wgsl?raw";
import lanes from "../../shaders/shared/lanes.wgsl?raw";
import loadDyScalar from "../../shaders/shared/load_dy_scalar.wgsl?raw";
import loadDyVec4 from "../../shaders/shared/load_dy_vec4.wgsl?raw";
import weightsF16 from "../../shaders/shared/load_w_f16.wgsl?raw";
import weightsF32 from "../../shaders/shared/load_w_f32.wgsl?raw";
import weightsI4 from "../../shaders/shared/load_w_i4.wgsl?raw";
import weightsI8 from "../../shaders/shared/load_w_i8.wgsl?raw";
import loadHalf from "../../shaders/shared/load_x_half.wgsl?raw";
import loadScalar from "../../shaders/shared/load_x_scalar.wgsl?raw";
import loadVec4 from "../../shaders/shared/load_x_vec4.wgsl?raw";
import outer8x4 from "../../shaders/shared/outer_8x4.wgsl?raw";
import outer16x8 from "../../shaders/shared/outer_16x8.wgsl?raw";
import product16x8 from "../../shaders/shared/product_16x8.wgsl?raw";
import product16x8Quads from "../../shaders/shared/product_16x8_quads.wgsl?raw";
import quad from "../../shaders/shared/quad.wgsl?raw";
import rowMoments from "../../shaders/shared/row_moments.wgsl?raw";
import searchTable from "../../shaders/shared/search_table.wgsl?raw";
import settings from "../../shaders/shared/settings.wgsl?raw";
import stateLevels from "../../shaders/shared/state_levels.wgsl?raw";
import status from "../../shaders/shared/status.wgsl?raw";
import storeHalf from "../../shaders/shared/store_y_half.wgsl?raw";
import storeScalar from "../../shaders/shared/store_y_scalar.wgsl?raw";
import storeVec4 from "../../shaders/shared/store_y_vec4.wgsl?raw";
import tile1x4 from "../../shaders/shared/tile_1x4.wgsl?raw";
import tile8x4 from "../../shaders/shared/tile_8x4.wgsl?raw";
import tile16x8 from "../../shaders/shared/tile_16x8.wgsl?raw";
import tokenRange from "../../shaders/shared/token_range.wgsl?raw";
import tokenSource from "../../shaders/shared/token_source.wgsl?raw";
import workgroupSum from "../../shaders/shared/workgroup_sum.wgsl?raw";
import { FULL } from "../checks.ts";
import {
  BIND_ALIGNMENT,
  type BindingType,
  BYTES,
  type Dtype,
  GROUP,
  type Kernel,
  type RowAccess,
  type Slot,
  type TileName,
  type UniformField,
  type Variant,
  type WeightDtype,
  WORKGROUP_SIZE,
} from "../runtime/kernel.ts";
import type { Expansion, GateLayout, GateTurns } from "./types.ts";

/** Shared files that complete a kernel: those of a variant. Each is a name of its own, so that a page carries only what its kernels use. */
export type SharedFiles = (variant: Variant) => readonly string[];

const X_LOADS: Readonly<Record<RowAccess, string>> = { vec4: loadVec4, scalar: loadScalar, half: FULL ? loadHalf : "" };
const Y_STORES: Readonly<Record<RowAccess, string>> = { vec4: storeVec4, scalar: storeScalar, half: FULL ? storeHalf : "" };
const W_LOADS: Readonly<Record<WeightDtype, string>> = {
  f32: weightsF32,
  f16: FULL ? weightsF16 : "",
  i8: FULL ? weightsI8 : "",
  i4: FULL ? weightsI4 : "",
};
const TILES: Readonly<Record<TileName, readonly string[]>> = {
  "1x4": [tile1x4],
  "8x4": [tile8x4, quad],
  "16x8": FULL ? [tile16x8, product16x8, quad] : [],
  "16x8_quads": FULL ? [tile16x8, product16x8Quads, quad] : [],
};
/** Grouped projections shift what they read of a row; others compile without. */
const NO_SHIFT = "const x_first: u32 = 0u;";

/** A register tile with its weights and activations, and the lanes that share it. */
export const TILE: SharedFiles = ({ tile = "8x4", w = "f32", split }) => [
  ...TILES[tile],
  ...(FULL && split ? [lanes, `const SPLIT: u32 = ${split}u;`] : [lane]),
  W_LOADS[w],
  activations,
];
/** How projections become moments. */
export const EXPAND: SharedFiles = ({ expand, tile = "8x4" }) => expand?.files[tile] ?? [expandProducts];
export const LOAD_X: SharedFiles = ({ expand, x = "vec4" }) => (expand ? [X_LOADS[x]] : [X_LOADS[x], NO_SHIFT]);
export const STORE_Y: SharedFiles = ({ y = "vec4" }) => [Y_STORES[y]];
export const LOAD_DY: SharedFiles = ({ y }) => [y === "scalar" ? loadDyScalar : loadDyVec4];
export const OUTER: SharedFiles = ({ tile }) => [tile === "16x8" ? outer16x8 : outer8x4];
export const ACTIVATION_FUNCTIONS: SharedFiles = () => [activations];
export const ACTIVATION_GRADIENTS: SharedFiles = () => [activationGradients];
export const ROW_MOMENTS: SharedFiles = () => [rowMoments];
export const TOKEN_SOURCE: SharedFiles = () => [tokenSource];
export const GATE_OF: SharedFiles = () => [gateOf];
export const SEARCH_TABLE: SharedFiles = () => [searchTable];
export const TOKEN_RANGE: SharedFiles = () => [tokenRange];
export const DECAY: SharedFiles = () => [decay];
export const STATE_LEVELS_FILE: SharedFiles = () => [stateLevels];
export const ATTENTION_TILES: SharedFiles = () => [fourRows, attentionTiles];
export const ATTENTION_SLOPES: SharedFiles = () => [attentionSlopes];
export const EIGHT_ROWS: SharedFiles = () => [eightRows];
export const WORKGROUP_SUM: SharedFiles = () => [workgroupSum];
export const STATUS: SharedFiles = () => [status];
export const SETTINGS: SharedFiles = () => [settings];

/** Before the first line, so that line numbers stay. That all four of a quad are there is the host's care: see product_16x8_quads.wgsl. */
const DIRECTIVES: Readonly<Record<TileName, string>> = {
  "1x4": "",
  "8x4": "",
  "16x8": "",
  "16x8_quads": "enable subgroups; diagnostic(off, subgroup_uniformity); ",
};

const ACTIVATIONS: readonly NonNullable<Variant["activation"]>[] = ["gelu", "tanh", "identity", "x_erf", "silu", "leaky_clamp", "hard_sigmoid"];
const FEATURE_MAPS: readonly NonNullable<Variant["featureMap"]>[] = ["favor", "rfa", "maclaurin_exp", "maclaurin_gaussian"];
const GATES: readonly NonNullable<Variant["gate"]>[] = ["sigmoid", "hard_sigmoid", "none"];

/** What a kernel file says of itself, plus the shared files it is completed with. */
export interface OpSpec {
  readonly name: string;
  readonly source: string;
  readonly uses?: readonly SharedFiles[];
  readonly variants?: readonly Variant[];
}

/** Reads bindings and uniform layout from the source; appends shared files and constants after it, so that its line numbers stay. */
/* @__NO_SIDE_EFFECTS__ */
export function defineKernel(spec: OpSpec): Kernel {
  const { name, source, uses = [], variants = [{}] } = spec;
  const bindings = [...source.matchAll(/@group\(0\) ?@binding\((\d+)\) ?var<([^>]+)> ?(\w+):/g)].map((m) => ({
    binding: Number(m[1]),
    name: m[3] ?? "",
    type: bindingType(m[2] ?? ""),
  }));
  const struct = /struct Shape ?\{([^}]*)\}/.exec(source)?.[1];
  if (struct === undefined || bindings.length === 0) throw new Error(`${name}: the kernel source declares no Shape or no bindings`);
  const uniforms = new Map<string, UniformField>();
  for (const m of struct.matchAll(/(\w+): ?(u32|f32),/g))
    uniforms.set(m[1] ?? "", { offset: uniforms.size * 4, type: m[2] === "f32" ? "f32" : "u32" });

  const used = Object.keys(Object.assign({}, ...variants)) as (keyof Variant)[];
  return {
    name,
    bindings,
    uniforms,
    uniformBytes: Math.ceil((uniforms.size * 4) / 16) * 16,
    variants,
    key: (variant) => {
      const choices = used.map((k) => (k === "expand" ? "" : (variant[k] ?? "")));
      return [name, ...choices, ...(variant.expand ? [variant.expand.name] : [])].join("/");
    },
    code: (variant) =>
      [
        DIRECTIVES[variant.tile ?? "8x4"] + source,
        ...uses.flatMap((files) => files(variant)),
        `const WORKGROUP_SIZE: u32 = ${WORKGROUP_SIZE}u;`,
        `const GROUP: u32 = ${GROUP}u;`,
        `const ACTIVATION: u32 = ${ACTIVATIONS.indexOf(variant.activation ?? "identity")}u;`,
        `const GATE: u32 = ${GATES.indexOf(variant.gate ?? "sigmoid")}u;`,
        `const LANES: u32 = ${variant.lanes ?? 64}u;`,
        ...(variant.queryRows ? [`const QUERY_ROWS: u32 = ${variant.queryRows}u;`, `const HEAD_COLUMNS: u32 = ${variant.headColumns ?? 4}u;`] : []),
        ...(variant.featureMap ? [`const FEATURE_MAP: u32 = ${FEATURE_MAPS.indexOf(variant.featureMap)}u;`] : []),
      ].join("\n"),
  };
}

function bindingType(text: string): BindingType {
  if (text === "uniform") return "uniform";
  return /^storage, ?read$/.test(text) ? "read-only-storage" : "storage";
}

export type Choices = { readonly [K in keyof Variant]?: readonly Variant[K][] };

/** Every combination of the given choices; of several sets, one set after the other. A spread in an op's own sets would keep the op on every page. */
/* @__NO_SIDE_EFFECTS__ */
export function variantsOf(...sets: readonly Choices[]): Variant[] {
  return sets.flatMap((choices) => {
    let all: Variant[] = [{}];
    for (const [key, values] of Object.entries(choices)) all = all.flatMap((v) => (values ?? []).map((value) => ({ ...v, [key]: value })));
    return all;
  });
}

/** Lanes that can share a tile, which is 8x4 at most. */
export const SPLITS = [4, 16, 64] as const;

/** `invocations` spread over workgroups of WORKGROUP_SIZE, in two dimensions where one is not enough. */
export function workgroupsFor(groups: number, maxPerDimension: number): [number, number, number] {
  const y = Math.ceil(groups / maxPerDimension);
  return [Math.ceil(groups / y), y, 1];
}

/** Rows of a tensor in a buffer: where they start, how long they are, and how local rows map to them (spans of `span` rows, `pitch` rows apart). */
export interface Rows {
  readonly buffer: string;
  readonly byteOffset: number;
  /** Default f32; rows of f16 have lengths and positions that are multiples of 4 elements. */
  readonly dtype?: Dtype;
  /** Elements of a row that are used, and from one row to the next. */
  readonly length: number;
  /** Elements that are read at a time, where a row is read in parts. Default: all of it. */
  readonly part?: number | undefined;
  readonly stride: number;
  readonly first: number;
  readonly count: number;
  readonly span?: number;
  readonly pitch?: number;
}

export interface BoundRows {
  readonly slot: Slot;
  readonly access: RowAccess;
  /** In elements from the start of the slot. */
  readonly offset: number;
  readonly span: number;
  readonly pitch: number;
}

/** Binds just the bytes that the rows touch, from the last 256-byte boundary before them. */
export function bindRows(rows: Rows): BoundRows {
  const { span = 0x7fffffff, pitch = 0, dtype = "f32", part = rows.length } = rows;
  const bytes = BYTES[dtype];
  const last = Math.floor((rows.count - 1) / span) * pitch + ((rows.count - 1) % span);
  const start = rows.byteOffset + rows.first * rows.stride * bytes;
  const aligned = start - (start % BIND_ALIGNMENT);
  const end = start + (last * rows.stride + rows.length) * bytes;
  const offset = (start - aligned) / bytes;
  const inFours = rows.length % 4 === 0 && part % 4 === 0 && rows.stride % 4 === 0 && offset % 4 === 0;
  if (FULL && dtype === "f16" && !inFours)
    throw new Error(`bindRows: f16 rows must lie in fours, got length ${rows.length}, stride ${rows.stride}, offset ${offset}`);
  const access: RowAccess = dtype === "f16" ? "half" : inFours ? "vec4" : "scalar";
  return { slot: { buffer: rows.buffer, offset: aligned, size: end - aligned }, access, offset, span, pitch };
}

/** Uniforms and slots of an expansion, and what it adds to a variant. */
export function bindExpansion(a: Expansion, stride4: number) {
  const { expand, wStride4 = 2 * stride4, constants = EMPTY, degree = 1, group4 = 0, rotations = 0, positions } = a;
  return {
    variant: expand ? { expand } : {},
    uniforms: { w_stride4: wStride4, degree, group4, rotations, positions_offset: positions?.first ?? 0 },
    slots: { constants, positions: positions?.slot ?? EMPTY },
    bytesRead: a.constants?.size ?? 0,
  };
}

/** Uniforms and slots of gates that are there. */
export function bindGates(layout: GateLayout, turned: GateTurns | undefined) {
  return {
    uniforms: {
      gates_stride: layout.stride,
      chunk_gates: layout.chunkGates,
      head_width: layout.headWidth,
      column_step: layout.columnStep,
      planes: turned?.planes ?? 0,
      rotations: turned?.rotations ?? 0,
    },
    slots: { constants: turned?.constants ?? EMPTY, positions: turned?.positions ?? EMPTY },
    bytesRead: turned ? turned.constants.size : 0,
  };
}

/** Bytes that reading or writing the rows moves. */
export function rowBytes(rows: Rows): number {
  return rows.count * rows.length * BYTES[rows.dtype ?? "f32"];
}

export function xUniforms(rows: Rows, bound: BoundRows): Record<string, number> {
  const unit = bound.access === "scalar" ? 1 : 4;
  const { part = rows.length } = rows;
  return {
    inner: part,
    inner4: Math.ceil(part / 4),
    x_offset: bound.offset / unit,
    x_stride: rows.stride / unit,
    x_span: bound.span,
    x_pitch: bound.pitch,
  };
}

/** y and, lying like it and of its type, residual. Both are stored in fours, or neither. `accumulate` adds to what y holds, without a residual. */
export function bindY(y: Rows, residual: Rows | undefined, empty: Slot, accumulate = false) {
  const boundY = bindRows(y);
  const boundResidual = residual && bindRows(residual);
  const access = boundResidual?.access === "scalar" ? "scalar" : boundY.access;
  const unit = access === "scalar" ? 1 : 4;
  return {
    access,
    slots: { y: boundY.slot, residual: boundResidual?.slot ?? empty },
    uniforms: {
      y_offset: boundY.offset / unit,
      y_stride: y.stride / unit,
      y_span: boundY.span,
      y_pitch: boundY.pitch,
      has_residual: accumulate ? 2 : residual ? 1 : 0,
      residual_offset: (boundResidual?.offset ?? 0) / unit,
    },
    bytesWritten: rowBytes(y),
    bytesRead: residual || accumulate ? rowBytes(y) : 0,
  };
}

/** Inputs of a channel that share a scale in i4. */
export const I4_GROUP = 32;

/** Bytes of packed weights (shaders/shared/load_w_*.wgsl): `inner` rows and a bias of `outer4` groups of 4 channels. */
export function weightBytes(dtype: WeightDtype, inner: number, outer4: number): number {
  const rows = Math.ceil(inner / 4) * 4;
  if (FULL && dtype === "i8") return rows * outer4 * 4 + 2 * outer4 * 16;
  if (FULL && dtype === "i4") return (rows / 2 + 2 * Math.ceil(rows / I4_GROUP)) * outer4 * 4 + outer4 * 16;
  return (rows + 1) * outer4 * 4 * BYTES[dtype as Dtype];
}

/** Stands for a binding that a step does not read. */
export const EMPTY: Slot = { buffer: "empty", offset: 0, size: 16 };
