import { checkInteger, rangeError, raw, typeError } from "../checks.ts";
import { planShiftState } from "../ops/shift_state.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { Program } from "../runtime/program.ts";
import { padded } from "./params.ts";
import { momentLayout } from "./planner.ts";
import { pomMomentShape, turns } from "./pom_config.ts";
import { MomentState, readSaved, type StateForm } from "./state.ts";

/** What decides whether a state fits a layer. */
export type PomStateConfig = {
  readonly dim: number;
  readonly degree: number;
  readonly expand: number;
  readonly rotary: "none" | "1d" | "2d";
  readonly rotaryBase: number;
  readonly counting: "tokens" | "calls";
};

const POM_STATE: StateForm<PomStateConfig> = {
  magic: "POMSTATE",
  name: "PomState",
  layer: "PomLayer",
  keys: {
    dim: [1, 65_536],
    degree: [1, 16],
    expand: [1, 1024],
    rotary: ["none", "1d", "2d"],
    rotaryBase: [Number.MIN_VALUE, Number.MAX_VALUE],
    counting: ["tokens", "calls"],
  },
  momentDim: ({ dim, expand }) => Number(dim) * Number(expand),
  layout: pomMomentShape,
};

/**
 * The memory of a stream of a {@link PomLayer}: the sum of the polynomial features of the tokens seen, turned by their positions where the layer turns
 * them, and their number. Made by `PomLayer.createState`.
 */
export class PomState extends MomentState<PomStateConfig> {
  /** @internal */
  constructor(gpu: Gpu, config: PomStateConfig, batch: number, window: number | undefined) {
    super(gpu, POM_STATE, config, batch, window, config.rotary === "1d" ? 0 : undefined);
  }

  /**
   * A saved state on this device.
   * @param options.layer refuses bytes that do not fit this layer
   * @throws WeightsError for bytes that are truncated, corrupted, foreign or of another version or shape; nothing is loaded then
   */
  static load(gpu: Gpu, bytes: Uint8Array | ArrayBuffer, options: { readonly layer?: { readonly config: object } } = {}): PomState {
    const where = "PomState.load";
    const { saved, config, batch, window } = readSaved(where, gpu, bytes, POM_STATE, undefined);
    const wanted = options.layer?.config as Record<string, unknown> | undefined;
    // Both ways of counting fit a layer.
    if (wanted) readSaved(where, gpu, bytes, POM_STATE, { ...wanted, counting: config.counting });
    const state = new PomState(gpu, config, batch, window);
    state.restore(where, saved);
    return state;
  }

  /** Where the next token of each batch row stands unless `append` or `step` says otherwise; undefined but for a 1d rotation. */
  get next(): readonly number[] | undefined {
    return this.nextPositions && [...this.nextPositions];
  }

  /**
   * Moves everything seen, and what is to come, by `delta` positions (rows and columns): as if every token had stood there. One rotation of the sums.
   * @throws TypeError for a layer without a rotation
   */
  shift(delta: number | readonly [number, number]): void {
    const where = "PomState.shift";
    this.checkUsable(where);
    const { config, gpu, levels } = this;
    const { rotary, rotaryBase } = config;
    if (rotary === "none") throw typeError(where, "the state", "be of a layer with a rotation", raw('rotary "none"'));
    const by = typeof delta === "number" ? [delta] : delta;
    const planes = rotary === "1d" ? 1 : 2;
    if (!Array.isArray(by) || by.length !== planes) {
      throw rangeError(where, "delta", planes === 1 ? "be one number" : "be [rows, columns]", delta);
    }
    for (const [axis, value] of by.entries()) checkInteger(where, planes === 1 ? "delta" : `delta[${axis}]`, value, -(2 ** 31), 2 ** 31);
    const shape = pomMomentShape(config);
    const { expand4, stride4 } = momentLayout(shape);
    const table = new Float32Array(planes * 2 * expand4 * 4);
    const width = shape.orderExpand * shape.dim;
    for (const [plane, value] of by.entries()) turns(value, width, rotaryBase, table, plane * 2 * padded(width), padded(width));
    const step = planShiftState({
      levels: { buffer: "levels", offset: 0, size: levels.size },
      turns: { buffer: "turns", offset: 0, size: table.byteLength },
      rows: levels.size / (stride4 * 16),
      planes,
      expand4,
      maxWorkgroups: gpu.limits.maxComputeWorkgroupsPerDimension,
    });
    const { result, status } = gpu.guard(where, () => {
      const program = new Program(gpu, [step], new Map());
      const uploaded = gpu.upload("hom.state.turns", table);
      gpu.submit("shift", (pass) => program.record(pass, { levels, turns: uploaded }));
      return { program, uploaded };
    });
    result.program.destroy();
    result.uploaded.destroy();
    this.follow(status);
    if (rotary === "1d") this.moveNext(by[0] ?? 0);
  }

  protected empty(): this {
    return new PomState(this.gpu, this.config, this.batch, this.window) as this;
  }
}
