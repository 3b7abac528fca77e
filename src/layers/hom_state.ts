import { FULL, leftOut } from "../checks.ts";
import { ACTIVATIONS, type Activation } from "../ops/types.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { MomentState, readSaved, type StateForm } from "./state.ts";

/** What decides whether a state fits a layer. */
export type HomStateConfig = {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly activation: Activation;
  /** Of a layer with decayed moments. */
  readonly means?: "decayed";
};

/** @internal */
export const HOM_STATE: StateForm<HomStateConfig> = {
  magic: "HOMSTATE",
  name: "HomState",
  layer: "HomLayer",
  keys: { dim: [1, 65_536], order: [1, 8], orderExpand: [1, 1024], activation: ACTIVATIONS },
  momentDim: ({ dim, order, orderExpand }) => Number(dim) * Number(order) * Number(orderExpand),
  layout: (config) => config,
};

/** Sums that fade: whole ones of another kind, which cannot be added to one another. */
const DECAYED_STATE: StateForm<HomStateConfig> = { ...HOM_STATE, magic: "HOMDECAY", keys: { ...HOM_STATE.keys, means: ["decayed"] }, linear: false };

const formOf = (config: HomStateConfig) => (config.means === undefined ? HOM_STATE : DECAYED_STATE);

/** The memory of a stream of a {@link HomLayer}. Made by `HomLayer.createState`. */
export class HomState extends MomentState<HomStateConfig> {
  /** @internal */
  constructor(gpu: Gpu, config: HomStateConfig, batch: number, window: number | undefined) {
    super(gpu, formOf(config), config, batch, window);
  }

  /**
   * A saved state on this device.
   * @param options.layer refuses bytes that do not fit this layer
   * @throws WeightsError for bytes that are truncated, corrupted, foreign or of another version or shape; nothing is loaded then
   */
  static load(gpu: Gpu, bytes: Uint8Array | ArrayBuffer, options: { readonly layer?: { readonly config: HomStateConfig } } = {}): HomState {
    const where = "HomState.load";
    if (!FULL) throw leftOut(where);
    const first = bytes instanceof ArrayBuffer ? new Uint8Array(bytes) : bytes;
    // Its first bytes tell the kinds apart: HOMSTATE, HOMDECAY.
    const form = first instanceof Uint8Array && first[3] === "D".charCodeAt(0) ? DECAYED_STATE : HOM_STATE;
    const { saved, config, batch, window } = readSaved(where, gpu, bytes, form, options.layer?.config);
    const state = new HomState(gpu, config, batch, window);
    state.restore(where, saved);
    return state;
  }

  protected empty(): this {
    return new HomState(this.gpu, this.config, this.batch, this.window) as this;
  }
}
