import { checkInteger, checkObject, FULL, leftOut, rangeError, raw, typeError } from "../checks.ts";
import { decayTable } from "../ops/decay_moments.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { checkGpu, type Tensor } from "../runtime/tensor.ts";
import { checkConfig, checkParams, type HomConfig, type HomParams } from "./hom_config.ts";
import { HomState, type HomStateConfig } from "./hom_state.ts";
import { MASK_EPSILON, type MaskShape, type ResolvedMask } from "./mask.ts";
import { type ForwardOptions, type LayerParts, type LayerRecord, MomentLayer } from "./moment_layer.ts";
import { checkStored, encodeWeights, packLinear, padded } from "./params.ts";
import { checkWindow } from "./state.ts";
import { type AppendOptions, MomentStream, type QueryOptions, type StepOptions } from "./stream.ts";

/** Options of {@link HomLayer.forward} and {@link HomLayer.encode}. */
export interface HomForwardOptions extends ForwardOptions {
  /** `[B·T]`, with a causal mask: queries of value 0 see nothing, as padded rows in training do. */
  readonly queryMask?: Uint8Array | undefined;
}

/**
 * The high-order moment layer: y = ag_proj(σ(se_proj(xq)) ⊙ h), h the mean over context tokens of the products
 * m₁ = z₁, m_i = z_i ⊙ m_(i-1), z = act(ho_proj(xc)) cut into k chunks. Linear in the number of tokens; no normalisation, no residual.
 *
 * This is the layer of `homm-webgpu/inference`, without the code of the backward pass. That of `homm-webgpu` adds `forwardForTraining`.
 *
 * @example
 * const hom = await HomLayer.create(gpu, { dim: 64, order: 2, orderExpand: 2 }, params);
 * const y = hom.forward(Tensor.from(gpu, data, [1, 100, 64]), { mask: "causal" });
 * console.log(await y.read());
 */
export class HomLayer extends MomentLayer<HomForwardOptions> {
  readonly config: Readonly<Required<HomConfig>>;
  /** M = k·e·D. */
  readonly momentDim: number;
  /** @internal */
  readonly stream: MomentStream;

  /** @internal */
  protected constructor(gpu: Gpu, config: Required<HomConfig>, parts: LayerParts) {
    super(gpu, parts);
    this.config = Object.freeze(config);
    this.momentDim = config.order * config.orderExpand * config.dim;
    const { dtype, plan, buffers } = parts;
    this.stream = new MomentStream(gpu, { dtype, plan, buffers, check: (where, state) => this.checkState(where, state), optionKeys: [] });
  }

  /**
   * Checks and uploads the parameters and compiles the kernels; the only slow step.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static create(gpu: Gpu, config: HomConfig, params: HomParams): Promise<HomLayer> {
    return HomLayer.make((...parts) => new HomLayer(...parts), gpu, config, params);
  }

  /** @internal */
  protected static async make<Layer extends HomLayer>(
    create: (gpu: Gpu, config: Required<HomConfig>, parts: LayerParts) => Layer,
    gpu: Gpu,
    config: HomConfig,
    params: HomParams,
  ): Promise<Layer> {
    const where = "HomLayer.create";
    checkGpu(where, gpu);
    const full = checkConfig(where, config, gpu);
    const checked = checkParams(where, full, params);
    gpu.checkUsable(where);
    const { dim, order, orderExpand } = full;
    const moment = { count: order, width: orderExpand * dim };
    const model = { count: 1, width: dim };
    const side = (name: string) => ({ weight: checked[`${name}.weight`] ?? [], bias: checked[`${name}.bias`], outer: moment });
    const projections = packLinear([side("ho_proj"), side("se_proj")], model);
    const output = packLinear([{ ...side("ag_proj"), outer: model }], moment);
    const stored = {
      projections: encodeWeights(where, projections, 2 * order * padded(moment.width), full.weightDtype),
      ag: encodeWeights(where, output, padded(dim), full.weightDtype),
    };
    checkStored(where, gpu, stored);
    const { result: buffers, status } = gpu.guard(where, () => ({
      projections: gpu.upload("hom.projections.weights", stored.projections),
      ag: gpu.upload("hom.ag_proj.weights", stored.ag),
      ...(FULL && full.decay && { decay: gpu.upload("hom.decay", decayTable(checked["decay"] ?? [], padded(moment.width) / 4)) }),
    }));
    const { dtype } = full;
    const parts: LayerParts = { name: "HomLayer", dtype, plan: full, epsilon: MASK_EPSILON, optionKeys: ["queryMask"], buffers, status };
    const layer = create(gpu, full, parts);
    return layer.open(layer.stream.prepare());
  }

