import { activationGradient } from "../../src/reference/activation_gradients.ts";
import { homReference } from "../../src/reference/hom.ts";
import type { HomBackwardArguments, HomGradients } from "../../src/reference/hom_backward.ts";
import type { HomParams, HomShape } from "../../src/reference/types.ts";
import type { Golden, HomGolden } from "./golden.ts";

/** A golden case with gradients: the mixer, what its output's gradient is, and what the gradients of the case then are. */
export interface HomGoldenGradients {
  readonly shape: HomShape;
  readonly params: HomParams & Readonly<Record<string, Float32Array>>;
  /** [B, T, D] */
  readonly gradOutput: Float64Array;
  /** The golden gradients by name: query, context, and the parameters. */
  readonly expected: Readonly<Record<string, Float32Array>>;
  /** Gradients of the mixer by the names of `expected`; a block's query has the residual's gradient as well. */
  named(gradients: {
    readonly query: ArrayLike<number>;
    readonly context?: ArrayLike<number> | undefined;
    readonly params: HomGradients["params"] | Readonly<Record<string, ArrayLike<number>>>;
  }): Record<string, ArrayLike<number>>;
}

/** Of a case of the families hom and hom_layer; the loss is Σ out.y · in.G. */
export function homGoldenGradients(golden: Golden, { shape, params, args }: HomGolden): HomGoldenGradients {
  const prefix = "hom.ho_proj.weight" in params ? "hom." : "";
  const { ffwExpand, ...layer } = shape;
  const own = Object.fromEntries(
    Object.entries(params).flatMap(([key, values]) => (key.includes("_proj.") ? [[key.slice(prefix.length), values]] : [])),
  );
  const mixer = own as HomGoldenGradients["params"];
  const G = Float64Array.from(golden.tensor("in.G").data);
  const gradOutput = prefix === "" ? G : throughFeedForward(shape.dim, ffwExpand, params, mixed(layer, mixer, args), G);
  const expected: Record<string, Float32Array> = {};
  for (const key of Object.keys(own)) expected[key] = golden.tensor(`grad.${prefix}${key}`).data as Float32Array;
  expected["query"] = golden.tensor("grad.in.xq").data as Float32Array;
  if (args.context) expected["context"] = golden.tensor("grad.in.xc").data as Float32Array;
  return {
    shape: layer,
    params: mixer,
    gradOutput,
    expected,
    named: ({ query, context, params: grads }) => ({
      ...grads,
      query: prefix === "" ? query : Float64Array.from(query, (value, i) => value + gradOutput[i]!),
      ...(context && { context }),
    }),
  };
}

/** xq + hom(xq, xc) */
function mixed(layer: HomShape, params: HomParams, args: Omit<HomBackwardArguments, "gradOutput">): Float64Array {
  return homReference(layer, params, args).map((value, i) => value + args.query[i]!);
}

/** y = x + W₂·gelu(W₁·x + b₁) + b₂: dx for dy = G. */
function throughFeedForward(
  dim: number,
  ffwExpand: number,
  params: Readonly<Record<string, ArrayLike<number>>>,
  x: Float64Array,
  G: Float64Array,
): Float64Array {
  const [up, bias, down] = ["ffw.1.weight", "ffw.1.bias", "ffw.3.weight"].map((key) => params[key]!) as [
    ArrayLike<number>,
    ArrayLike<number>,
    ArrayLike<number>,
  ];
  const inner = ffwExpand * dim;
  const slope = activationGradient("gelu");
  const dx = Float64Array.from(G);
  for (let row = 0; row < x.length; row += dim) {
    for (let j = 0; j < inner; j++) {
      let u = bias[j]!;
      let dh = 0;
      for (let i = 0; i < dim; i++) {
        u += up[j * dim + i]! * x[row + i]!;
        dh += down[i * inner + j]! * G[row + i]!;
      }
      for (let i = 0; i < dim; i++) dx[row + i]! += dh * slope(u) * up[j * dim + i]!;
    }
  }
  return dx;
}
