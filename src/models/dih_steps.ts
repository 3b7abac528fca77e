import type { HomConfig } from "../layers/hom_config.ts";
import { planHom } from "../layers/hom_plan.ts";
import { homTraining } from "../layers/hom_training.ts";
import { padded } from "../layers/params.ts";
import { bytesOf, type FeedForward, view } from "../layers/training_steps.ts";
import { planAddRows, type RowsOf } from "../ops/add_rows.ts";
import { planAddRowsBackward } from "../ops/add_rows_backward.ts";
import { planEmbedBackward, rowGroupWords } from "../ops/embed_backward.ts";
import { planModulate } from "../ops/modulate.ts";
import { planModulateBackward } from "../ops/modulate_backward.ts";
import type { Rows } from "../ops/op.ts";
import { planPatchify } from "../ops/patchify.ts";
import { planSumRows } from "../ops/sum_rows.ts";
import { planUnpatchify } from "../ops/unpatchify.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { Slot } from "../runtime/kernel.ts";
import type { Shape } from "../runtime/tensor.ts";
import { type DihConfig, TOKEN_LIMIT } from "./dih.ts";
import { type DenseLayer, ModelSteps } from "./model_training.ts";

/** What decides the dispatches besides a call. */
export interface PlannedDih {
  readonly config: DihConfig;
  /** Of every layer's mixer. */
  readonly hom: Readonly<Required<HomConfig>>;
  readonly gpu: Pick<Gpu, "tuning" | "limits">;
}

/** Images of `side` patches a side, and where they and their gradients lie in their buffers, in bytes. */
export interface DihCall {
  readonly batch: number;
  readonly side: number;
  readonly image: number;
  readonly gradOut: number;
}

/** Where modulations or gates lie: rows of `parts`·D in a buffer, one a batch row or a token. */
interface Conditions {
  readonly buffer: string;
  readonly parts: number;
}

/**
 * Collects the dispatches of the diffusion model's gradients: the forward pass again, keeping the input and the outputs of each part of each layer, and the way back.
 *
 * Buffers that are the caller's, beside weights: image, gradOut, features and classes `[B, D]`, groups (of the batch rows by class), position and cond_position (grids of the
 * call's size), register_rows, and resize `[n, side²]` where the checkpoint's grids have another size. The image's gradient is gradImage.
 */
export class DihSteps extends ModelSteps {
  readonly #planned: PlannedDih;
  readonly #call: DihCall;
  readonly #perToken: boolean;
  readonly #registers: number;
  /** Patches of an image, and its tokens. */
  readonly #n: number;
  readonly #tokens: number;
  readonly #rows: number;

  constructor(planned: PlannedDih, call: DihCall) {
    const { config, hom, gpu } = planned;
    super({ ...gpu, scratchBudget: hom.scratchBudget, dim: config.dim });
    this.#planned = planned;
    this.#call = call;
    this.#perToken = config.registers !== undefined;
    this.#registers = config.registers ?? 0;
    this.#n = call.side ** 2;
    this.#tokens = this.#registers + this.#n;
    this.#rows = call.batch * this.#tokens;
    this.#forward();
    this.#backward();
  }

  #forward(): void {
    const { dim, layers } = this.#planned.config;
    const { batch } = this.#call;
    const c = this.#rowsIn("c", batch, dim);
    const hidden = this.#rowsIn("time_hidden", batch, 4 * dim);
    this.#dense("time_emb.0", rowsOf("features", dim, batch), hidden, { activation: "silu" });
    this.#dense("time_emb.2", hidden, c, { residual: rowsOf("classes", dim, batch) });
    this.#addConditions("silu");

