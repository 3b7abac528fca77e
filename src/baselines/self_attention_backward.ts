import { type Channels, padded } from "../layers/params.ts";
import type { Training } from "../layers/training.ts";
import { weightGradientSteps } from "../layers/weight_gradient.ts";
import { planLinear } from "../ops/linear.ts";
import { type Rows, weightBytes } from "../ops/op.ts";
import { planTranspose } from "../ops/transpose.ts";
import { planUnpackLinear } from "../ops/unpack_linear.ts";
import type { Gpu, GpuLimits } from "../runtime/gpu.ts";
import type { Slot, Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import { type AttentionPlanConfig, type BaselineCall, type BaselinePlan, ProjectionPlanner, type Stretch } from "./attention_plan.ts";
import { type AttentionConfig, PROJECTIONS, paramShapes } from "./config.ts";

/** Lengths, and where the tensors lie in their buffers, in bytes. */
export interface BaselineBackwardCall extends Omit<BaselineCall, "out"> {
  readonly gradOut: number;
}

/** The part of a scratch budget that holds partial sums of weight gradients. */
const PARTIAL_SHARE = 1 / 8;

/** What is left of a scratch budget for rows. */
export function rowBudget(scratchBudget: number): number {
  return scratchBudget * (1 - PARTIAL_SHARE);
}

/**
 * The projections' backward pass around any kind of attention. A plan calls `queryGradients` once for every token, with d(queries), then `keyValueGradients` with
 * d(keys and values), and in between `outputGradients` with what attention gave; all by stretches of tokens, each kind its own.
 *
 * Buffers, beside those of the forward pass: gradOut, gradQuery, and those of `projectionTraining` are the caller's; others are scratch.
 */
export abstract class ProjectionBackwardPlanner extends ProjectionPlanner {
  readonly #config: AttentionPlanConfig & Pick<Required<AttentionConfig>, "bias">;
  readonly #gradOut: number;
  readonly #buffers: ReturnType<typeof projectionBuffers>;
  /** What the scratch memory of a role holds. */
  readonly #held = new Map<string, { readonly key: string; readonly slot: Slot }>();
  readonly #written = new Set<string>();

  constructor(
    config: AttentionPlanConfig & Pick<Required<AttentionConfig>, "bias">,
    tuning: Tuning,
    limits: GpuLimits,
    { gradOut, ...call }: BaselineBackwardCall,
  ) {
    super(config, tuning, limits, { ...call, out: 0 });
    this.#config = config;
    this.#gradOut = gradOut;
    this.#buffers = projectionBuffers(config);
  }

  /** The dispatches of the call. */
  abstract plan(): BaselinePlan;

  /** As in the forward pass; not computed again where scratch memory still holds this stretch. */
  override queries(stretch: Stretch): Slot {
    return this.once("queries", stretch, () => super.queries(stretch));
  }

  override keysAndValues(stretch: Stretch): Slot {
    return this.once("keys_values", stretch, () => super.keysAndValues(stretch));
  }

  /** Gradients of what attention gave, `[tokens, H·d]`, in scratch. */
  contextGradients(stretch: Stretch): Slot {
    const length = 4 * this.width4;
    const count = stretch.rows * stretch.tokens;
    const bytes = count * length * 4;
    return this.once("context_gradients", stretch, () => {
      const slot = this.scratchSlot("context_gradients", bytes);
      this.steps.push(
        planLinear({
          x: this.tensor("gradOut", this.#gradOut, stretch),
          w: { buffer: "projectionBack", offset: 0, size: weightBytes("f32", this.dim, this.width4) },
          weightDtype: "f32",
          y: this.#rows(slot, this.width4, count),
          tile: this.tile,
          maxWorkgroups: this.maxWorkgroups,
        }),
      );
      return slot;
    });
  }

  /** Adds to the gradient of out_proj; `mixed` is what attention gave, `[tokens, H·d]`. */
  outputGradients(stretch: Stretch, mixed: Slot): void {
    const count = stretch.rows * stretch.tokens;
    this.#weights(this.#rows(mixed, this.width4, count), this.tensor("gradOut", this.#gradOut, stretch), "projection");
  }

  /** Adds to the gradient of q_proj, and writes the tokens' gradients; `gradients` are those of the queries without their factor, `[tokens, H·d]`. */
  queryGradients(stretch: Stretch, gradients: Slot): void {
    this.#projectionGradients(stretch, gradients, "q", this.width4, false);
  }

  /** Adds to the gradients of k_proj, v_proj and the tokens; `gradients` are those of keys and values side by side, `[tokens, 2·H·d]`. */
  keyValueGradients(stretch: Stretch, gradients: Slot): void {
    this.#projectionGradients(stretch, gradients, "kv", 2 * this.width4, true);
  }

  /** Computes what a role's scratch memory is to hold, unless it does. */
  protected once(role: string, { row, rows, token, tokens }: Stretch, compute: () => Slot): Slot {
    const key = [row, rows, token, tokens].join();
    const held = this.#held.get(role);
    if (held?.key === key) return held.slot;
    const slot = compute();
    this.#held.set(role, { key, slot });
    return slot;
  }

  #projectionGradients(stretch: Stretch, gradients: Slot, name: "q" | "kv", width4: number, accumulate: boolean): void {
    const dy = this.#rows(gradients, width4, stretch.rows * stretch.tokens);
    this.#weights(this.tensor("query", this.call.x, stretch), dy, name);
    this.steps.push(
      planLinear({
        x: dy,
        w: { buffer: `${name}Back`, offset: 0, size: weightBytes("f32", dy.length, Math.ceil(this.dim / 4)) },
        weightDtype: "f32",
        y: this.tensor("gradQuery", 0, stretch),
        accumulate,
        tile: this.tile,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
  }

  #rows({ buffer, offset }: Slot, width4: number, count: number): Rows {
    return { buffer, byteOffset: offset, length: 4 * width4, stride: 4 * width4, first: 0, count };
  }

  #weights(x: Rows, dy: Rows, name: "q" | "kv" | "projection"): void {
    const { gradient, columns } = this.#buffers[name];
    const { steps, partialBytes } = weightGradientSteps({
      x,
      dy,
      gradient,
      columns,
      first: 0,
      bias: this.#config.bias,
      accumulate: this.#written.has(name),
      partial: "weight_partial",
      partialBytes: this.#config.scratchBudget * PARTIAL_SHARE,
      tile: this.tile,
      maxBinding: this.maxBinding,
      maxWorkgroups: this.maxWorkgroups,
    });
    this.#written.add(name);
    if (partialBytes > 0) this.scratchSlot("weight_partial", partialBytes);
    this.steps.push(...steps);
  }
}

/** Packed weights, their gradients and their transposes; `inner` and `columns` are numbers, padding included. */
function projectionBuffers({ dim, heads }: { readonly dim: number; readonly heads: number }) {
  const [model, width] = [padded(dim), heads * padded(dim / heads)];
  const matrix = (name: string, inner: number, columns: number) => ({
    inner,
    columns,
    weight: { buffer: name, offset: 0, size: (inner + 1) * columns * 4 },
    gradient: { buffer: `${name}Gradient`, offset: 0, size: (inner + 1) * columns * 4 },
    back: { buffer: `${name}Back`, offset: 0, size: (columns + 1) * inner * 4 },
  });
  return { q: matrix("q", model, width), kv: matrix("kv", model, 2 * width), projection: matrix("projection", width, model) };
}

/**
 * Transposed weights, the backward pass of a kind of attention, and the gradients in a checkpoint's layout.
 * @param queryScale what `packProjections` has multiplied the queries by
 */
export function projectionTraining(
  config: Required<AttentionConfig>,
  { limits }: Gpu,
  queryScale: number,
  plan: (call: BaselineBackwardCall) => BaselinePlan,
): Training {
  const { dim, heads, bias } = config;
  const maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
  const buffers = projectionBuffers(config);
  const matrices = Object.entries(buffers);
  const transposes = matrices.map(([name, { weight, back, inner, columns }]) =>
    planTranspose({
      w: weight,
      transposed: back,
      inner,
      outer: columns,
      first: 0,
      count: columns,
      scale: name === "q" ? 1 / queryScale : 1,
      maxWorkgroups,
    }),
  );
  const perHead: Channels = { count: heads, width: dim / heads };
  const model: Channels = { count: 1, width: dim };
  const parts = { q_proj: ["q", 0], k_proj: ["kv", 0], v_proj: ["kv", buffers.q.columns], out_proj: ["projection", 0] } as const;
  const unpack = PROJECTIONS.map((name): Step => {
    const [of, firstColumn] = parts[name];
    const { gradient, columns } = buffers[of];
    return planUnpackLinear({
      packed: gradient,
      stride: columns,
      firstColumn,
      inner: of === "projection" ? perHead : model,
      outer: of === "projection" ? model : perHead,
      weight: { buffer: `${name}.weight`, offset: 0, size: dim * dim * 4 },
      bias: bias ? { buffer: `${name}.bias`, offset: 0, size: dim * 4 } : { buffer: "unused", offset: 0, size: 16 },
      hasBias: bias,
      maxWorkgroups,
    });
  });
  const passing = Object.fromEntries(matrices.flatMap(([, { gradient, back }]) => [gradient, back].map(({ buffer, size }) => [buffer, size])));
  return {
    parameters: paramShapes({ dim, heads, bias, scratchBudget: config.scratchBudget }),
    passing,
    plan: ({ batch, queryLength, mask, query, gradOut }) => {
      const { steps, scratch } = plan({ batch, length: queryLength, causal: mask.kind === "causal", x: query, gradOut });
      return { steps: [...transposes, ...steps, ...unpack], scratch };
    },
  };
}
