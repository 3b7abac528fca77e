import type { MaskSpec } from "../../src/index.ts";
import type { PomConfig, Positions } from "../../src/pom.ts";
import { type PomArguments, type PomShape, pomReference } from "../../src/reference/pom.ts";
import { randomPomParams } from "../reference/inputs.ts";

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
