/** What is compared, and how large each is. */
import { type AttentionCost, type LayerCost, matchFlops } from "homm-webgpu/baselines";
import type { Series } from "../shared/chart.ts";

export type MethodName = "hom" | "pom" | "attention" | "favor" | "rfa" | "maclaurin_exp";

export interface Method {
  readonly name: MethodName;
  /** In a legend, and at the head of a column. */
  readonly label: string;
  readonly line: Series["line"];
  /** Where it may lie on another line, which its gaps show. */
  readonly dashed?: boolean;
}

export const methods: readonly Method[] = [
  { name: "hom", label: "moment layer", line: "a" },
  { name: "pom", label: "polynomial mixer", line: "f", dashed: true },
  { name: "attention", label: "softmax attention", line: "b" },
  { name: "favor", label: "Performer", line: "c" },
  { name: "rfa", label: "RFA", line: "d" },
  { name: "maclaurin_exp", label: "random Maclaurin", line: "e" },
];

export interface Comparison {
  readonly dim: number;
  readonly causal: boolean;
  /** All of the same width, or as large as it takes to need attention's FLOPs. */
  readonly at: "width" | "flops";
}

const HEAD = 64;
const FEATURES = 128;

/** Sizes of a method for this many tokens; those at equal FLOPs grow with them. */
export function layerFor(name: MethodName, { dim, causal, at }: Comparison, tokens: number): LayerCost {
  const attention: AttentionCost = { layer: "attention", dim, heads: Math.max(1, dim / HEAD), bias: false };
  const shape = { length: tokens, causal };
  if (name === "attention") return attention;
  if (name === "hom") {
    if (at === "width") return { layer: "hom", dim, order: 2, orderExpand: 2, bias: false };
    return matchFlops(attention, "hom", { ...shape, fixed: { order: 2, bias: false } }).config;
  }
  if (name === "pom") {
    // As many moments at equal width as the moment layer: order times expansion.
    if (at === "width") return { layer: "pom", dim, degree: 2, expand: 4 };
    return matchFlops(attention, "pom", { ...shape, fixed: { degree: 2 } }).config;
  }
  if (at === "width") return { ...attention, layer: "linear_attention", featureMap: name, features: FEATURES };
  return matchFlops(attention, "linear_attention", { ...shape, fixed: { featureMap: name, bias: false } }).config;
}

/** The size that tells layers of one kind apart. */
export function sizeOf(layer: LayerCost): string {
  if (layer.layer === "hom") return `e ${layer.orderExpand}`;
  if (layer.layer === "pom") return `e ${layer.expand}`;
  if (layer.layer === "linear_attention") return `R ${layer.features}`;
  return `${layer.heads} ${layer.heads === 1 ? "head" : "heads"}`;
}