    const inner = this.#inner;
    const patches = this.#rowsIn("patches", batch * this.#n, inner);
    this.#patchify("image", this.#call.image, "patches", false);
    const embedded = this.#rowsIn("u", this.#rows, dim);
    this.#dense("in_conv", patches, { ...embedded, count: batch * this.#n });
    this.#rowsIn("x0", this.#rows, dim);
    this.#addRows({
      a: { slot: slotOf("position", this.#n * dim), batch: 0, token: dim },
      b: { slot: slotOf("u", batch * this.#n * dim), batch: this.#n * dim, token: dim },
      y: this.#tokensOf("x0", this.#registers),
      tokens: this.#n,
    });
    if (this.#perToken) {
      const a = { slot: slotOf("register_rows", this.#registers * dim), batch: 0, token: dim };
      this.#addRows({ a, y: this.#tokensOf("x0"), tokens: this.#registers });
    }
    for (let i = 0; i < layers; i++) {
      this.#mixerInput(i);
      this.#rowsIn(`mixed${i}`, this.#rows, dim);
      const { hom, gpu } = this.#planned;
      const plan = planHom(hom, gpu.tuning, gpu.limits, { ...this.#homCall, out: 0 });
      this.add(plan, { query: "u", context: "u", out: `mixed${i}`, ...this.#homWeights(i) });
      this.#feedForwardInput(i);
      this.#rowsIn(`fed${i}`, this.#rows, dim);
      this.feedForward(this.#feedForwardOf(i), { buffer: `fed${i}`, width: dim }, undefined, this.#rows);
      this.#rowsIn(`x${i + 1}`, this.#rows, dim);
      this.#addGated("mid", `fed${i}`, 1, `x${i + 1}`, this.#limit);
    }
  }

  #backward(): void {
    const { dim, layers, channels, patchSize } = this.#planned.config;
    const { batch, side } = this.#call;
    this.#output();
    for (let i = layers - 1; i >= 0; i--) {
      // Modulations, gates and what lies between the two parts, as they were.
      this.#mixerInput(i);
      this.#feedForwardInput(i);
      this.#gatedBackward("mid", `fed${i}`, 1, this.#limit);
      this.#feedForwardBackward(i);
      this.#modulateBackward("mid", MODULATIONS, 2, "du");
      this.#gatedBackward(undefined, `mixed${i}`, 0, undefined);
      this.#modulate(`x${i}`, MODULATIONS, 0);
      this.#homBackward(i);
      this.#modulateBackward(`x${i}`, MODULATIONS, 0, "du");
      this.#conditionsBackward(`layers.${i}.cond_mlp.1`, "dmodulations", 4, true);
      this.#conditionsBackward(`layers.${i}.gate_mlp.1`, "dgates", 2, true);
    }

    const dx: Rows = { ...rowsOf("dx", dim, batch * this.#n), first: this.#registers, span: this.#n, pitch: this.#tokens };
    const shape = [dim, channels, patchSize, patchSize];
    this.denseGradient(this.#layer("in_conv"), rowsOf("patches", this.#inner, batch * this.#n), dx, { shape });
    this.#denseBackward("in_conv", dx, rowsOf("dpatches", this.#inner, batch * this.#n));
    const { buffer } = this.#gradient("gradImage", [batch, channels, side * patchSize, side * patchSize]);
    this.steps.push(
      planUnpatchify({
        ...this.#images,
        rows: slotOf("dpatches", batch * this.#n * this.#inner),
        image: { buffer, byteOffset: 0 },
        channelsLast: false,
        maxWorkgroups: this.maxWorkgroups,
      }),
    );
    this.#conditionSumsBackward();
    if (!this.#perToken) return;
    const registers = this.#gradient("registers", [1, this.#registers, dim]);
    this.#sumRows("dx", { rowStep: this.#tokens * dim, count: batch, width: this.#registers * dim }, registers);
    this.#gridBackward("pos_emb", "dx", this.#registers, 0);
    this.#gridBackward("cond_pos_emb", "dconditions", 0, this.#registers);
  }

  /** From the gradient of the image to that of the last layer's output. */
  #output(): void {
    const { dim, layers } = this.#planned.config;
    const { batch } = this.#call;
    const patches = this.#rowsIn("dpatches", batch * this.#n, this.#inner);
    this.#patchify("gradOut", this.#call.gradOut, "dpatches", true);
    this.#dense("out_mod.1", this.#conditionRows("conditions", 1), this.#conditionsIn(LAST));
    this.#modulate(`x${layers}`, LAST, 0);
    const read: Rows = { ...rowsOf("u", dim, batch * this.#n), first: this.#registers, span: this.#n, pitch: this.#tokens };
    this.denseGradient(this.#layer("out_proj"), read, patches);
    const du = this.#rowsIn("du", this.#rows, dim);
    this.#denseBackward("out_proj", patches, { ...du, count: batch * this.#n });
    for (const name of ["dx", "db"]) this.#rowsIn(name, this.#rows, dim);
    this.#rowsIn("dmodulations", this.#rows, 4 * dim);
    this.#rowsIn("dgates", this.#rows, 2 * dim);
    this.#modulateBackward(`x${layers}`, LAST, 0, "du", this.#registers);
    this.#rowsIn("dconditions", this.#conditionCount, dim);
    this.#conditionsBackward("out_mod.1", "dmodulations", 2, false);
  }

  /** From the gradient of silu(c), or of silu(c + positions), to those of classes and times. */
  #conditionSumsBackward(): void {
    const { dim, classes } = this.#planned.config;
    const { batch } = this.#call;
    const [sums, gradients] = [this.#conditionRows("conditions", 1), this.#conditionRows("dconditions", 1)];
    this.#addConditions("identity");
    this.activateBackward(sums, gradients, "silu");
    if (this.#perToken) {
      this.#rowsIn("dc", batch, dim);
      const places = { outer: batch, outerStep: this.#tokens * dim, rowStep: dim, count: this.#tokens, width: dim };
      this.#sumRows("dconditions", places, slotOf("dc", batch * dim));
    }
    const dc = rowsOf(this.#perToken ? "dc" : "dconditions", dim, batch);
    const { steps, partialBytes } = planEmbedBackward({
      x: dc,
      table: { buffer: "groups", offset: 0, size: rowGroupWords(batch, classes + 1) * 4 },
      gradient: this.#gradient("classes_emb.weight", [classes + 1, dim]),
      keys: classes + 1,
      partial: "group_blocks",
      accumulate: false,
      maxWorkgroups: this.maxWorkgroups,
    });
    this.add({ steps, scratch: new Map([["group_blocks", partialBytes]]) });
    const features = rowsOf("features", dim, batch);
    const [hidden, back] = [rowsOf("time_hidden", 4 * dim, batch), this.#rowsIn("dtime_hidden", batch, 4 * dim)];
    this.#dense("time_emb.0", features, hidden);
    this.#denseBackward("time_emb.2", dc, back);
    this.activateBackward(hidden, back, "silu");
    this.denseGradient(this.#layer("time_emb.2"), hidden, dc);
    this.denseGradient(this.#layer("time_emb.0"), features, back);
  }

  /** The gradient of a grid of positions, of which the first `kept` are not resized, from those of the batch rows' tokens from `first` on. */
  #gridBackward(name: string, from: string, first: number, kept: number): void {
    const { dim, imageSize, patchSize } = this.#planned.config;
    const { batch, side } = this.#call;
    const count = kept + this.#n;
    const own = (imageSize / patchSize) ** 2;
    const resized = side !== imageSize / patchSize;
    const gradient = this.#gradient(name, [1, kept + own, dim]);
    const sum = resized ? this.keep("grid_gradient", count * dim) : gradient;
    this.#sumRows(from, { at: first * dim, rowStep: this.#tokens * dim, count: batch, width: count * dim }, sum);
    if (!resized) return;
    const resize = view({ buffer: "resize", width: own }, 0, this.#n);
    const packed = this.keep("packed_dense", padded(own) * dim);
    this.weightGradient(resize, view({ buffer: "grid_gradient", width: dim }, kept, this.#n), { gradient: packed, columns: dim }, false, false);
    const copy = (slot: Slot, to: number, tokens: number) =>
      this.#addRows({ a: { slot, batch: 0, token: dim }, y: { slot: gradient, at: to * dim, batch: 0, token: dim }, tokens, batch: 1 });
    if (kept > 0) copy(sum, 0, kept);
    copy(packed, kept, own);
  }

  /** The conditions' sums of layer i's modulations and gates, and `u`, what its mixer sees. */
  #mixerInput(i: number): void {
    const conditions = this.#conditionRows("conditions", 1);
    this.#dense(`layers.${i}.cond_mlp.1`, conditions, this.#conditionsIn(MODULATIONS));
    this.#dense(`layers.${i}.gate_mlp.1`, conditions, this.#conditionsIn(GATES));
    this.#modulate(`x${i}`, MODULATIONS, 0);
  }

  /** `mid`, what layer i's feed-forward part adds to, and `u`, what it sees. */
  #feedForwardInput(i: number): void {
    this.#rowsIn("mid", this.#rows, this.#planned.config.dim);
    this.#addGated(`x${i}`, `mixed${i}`, 0, "mid", undefined);
    this.#modulate("mid", MODULATIONS, 2);
  }

  #feedForwardOf(i: number): FeedForward {
    const up = this.matrix(this.#layer(`layers.${i}.ffw.0`), "packed_up");
    const down = this.matrix(this.#layer(`layers.${i}.ffw.2`), "packed_down");
    return { up, down, x: { buffer: "u", width: this.#planned.config.dim } };
  }

  #feedForwardBackward(i: number): void {
    const { dim } = this.#planned.config;
    const part = this.#feedForwardOf(i);
    this.feedForwardBackward(part, { buffer: "db", width: dim }, { buffer: "du", width: dim }, { rows: this.#rows, accumulate: false });
    this.unpack(this.#layer(`layers.${i}.ffw.0`), part.up.gradient);
    this.unpack(this.#layer(`layers.${i}.ffw.2`), part.down.gradient);
  }

  #homBackward(i: number): void {
    const { hom, gpu } = this.#planned;
    const { parameters, passing, plan } = homTraining(hom, gpu);
    for (const [name, bytes] of Object.entries(passing)) this.keep(name, bytes / 4);
    const gradients: Record<string, string> = {};
    for (const [key, shape] of Object.entries(parameters)) gradients[key] = this.#gradient(`layers.${i}.hom.${key}`, shape).buffer;
    const planned = plan({ ...this.#homCall, gradOut: 0, gradQuery: 0 });
    this.add(planned, { query: "u", context: "u", gradOut: "db", gradQuery: "du", ...this.#homWeights(i), ...gradients });
  }

  get #homCall() {
    const { batch } = this.#call;
    return { batch, queryLength: this.#tokens, contextLength: this.#tokens, query: 0, context: 0, mask: { kind: "none" } } as const;
  }

  #homWeights(i: number) {
    return { projections: `layers.${i}.hom.projections`, ag: `layers.${i}.hom.ag` };
  }

  // ---- dense layers ----

  #dense(name: string, x: Rows, y: Rows, options: Parameters<ModelSteps["linear"]>[3] = {}): void {
    this.linear(x, this.#matrix(name).weights, y, options);
  }

  /** The gradient of a dense layer's input from that of its output. */
  #denseBackward(name: string, dy: Rows, dx: Rows, accumulate = false): void {
    this.linear(dy, this.transposed("transposed", this.#matrix(name)), dx, { accumulate });
  }

  #matrix(name: string) {
    return this.matrix(this.#layer(name), "packed_dense");
  }

  #layer(name: string): DenseLayer {
    const { dim, ffwExpand } = this.#planned.config;
    const sizes: Readonly<Record<string, readonly [number, number]>> = {
      in_conv: [this.#inner, dim],
      out_proj: [dim, this.#inner],
      "out_mod.1": [dim, 2 * dim],
      "time_emb.0": [dim, 4 * dim],
      "time_emb.2": [4 * dim, dim],
      "ffw.0": [dim, ffwExpand * dim],
      "ffw.2": [ffwExpand * dim, dim],
      "cond_mlp.1": [dim, 4 * dim],
      "gate_mlp.1": [dim, 2 * dim],
    };
    const [inner = 0, outer = 0] = sizes[name.replace(/^layers\.\d+\./, "")] ?? [];
    return { name, inner, outer };
  }

  // ---- conditions ----

  get #conditionCount(): number {
    return this.#call.batch * (this.#perToken ? this.#tokens : 1);
  }

  #conditionRows(buffer: string, parts: number): Rows {
    return rowsOf(buffer, parts * this.#planned.config.dim, this.#conditionCount);
  }

  #conditionsIn({ buffer, parts }: Conditions): Rows {
    return this.#rowsIn(buffer, this.#conditionCount, parts * this.#planned.config.dim);
  }

  /** Elements from one batch row and one token to the next. */
  #conditionSteps(parts: number) {
    const width = parts * this.#planned.config.dim;
    return this.#perToken ? { batch: this.#tokens * width, token: width } : { batch: width, token: 0 };
  }

  /** conditions = act(c), or act(c + positions) of every token. */
  #addConditions(activation: "silu" | "identity"): void {
    const { dim } = this.#planned.config;
    const { batch } = this.#call;
    this.#rowsIn("conditions", this.#conditionCount, dim);
    const tokens = this.#perToken ? this.#tokens : 1;
    const a = { slot: slotOf("c", batch * dim), batch: dim, token: 0 };
    const b = this.#perToken ? { slot: slotOf("cond_position", tokens * dim), batch: 0, token: dim } : undefined;
    const y = { slot: slotOf("conditions", batch * tokens * dim), batch: tokens * dim, token: dim };
    this.#addRows({ a, b, y, activation, tokens });
  }

  /** Through a dense layer of the conditions: its gradients, and what it adds to those of the conditions. `from` has a row for every token. */
  #conditionsBackward(name: string, from: string, parts: number, accumulate: boolean): void {
    const { dim } = this.#planned.config;
    const { batch } = this.#call;
    const width = parts * dim;
    let dy = rowsOf(from, width, this.#rows);
    if (!this.#perToken) {
      const places = { outer: batch, outerStep: this.#tokens * width, rowStep: width, count: this.#tokens, width };
      this.#sumRows(from, places, this.keep("condition_gradients", batch * width));
      dy = rowsOf("condition_gradients", width, batch);
    }
    this.denseGradient(this.#layer(name), this.#conditionRows("conditions", 1), dy);
    this.#denseBackward(name, dy, this.#conditionRows("dconditions", 1), accumulate);
  }

  /** u = LN(x) ⊙ (1 + scale) + shift, the scale being part `part` of the modulations. */
  #modulate(x: string, { buffer, parts }: Conditions, part: number): void {
    const { dim } = this.#planned.config;
    const steps = this.#conditionSteps(parts);
    this.steps.push(
      planModulate({
        x: slotOf(x, this.#rows * dim),
        m: slotOf(buffer, this.#conditionCount * parts * dim),
        y: slotOf("u", this.#rows * dim),
        scaleAt: part * dim,
        shiftAt: (part + 1) * dim,
        mBatch: steps.batch,
        mToken: steps.token,
        ...this.#sizes,
      }),
    );
  }

  /** Adds to dx, or with tokens before `first` that have no gradient writes it; dmodulations gets the same parts. */
  #modulateBackward(x: string, { buffer, parts }: Conditions, part: number, dy: string, first?: number): void {
    const { dim } = this.#planned.config;
    const steps = this.#conditionSteps(parts);
    const whole = (name: string) => slotOf(name, this.#rows * dim);
    this.steps.push(
      planModulateBackward({
        x: whole(x),
        m: slotOf(buffer, this.#conditionCount * parts * dim),
        dy: first === undefined ? whole(dy) : slotOf(dy, this.#call.batch * this.#n * dim),
        first: first ?? 0,
        dx: whole("dx"),
        dm: slotOf("dmodulations", this.#rows * parts * dim),
        scaleAt: part * dim,
        mBatch: steps.batch,
        mToken: steps.token,
        dmStep: parts * dim,
        dmScaleAt: part * dim,
        dmShiftAt: (part + 1) * dim,
        accumulate: first === undefined,
        ...this.#sizes,
      }),
    );
  }

  /** y = a + b ⊙ (1 + gates[part]) */
  #addGated(a: string, b: string, part: number, y: string, limit: number | undefined): void {
    const { dim } = this.#planned.config;
    const g = { slot: slotOf("gates", this.#conditionCount * 2 * dim), at: part * dim, ...this.#conditionSteps(2) };
    this.#addRows({ a: this.#tokensOf(a), b: this.#tokensOf(b), g, y: this.#tokensOf(y), limit, tokens: this.#tokens });
  }

  /** db and the gates' gradients from dx, which is that of a afterwards. */
  #gatedBackward(a: string | undefined, b: string, part: number, limit: number | undefined): void {
    const { dim } = this.#planned.config;
    const steps = this.#conditionSteps(2);
    const whole = (name: string) => slotOf(name, this.#rows * dim);
    this.steps.push(
      planAddRowsBackward({
        a: limit === undefined || a === undefined ? undefined : whole(a),
        b: whole(b),
        g: slotOf("gates", this.#conditionCount * 2 * dim),
        gAt: part * dim,
        gBatch: steps.batch,
        gToken: steps.token,
        dy: whole("dx"),
        db: whole("db"),
        dg: slotOf("dgates", this.#rows * 2 * dim),
        dgAt: part * dim,
        dgStep: 2 * dim,
        limit,
        ...this.#sizes,
      }),
    );
  }

  // ---- rows ----

  /** All tokens from token `first` of each batch row on. */
  #tokensOf(buffer: string, first = 0): RowsOf {
    const { dim } = this.#planned.config;
    return { slot: slotOf(buffer, this.#rows * dim), at: first * dim, batch: this.#tokens * dim, token: dim };
  }

  #addRows(
    a: Pick<Parameters<typeof planAddRows>[0], "a" | "b" | "g" | "y" | "activation" | "limit" | "tokens"> & { readonly batch?: number },
  ): void {
    this.steps.push(planAddRows({ ...this.#sizes, ...a }));
  }

  #sumRows(
    from: string,
    places: {
      readonly at?: number;
      readonly outer?: number;
      readonly outerStep?: number;
      readonly rowStep: number;
      readonly count: number;
      readonly width: number;
    },
    y: Slot,
  ): void {
    const { at = 0, outer = 1, outerStep = 0, rowStep, count, width } = places;
    const x = slotOf(from, at + (outer - 1) * outerStep + (count - 1) * rowStep + width);
    const { steps, partialBytes } = planSumRows({
      ...places,
      outer,
      outerStep,
      x,
      y,
      partial: "row_blocks",
      maxWorkgroups: this.maxWorkgroups,
    });
    this.add({ steps, scratch: new Map(partialBytes > 0 ? [["row_blocks", partialBytes]] : []) });
  }

  #patchify(buffer: string, byteOffset: number, rows: string, channelsLast: boolean): void {
    const size = this.#call.batch * this.#n * this.#inner;
    const image = { buffer, byteOffset };
    this.steps.push(planPatchify({ ...this.#images, image, rows: slotOf(rows, size), channelsLast, maxWorkgroups: this.maxWorkgroups }));
  }

  get #images() {
    const { channels, patchSize: patch } = this.#planned.config;
    const { batch, side } = this.#call;
    return { batch, channels, height: side * patch, width: side * patch, patch };
  }

  get #inner(): number {
    const { channels, patchSize } = this.#planned.config;
    return channels * patchSize * patchSize;
  }

  get #sizes() {
    return { batch: this.#call.batch, tokens: this.#tokens, dim: this.#planned.config.dim, maxWorkgroups: this.maxWorkgroups };
  }

  get #limit(): number | undefined {
    return this.#perToken ? TOKEN_LIMIT : undefined;
  }

  /** Rows of a buffer of this call. */
  #rowsIn(buffer: string, count: number, width: number): Rows {
    return view(this.keepRows(buffer, count, width), 0, count);
  }

  /** A gradient by its checkpoint key. */
  #gradient(key: string, shape: Shape): Slot {
    this.gradients[key] = shape;
    return slotOf(
      key,
      shape.reduce((a, b) => a * b, 1),
    );
  }
}

const MODULATIONS: Conditions = { buffer: "modulations", parts: 4 };
const LAST: Conditions = { buffer: "last_modulations", parts: 2 };
const GATES: Conditions = { buffer: "gates", parts: 2 };

const slotOf = (buffer: string, elements: number): Slot => ({ buffer, offset: 0, size: bytesOf(elements) });
const rowsOf = (buffer: string, width: number, count: number): Rows => view({ buffer, width }, 0, count);
