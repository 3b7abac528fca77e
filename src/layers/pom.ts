import { checkInteger, checkObject, checkOneOf, raw, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { checkGpu, type Tensor } from "../runtime/tensor.ts";
import type { MaskShape, ResolvedMask } from "./mask.ts";
import { type ForwardOptions, type LayerParts, type LayerRecord, MomentLayer } from "./moment_layer.ts";
import { checkStored, encodeWeights } from "./params.ts";
import { axesOf, checkPomConfig, type PomConfig, type PomParams, packPom, pomPlanConfig, withTables } from "./pom_config.ts";
import { countedPositions, givenPositions, type Positions } from "./pom_positions.ts";
import { PomState, type PomStateConfig } from "./pom_state.ts";
import { checkWindow, type MomentState } from "./state.ts";
import { type AppendOptions, MomentStream, type Placed, type PlacedCall, type QueryOptions, type StepOptions } from "./stream.ts";

/** Options of {@link PomLayer.forward} and {@link PomLayer.encode}. */
export interface PomForwardOptions extends ForwardOptions {
  /** Of the queries, for layers with a rotation. Default with one axis: 0, 1, … in each batch row, or packed sequence. */
  readonly positions?: Positions | undefined;
  /** Of the context. Default: `positions` where the context is the query, else 0, 1, … */
  readonly contextPositions?: Positions | undefined;
}

/** Options of {@link PomLayer.append}. */
export interface PomAppendOptions extends AppendOptions {
  /** Default with one axis: on from the last token appended. */
  readonly positions?: Positions | undefined;
}

/** Options of {@link PomLayer.query}. */
export interface PomQueryOptions extends QueryOptions {
  /** Default with one axis: 0, 1, …, as in `forward`. */
  readonly positions?: Positions | undefined;
}

/** Options of {@link PomLayer.step}. */
export interface PomStepOptions extends StepOptions {
  /** Default with one axis: on from the last token appended. */
  readonly positions?: Positions | undefined;
}

/** Options of {@link PomLayer.createState}. */
export interface PomStateOptions {
  /** Independent streams; default 1. */
  readonly batch?: number;
  /** Remember the last `window` tokens only; default all. Not for layers with a rotation. */
  readonly window?: number | undefined;
  /**
   * `"tokens"`: the mean of all tokens seen. `"calls"`: every `append` adds the mean of its tokens and counts as one, as the original's state does, so that the result
   * depends on how a stream is cut. Default `"tokens"`.
   */
  readonly counting?: "tokens" | "calls";
}

/**
 * The polynomial mixer: y = ag_proj(s ⊙ h), h the mean over context tokens of Σ_j coeff_j a^j with a = min(6, max(-0.1, leaky_relu(x W_poᵀ))), s the hard sigmoid of
 * x W_seᵀ + b, one gate a channel or a head. With a rotation, h's terms and s are turned by their tokens' positions. Linear in the number of tokens. Where a query may
 * see nothing, h is 0 (the formula has 0 / 0 there).
 *
 * This is the layer of `homm-webgpu/inference`, without the code of the backward pass. That of `homm-webgpu/pom` adds `forwardForTraining`.
 *
 * @example
 * const pom = await PomLayer.create(gpu, { dim: 64, degree: 2, expand: 2 }, params);
 * const y = pom.forward(Tensor.from(gpu, data, [1, 100, 64]), { mask: "causal" });
 * console.log(await y.read());
 */
export class PomLayer extends MomentLayer<PomForwardOptions> {
  readonly config: Readonly<Required<PomConfig>>;
  /** M = e·D. */
  readonly momentDim: number;
  /** @internal */
  readonly stream: MomentStream;

  /** @internal */
  protected constructor(gpu: Gpu, config: Required<PomConfig>, parts: LayerParts) {
    super(gpu, parts);
    this.config = Object.freeze(config);
    this.momentDim = config.expand * config.dim;
    const { dtype, plan, buffers } = parts;
    const check = (where: string, state: MomentState) => {
      if (!(state instanceof PomState)) throw typeError(where, "state", "be a PomState", state, "make one with createState()");
      state.checkFits(where, gpu, stateConfig(config, state.config.counting));
    };
    const place = (where: string, call: PlacedCall) => this.#place(where, call);
    this.stream = new MomentStream(gpu, { dtype, plan, buffers, check, optionKeys: ["positions"], place });
  }

  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static create(gpu: Gpu, config: PomConfig, params: PomParams): Promise<PomLayer> {
    return PomLayer.make((...parts) => new PomLayer(...parts), gpu, config, params);
  }

  /** @internal */
  protected static async make<Layer extends PomLayer>(
    create: (gpu: Gpu, config: Required<PomConfig>, parts: LayerParts) => Layer,
    gpu: Gpu,
    config: PomConfig,
    params: PomParams,
  ): Promise<Layer> {
    const where = "PomLayer.create";
    checkGpu(where, gpu);
    const full = withTables(where, checkPomConfig(where, config, gpu), params);
    const { packed, constants } = packPom(where, full, params);
    gpu.checkUsable(where);
    const { dtype, weightDtype } = full;
    const stored = Object.fromEntries(
      Object.entries(packed).map(([name, { data, outer }]) => [name, encodeWeights(where, data, outer, weightDtype)]),
    );
    checkStored(where, gpu, { ...stored, constants });
    const { result: buffers, status } = gpu.guard(where, () =>
      Object.fromEntries(Object.entries({ ...stored, constants }).map(([name, data]) => [name, gpu.upload(`hom.pom.${name}`, data)])),
    );
    const optionKeys = ["positions", "contextPositions"];
    const layer = create(gpu, full, { name: "PomLayer", dtype, plan: pomPlanConfig(full), epsilon: 0, optionKeys, buffers, status });
    return layer.open(layer.stream.prepare());
  }

  /** An empty memory of a stream of tokens, for `append`, `query` and `step`. */
  createState(options: PomStateOptions = {}): PomState {
    const where = "PomLayer.createState";
    checkObject(where, "options", options, ["batch", "window", "counting"]);
    const batch = checkInteger(where, "batch", options.batch ?? 1, 1, 65_535);
    const window = checkWindow(where, options.window);
    const counting = checkOneOf(where, "counting", options.counting ?? "tokens", ["tokens", "calls"]);
    if (window !== undefined && (this.config.rotary !== "none" || counting === "calls")) {
      throw typeError(where, "window", "be absent with a rotation, and where calls are counted", raw(`${window}`));
    }
    this.checkUsable(where);
    return new PomState(this.gpu, stateConfig(this.config, counting), batch, window);
  }

  /** Adds context tokens `[B, n, D]` to the state: its sums grow by their features, its counts by their number. */
  append(state: PomState, context: Tensor, options: PomAppendOptions = {}): void {
    const where = "PomLayer.append";
    this.checkUsable(where);
    this.stream.append(where, state, context, options);
  }

  /** What query tokens `[B, T, D]` read from the state, `[B, T, D]`; the state stays as it is. A row that has seen nothing reads zeros. */
  query(state: PomState, query: Tensor, options: PomQueryOptions = {}): Tensor {
    const where = "PomLayer.query";
    this.checkUsable(where);
    return this.stream.query(where, state, query, options);
  }

  /** Append and query of the same tokens `[B, n, D]`, causal inside the chunk: autoregressive decoding, at a cost that does not depend on the past. */
  step(state: PomState, tokens: Tensor, options: PomStepOptions = {}): Tensor {
    const where = "PomLayer.step";
    this.checkUsable(where);
    return this.stream.step(where, state, tokens, options);
  }

  /** Frees the weights. Results already returned stay valid. */
  override destroy(): void {
    super.destroy();
    this.stream.destroy();
  }

  /** @internal */
  protected checkOptions(
    where: string,
    { positions, contextPositions }: PomForwardOptions,
    { shape, resolved, self }: { readonly shape: MaskShape; readonly resolved: ResolvedMask; readonly self: boolean },
  ): Pick<LayerRecord, "uploads"> {
    const { batch, queryLength, contextLength } = shape;
    const table = { axes: axesOf(this.config) };
    if (table.axes.length === 0) {
      refusePositions(where, { positions, contextPositions });
      return {};
    }
    const cuSeqlens = resolved.plan.kind === "packed" ? resolved.plan.cuSeqlens : undefined;
    const starts = new Array<number>(cuSeqlens ? cuSeqlens.length - 1 : batch).fill(0);
    const counted = (argument: string, length: number) => countedPositions(where, argument, table, starts, length, cuSeqlens);
    const query = positions ? givenPositions(where, "positions", table, positions, batch, queryLength) : counted("positions", queryLength);
    let context = query;
    if (contextPositions) context = givenPositions(where, "contextPositions", table, contextPositions, batch, contextLength);
    else if (!self) context = counted("contextPositions", contextLength);
    return { uploads: { query_positions: query, context_positions: context } };
  }

  #place(where: string, { kind, state, length, lengths, cuSeqlens, options }: PlacedCall): Placed {
    const { positions } = options as { readonly positions?: Positions | undefined };
    const table = { axes: axesOf(this.config) };
    if (table.axes.length === 0) {
      refusePositions(where, { positions });
      return { uploads: {} };
    }
    const { batch } = state;
    const next = state.nextPositions ?? [];
    const starts = kind === "query" ? new Array<number>(batch).fill(0) : [...next];
    const rows = positions
      ? givenPositions(where, "positions", table, positions, cuSeqlens ? 1 : batch, length)
      : countedPositions(where, "positions", table, starts, length, cuSeqlens);
    if (kind === "query") return { uploads: { query_positions: rows } };
    const uploads = kind === "step" ? { query_positions: rows, context_positions: rows } : { context_positions: rows };
    if (table.axes.length !== 1) return { uploads };
    const after = next.map((start, b) => {
      const first = cuSeqlens ? (cuSeqlens[b] ?? 0) : b * length;
      const count = cuSeqlens ? (cuSeqlens[b + 1] ?? 0) - first : (lengths?.[b] ?? length);
      return count === 0 ? start : (rows[first + count - 1] ?? 0) + 1;
    });
    return { uploads, next: after };
  }
}

function refusePositions(where: string, given: Readonly<Record<string, Positions | undefined>>): void {
  for (const [name, value] of Object.entries(given)) {
    if (value !== undefined) throw typeError(where, name, 'be absent for a layer without a rotation (rotary "none")', value);
  }
}

function stateConfig({ dim, degree, expand, rotary, rotaryBase }: Required<PomConfig>, counting: PomStateConfig["counting"]): PomStateConfig {
  return { dim, degree, expand, rotary, rotaryBase, counting };
}