  /**
   * An empty memory of a stream of tokens, for `append`, `query` and `step`.
   * @param options.batch independent streams; default 1
   * @param options.window remember the last `window` tokens only; default all
   */
  createState(options: { readonly batch?: number; readonly window?: number | undefined } = {}): HomState {
    const where = "HomLayer.createState";
    checkObject(where, "options", options, ["batch", "window"]);
    const batch = checkInteger(where, "batch", options.batch ?? 1, 1, 65_535);
    if (!FULL && options.window !== undefined) throw leftOut(where);
    if (FULL && this.config.decay && options.window !== undefined)
      throw typeError(where, "window", "be left out for decayed moments, which forget by themselves", options.window);
    const window = checkWindow(where, options.window);
    this.checkUsable(where);
    return new HomState(this.gpu, stateConfig(this.config), batch, window);
  }

  /** Adds context tokens `[B, n, D]` to the state: its sums grow by their moments, its counts by their number. */
  append(state: HomState, context: Tensor, options: AppendOptions = {}): void {
    const where = "HomLayer.append";
    this.checkUsable(where);
    this.#checkPlain(where);
    this.stream.append(where, state, context, options);
  }

  /** What query tokens `[B, T, D]` read from the state, `[B, T, D]`; the state stays as it is. A row that has seen nothing reads zeros. */
  query(state: HomState, query: Tensor, options: QueryOptions = {}): Tensor {
    const where = "HomLayer.query";
    this.checkUsable(where);
    this.#checkPlain(where);
    return this.stream.query(where, state, query, options);
  }

  /** Append and query of the same tokens `[B, n, D]`, causal inside the chunk: autoregressive decoding, at a cost that does not depend on the past. */
  step(state: HomState, tokens: Tensor, options: StepOptions = {}): Tensor {
    const where = "HomLayer.step";
    this.checkUsable(where);
    return this.stream.step(where, state, tokens, options);
  }

  /** Whether this is a state of a layer like this one. @internal */
  checkState(where: string, state: unknown): void {
    if (!(state instanceof HomState)) throw typeError(where, "state", "be a HomState", state, "make one with createState()");
    const own = stateConfig(this.config);
    const kind = ({ means }: HomStateConfig) => (means === undefined ? "plain means" : "decayed moments");
    if (FULL && kind(state.config) !== kind(own)) throw rangeError(where, "state", `be one of ${kind(own)}`, raw(kind(state.config)));
    state.checkFits(where, this.gpu, own);
  }

  #checkPlain(where: string): void {
    if (FULL && this.config.decay) throw typeError(where, "layer", "keep plain sums", raw("decayed moments"), "use step()");
  }

  /** Frees the weights. Results already returned stay valid. */
  override destroy(): void {
    super.destroy();
    this.stream.destroy();
  }

  /** @internal */
  protected checkOptions(
    where: string,
    { queryMask }: HomForwardOptions,
    { shape, resolved }: { readonly shape: MaskShape; readonly resolved: ResolvedMask },
  ): Pick<LayerRecord, "uploads" | "queryMask"> {
    if (FULL && this.config.decay && (resolved.key !== "causal" || queryMask)) {
      throw typeError(
        where,
        queryMask ? "queryMask" : "mask",
        queryMask ? "be left out for decayed moments" : 'be "causal" for decayed moments',
        raw("another"),
      );
    }
    if (queryMask === undefined) return {};
    if (!FULL) throw leftOut(where);
    const rows = shape.batch * shape.queryLength;
    if (!(queryMask instanceof Uint8Array)) throw typeError(where, "queryMask", "be a Uint8Array", queryMask);
    if (queryMask.length !== rows) throw rangeError(where, "queryMask", `have ${rows} elements`, queryMask);
    if (resolved.key !== "causal") throw typeError(where, "queryMask", 'come with mask "causal"', raw("another mask"));
    return { queryMask: true, uploads: { table: Uint32Array.from(queryMask) } };
  }
}

function stateConfig({ dim, order, orderExpand, activation, decay }: Required<HomConfig>): HomStateConfig {
  return { dim, order, orderExpand, activation, ...(decay && { means: "decayed" }) };
}
