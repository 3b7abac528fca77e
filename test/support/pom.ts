import type { Gpu, MaskSpec } from "../../src/index.ts";
import { minimumScratch } from "../../src/layers/hom_plan.ts";
import { checkPomConfig, pomPlanConfig } from "../../src/layers/pom_config.ts";
import type { PomConfig, Positions } from "../../src/pom.ts";
import { contextProjection, type PomArguments, type PomShape, pomReference } from "../../src/reference/pom.ts";
import { type PomBackwardArguments, pomBackward } from "../../src/reference/pom_backward.ts";
import { matvec } from "../../src/reference/projection.ts";
import { randomPomParams } from "../reference/inputs.ts";
import { chooser, normals32 } from "./hom.ts";

/** A layer's shape in the words of the layer and of its twin. */
export type PomLayerShape = Pick<PomConfig, "dim" | "degree" | "expand" | "nGroups" | "nSelHeads"> & { readonly rotary: "none" | "1d" | "2d" };

export function twinShape({ rotary, ...shape }: PomLayerShape): PomShape {
  return { ...shape, rotary: rotary === "none" ? undefined : rotary };
}

/** Seeded parameters of a layer as a checkpoint holds them. */
export function pomParams(seed: number, shape: PomLayerShape, bias: boolean): Record<string, Float32Array> {
  const params = randomPomParams(seed, twinShape(shape), bias);
  return Object.fromEntries(Object.entries(params).map(([key, values]) => [key, Float32Array.from(values)]));
}

/** The float64 twin on the layer's own arguments. */
export function pomExpected(
  shape: PomLayerShape,
  params: Readonly<Record<string, Float32Array>>,
  args: Omit<PomArguments, "mask" | "positions" | "contextPositions"> & {
    mask?: MaskSpec | undefined;
    positions?: Positions | undefined;
    contextPositions?: Positions | undefined;
  },
): Float64Array {
  return pomReference(twinShape(shape), params, args as PomArguments);
}

export const POM_FORMS = ["plain", "plain", "heads", "groups", "groups and heads", "1d", "1d heads", "2d", "2d groups"] as const;
export type PomForm = (typeof POM_FORMS)[number];

/** A shape of this form. */
export function drawShape(draw: ReturnType<typeof chooser>, form: PomForm, most = 64): PomLayerShape {
  const rotary = form.startsWith("1d") ? "1d" : form.startsWith("2d") ? "2d" : "none";
  const grouped = form.includes("groups");
  const heads = form.includes("heads");
  const nGroups = grouped ? draw.of([2, 3, 4]) : 1;
  const nSelHeads = heads ? draw.of([4, 8]) : draw.of([0, 1]);
  const unit = heads ? 8 : rotary === "2d" ? 4 : rotary === "1d" ? 2 : 1;
  for (;;) {
    const dim = draw.of([1, 3, 5, 8, 12, 16, 24, 33, 48, 64].filter((size) => size <= most));
    const expand = draw.integer(1, 3);
    if ((dim * expand) % unit !== 0 || dim % nGroups !== 0) continue;
    return { dim, degree: draw.of([1, 2, 2, 3, 4, 5, 8, 16]), expand, nGroups, nSelHeads, rotary };
  }
}

/** Positions of a call that gives them: for every batch row, or for all. */
export function drawPositions(seed: number, shape: PomLayerShape, batch: number, length: number): Uint32Array {
  const draw = chooser(seed);
  const axes = shape.rotary === "2d" ? 2 : 1;
  const most = shape.rotary === "2d" ? 63 : 4095;
  return Uint32Array.from({ length: (draw.chance(0.5) ? batch : 1) * length * axes }, () => draw.integer(0, most));
}

/** Bytes of scratch that a layer of this shape must be given. */
export function leastScratch(shape: PomLayerShape, gpu: Gpu): number {
  return minimumScratch(pomPlanConfig(checkPomConfig("test", shape, gpu)), gpu.tuning);
}

/** All of a layer's gradients by name, in float64, of its own arguments. */
export function pomExpectedGradients(
  shape: PomLayerShape,
  params: Readonly<Record<string, Float32Array>>,
  args: Parameters<typeof pomExpected>[2] & Pick<PomBackwardArguments, "gradOutput">,
): Record<string, Float64Array> {
  const { query, context, params: ofParams } = pomBackward(twinShape(shape), params, args as PomBackwardArguments);
  return { query, ...(context && { context }), ...ofParams };
}

/** Where the slopes of the activation and of the gates jump. */
const JUMPS = { z: [-10, 0, 6], logit: [-3, 3] };
/** What a pre-activation in f32 may be off by. */
const MARGIN = 3e-6;

/**
 * Normal tokens of a layer's query and context, drawn again until f32 and float64 are on the same side of every jump of a slope: one token on the other side would be
 * another gradient, not a less accurate one.
 */
export function smoothTokens(seed: number, shape: PomLayerShape, params: Readonly<Record<string, Float32Array>>, queries: number, tokens?: number) {
  const twin = twinShape(shape);
  const { dim } = shape;
  const width = shape.expand * dim;
  const project = contextProjection("smoothTokens", params, twin, width);
  const gates = params["se_bias"]?.length ?? (params["se_proj.weight"]?.length ?? 0) / dim;
  const selected = Float64Array.from(params["se_proj.weight"] ?? params["qc_proj.weight"]!.subarray(width * dim));
  const bias = Float64Array.from(params["se_bias"] ?? params["se_proj.bias"] ?? new Float32Array(gates));
  const [z, logits] = [new Float64Array(width), new Float64Array(gates)];
  const apart = (values: Float64Array, jumps: readonly number[]) => values.every((value) => jumps.every((jump) => Math.abs(value - jump) > MARGIN));
  const smooth = (rows: Float32Array, through: (row: Float64Array) => boolean) => {
    for (let i = 0; i < rows.length; i += dim) if (!through(Float64Array.from(rows.subarray(i, i + dim)))) return false;
    return true;
  };
  const asContext = (row: Float64Array) => {
    project(row, z);
    return apart(z, JUMPS.z);
  };
  const asQuery = (row: Float64Array) => {
    matvec(selected, bias, row, logits);
    return apart(logits, JUMPS.logit);
  };
  const draw = (count: number, from: number, through: (row: Float64Array) => boolean) => {
    for (let attempt = 0; attempt < 1000; attempt++) {
      const rows = normals32(from + 100_000 * attempt, count * dim);
      if (smooth(rows, through)) return rows;
    }
    throw new Error(`smoothTokens: no ${count} tokens away from the jumps`);
  };
  const query = draw(queries, seed, (row) => asQuery(row) && (tokens !== undefined || asContext(row)));
  return { query, context: tokens === undefined ? undefined : draw(tokens, seed + 1, asContext) };
}
