import { planHomBackward, planHomTranspose, transposedWeights } from "../layers/hom_backward_plan.ts";
import { planHom } from "../layers/hom_plan.ts";
import { padded } from "../layers/params.ts";
import { MAX_INNER_STEPS, momentLayout } from "../layers/planner.ts";
import { weightGradientSteps } from "../layers/weight_gradient.ts";
import type { HlmConfig } from "../models/hlm_weights.ts";
import { planActivateBackward } from "../ops/activate_backward.ts";
import { planAdamw, SETTINGS_BYTES } from "../ops/adamw.ts";
import { planCrossEntropy } from "../ops/cross_entropy.ts";
import { decayTable } from "../ops/decay_moments.ts";
import { planEmbed } from "../ops/embed.ts";
import { planEmbedBackward, rowGroupWords } from "../ops/embed_backward.ts";
import { planGradientNorm } from "../ops/gradient_norm.ts";
import { planGradientStatus } from "../ops/gradient_status.ts";
import { planLinear } from "../ops/linear.ts";
import { planMergeGradients } from "../ops/merge_gradients.ts";
import type { Rows } from "../ops/op.ts";
import { planShift } from "../ops/shift.ts";
import { planShiftBackward, shiftBlocks } from "../ops/shift_backward.ts";
import { planSumLoss } from "../ops/sum_loss.ts";
import { planTranspose } from "../ops/transpose.ts";
import { STATUS_BYTES } from "../ops/types.ts";
import type { GpuLimits } from "../runtime/gpu.ts";
import { BIND_ALIGNMENT, type Slot, type Step } from "../runtime/kernel.ts";
import type { Tuning } from "../runtime/tuning.ts";
import type { ArenaLayout, ArenaMatrix } from "./arena.ts";

/** What decides the dispatches besides the lengths of a call. */
export interface PlannedModel {
  readonly config: HlmConfig;
  readonly layout: ArenaLayout;
  readonly tuning: Tuning;
  readonly limits: GpuLimits;
  readonly scratchBudget: number;
}

/** Lengths of a micro-batch. */
export interface StepShape {
  readonly batch: number;
  readonly length: number;
  /** Distinct positions. */
  readonly positions: number;
}

/**
 * Dispatches of a micro-batch. Of the buffers that they name, WEIGHTS and GRADIENTS are arenas, `kept` are the caller's, of these sizes, and the uploads of the
 * micro-batch too (see UPLOADS); the others are scratch, shared by everything that runs on the device.
 */
export interface StepPlan {
  readonly steps: readonly Step[];
  /** Bytes of what lives as long as the step: the input of every part of every layer, and what is passed back through them. */
  readonly kept: ReadonlyMap<string, number>;
  readonly scratch: ReadonlyMap<string, number>;
}

/** Names of the arenas' buffers, which no scratch has. */
export const [WEIGHTS, GRADIENTS, FIRST, SECOND] = ["arena.weights", "arena.gradients", "arena.first", "arena.second"] as const;
/** The caller's buffer of every layer's decay factors, where the model has them. */
export const DECAYS = "decays";

/** Rows of a slab are a multiple of this: their bytes are then one of 256, whatever a row holds. */
const SLAB_ROWS = 64;
/** More would only cost memory. */
const SLAB_BYTES = 8 << 20;

/** Loss and gradients of a micro-batch; the gradients are added to what is there. */
export function planMicroBatch(model: PlannedModel, shape: StepShape): StepPlan {
  const planner = new StepPlanner(model, shape, true);
  planner.forward();
  planner.lossAndGradient();
  planner.backward();
  return planner;
}

/** Loss of a micro-batch. */
export function planEvaluation(model: PlannedModel, shape: StepShape): StepPlan {
  const planner = new StepPlanner(model, shape, false);
  planner.forward();
  planner.loss();
  return planner;
}

/**
 * Clipping and AdamW on all weights at once. Besides the arenas its steps name `decayed`, `settings` and `status`.
 */
export function planUpdate({ layout, limits }: PlannedModel): Omit<StepPlan, "kept"> {
  const maxBinding = limits.maxStorageBufferBindingSize;
  const maxWorkgroups = limits.maxComputeWorkgroupsPerDimension;
  const whole = (buffer: string, size = layout.size): Slot => ({ buffer, offset: 0, size });
  const gradients = whole(GRADIENTS);
  const [settings, status] = [whole("settings", SETTINGS_BYTES), whole("status", STATUS_BYTES)];
  const { steps, partial } = planGradientNorm({ gradients, partial: "norm_blocks", maxBinding, maxWorkgroups });
  const update = planAdamw({
    weights: whole(WEIGHTS),
    gradients,
    first: whole(FIRST),
    second: whole(SECOND),
    decayed: whole("decayed", Math.max(16, Math.ceil(layout.size / 4 / 128) * 4)),
    settings,
    status,
    maxBinding,
    maxWorkgroups,
  });
  return {
    steps: [...steps, planGradientStatus({ partial, settings, status }), ...update],
    scratch: new Map([["norm_blocks", Math.max(16, partial.size)]]),
  };
}

class StepPlanner implements StepPlan {
  readonly steps: Step[] = [];
  readonly kept = new Map<string, number>();
  readonly scratch = new Map<string, number>();
  readonly #model: PlannedModel;
  readonly #shape: StepShape;
  /** Whether the inputs of all layers are needed again. */
  readonly #training: boolean;
  readonly #rows: number;
  readonly #maxBinding: number;
  readonly #maxWorkgroups: number;
  readonly #matrices: ReadonlyMap<string, ArenaMatrix>;

  constructor(model: PlannedModel, shape: StepShape, training: boolean) {
    this.#model = model;
    this.#shape = shape;
    this.#training = training;
    this.#rows = shape.batch * shape.length;
    this.#maxBinding = model.limits.maxStorageBufferBindingSize - BIND_ALIGNMENT;
    this.#maxWorkgroups = model.limits.maxComputeWorkgroupsPerDimension;
    this.#matrices = new Map(model.layout.matrices.map((matrix) => [matrix.name, matrix]));
  }

  /** Logits' input from tokens: what is kept on the way is what the backward pass starts from. */
  forward(): void {
    const { dim, layers } = this.#model.config;
    if (this.#model.config.positions !== false) this.#positions();
    this.#embed();
    const hom = planHom(this.#homConfig, this.#model.tuning, this.#model.limits, { ...this.#homCall, out: 0, residual: 0 });
    this.#needScratch(hom.scratch);
    for (let i = 0; i < layers; i++) {
      const [x, mid] = [this.#input(i), this.#between(i)];
      this.#keep(mid, dim);
      this.#keep(this.#input(i + 1), dim);
      const mixed = this.#shift(i);
      this.steps.push(...rename(hom.steps, { query: mixed, context: mixed, residual: x, out: mid, ...this.#homWeights(i) }));
      this.#feedForward(i);
    }
  }

  #positions(): void {
    const { dim } = this.#model.config;
    const { positions } = this.#shape;
    this.#slabs(positions, 2 * dim, (first, count) => {
      const hidden = this.#slab("hidden", 2 * dim, count);
      this.#linear(view("features", dim, first, count), "pos_emb.0", hidden, { activation: "silu" });
      this.#linear(hidden, "pos_emb.2", view("positions", dim, first, count));
    });
  }

  #embed(): void {
    const { dim } = this.#model.config;
    const { positions } = this.#shape;
    // Zeros, as every new buffer has them, where nothing embeds positions.
    this.kept.set("positions", bytesOf(positions * dim));
    this.#keep("x0", dim);
    this.#slabs(this.#rows, dim, (first, count) => {
      const step = planEmbed({
        ids: { buffer: "ids", offset: first * 4, size: bytesOf(count) },
        positionRows: { buffer: "position_rows", offset: first * 4, size: bytesOf(count) },
        table: this.#matrix("token_emb"),
        positions: { buffer: "positions", offset: 0, size: bytesOf(positions * dim) },
        y: { buffer: "x0", offset: first * dim * 4, size: bytesOf(count * dim) },
        tokens: count,
        dim,
        maxWorkgroups: this.#maxWorkgroups,
      });
      this.steps.push(step);
    });
  }

  /** What the mixer of layer i sees: its input, or the shifted one, which is made anew on the way back. */
  #shift(i: number): string {
    const { config } = this.#model;
    if (!config.tokenShift) return this.#input(i);
    const bytes = bytesOf(this.#rows * config.dim);
    this.kept.set("shifted", bytes);
    const { batch, length } = this.#shape;
    const whole = (buffer: string): Slot => ({ buffer, offset: 0, size: bytes });
    const common = { batch, length, dim: config.dim, maxWorkgroups: this.#maxWorkgroups };
    this.steps.push(planShift({ x: whole(this.#input(i)), mix: this.#matrix(`layers.${i}.shift`), y: whole("shifted"), ...common }));
    return "shifted";
  }

  /** x = mid + down(gelu(up(mid))) */
  #feedForward(i: number): void {
    const { dim, ffwExpand } = this.#model.config;
    this.#slabs(this.#rows, ffwExpand * dim, (first, count) => {
      const mid = view(this.#between(i), dim, first, count);
      const hidden = this.#slab("hidden", ffwExpand * dim, count);
      this.#linear(mid, `layers.${i}.ffw.0`, hidden, { activation: "gelu" });
      this.#linear(hidden, `layers.${i}.ffw.2`, view(this.#input(i + 1), dim, first, count), { residual: mid });
    });
  }

  /** Gradients of all parameters, from that of the last layer's output. */
  backward(): void {
    const { layers } = this.#model.config;
    for (let i = layers - 1; i >= 0; i--) {
      this.#feedForwardBackward(i);
      this.#homBackward(i);
    }
    this.#embeddingsBackward();
  }

  /** dx += upᵀ(gelu'(u) ⊙ downᵀ(dx)), in place: the gradient of mid in x = mid + down(gelu(up(mid))). */
  #feedForwardBackward(i: number): void {
    const { dim, ffwExpand } = this.#model.config;
    const width = ffwExpand * dim;
    const [up, down] = [`layers.${i}.ffw.0`, `layers.${i}.ffw.2`];
    const downBack = this.#transposed("transposed", down);
    const upBack = this.#transposed("transposed_up", up);
    this.#slabs(this.#rows, width, (first, count) => {
      const mid = view(this.#between(i), dim, first, count);
      const gradient = view(this.#gradient(i + 1), dim, first, count);
      const [hidden, back] = [this.#slab("hidden", width, count), this.#slab("hidden_gradient", width, count)];
      this.#linear(mid, up, hidden);
      this.#linear(gradient, downBack, back);
      this.#activateBackward(hidden, back, "gelu");
      this.#weightGradient(hidden, gradient, down);
      this.#weightGradient(mid, back, up);
      this.#linear(back, upBack, gradient, { accumulate: true });
    });
  }

  /** The gradient of x in mid = x + hom(x), where x is query and context. */
  #homBackward(i: number): void {
    const { config, tuning, limits } = this.#model;
    this.#keep(this.#gradient(i), config.dim);
    const { bytes } = transposedWeights(config);
    const mixed = this.#shift(i);
    if (config.tokenShift) this.#keep("dshifted", config.dim);
    const names = {
      query: mixed,
      context: mixed,
      gradOut: this.#gradient(i + 1),
      residual: this.#gradient(i + 1),
      gradQuery: config.tokenShift ? "dshifted" : this.#gradient(i),
      projectionsBack: this.#scratchSlot("transposed", bytes.projectionsBack),
      agBack: this.#scratchSlot("transposed_up", bytes.agBack),
      ...this.#homWeights(i),
    };
    const { steps, scratch } = planHomBackward(this.#homConfig, tuning, limits, {
      ...this.#homCall,
      gradOut: 0,
      gradQuery: 0,
      residual: config.tokenShift ? undefined : 0,
      accumulate: true,
    });
    this.#needScratch(scratch);
    this.steps.push(...rename(planHomTranspose(config, limits), names), ...rename(steps, names));
    if (config.tokenShift) this.#shiftBackward(i);
  }

  /** Adds what comes back through the token shift to the gradient of mid, which passes by it; that is then the gradient of x. */
  #shiftBackward(i: number): void {
    const { dim } = this.#model.config;
    const { batch, length } = this.#shape;
    const blocks = shiftBlocks(batch, length);
    const partial = this.#scratchSlot("gradient_blocks", blocks * padded(dim) * 4);
    const whole = (buffer: string): Slot => ({ buffer, offset: 0, size: bytesOf(this.#rows * dim) });
    const mix = `layers.${i}.shift`;
    const maxWorkgroups = this.#maxWorkgroups;
    const dx = whole(this.#gradient(i));
    this.steps.push(
      planShiftBackward({ x: whole(this.#input(i)), mix: this.#matrix(mix), dy: whole("dshifted"), dx, partial, batch, length, dim, maxWorkgroups }),
      planMergeGradients({
        partial,
        gradient: this.#matrix(mix, GRADIENTS),
        blocks,
        rows: 1,
        outer4: padded(dim) / 4,
        stride4: padded(dim) / 4,
        first4: 0,
        accumulate: true,
        maxWorkgroups,
      }),
    );
  }

  /** Logits, loss and its gradient, slab by slab of rows; then that of the last layer's output. */
  lossAndGradient(): void {
    const { dim, layers, vocabSize } = this.#model.config;
    const outer = padded(vocabSize);
    const inner = padded(dim);
    // The product with the output layer's gradient, in stretches of the vocabulary: bounded scratch, and no loop that is too long.
    const stretch = Math.max(4, Math.min(outer, Math.floor(this.#slabBytes / (inner * 4)) & ~3, MAX_INNER_STEPS * 4));
    const stretches = Math.ceil(outer / stretch);
    const back = (i: number) => this.#transposed("transposed", "output_proj", i * stretch, Math.min(stretch, outer - i * stretch));
    const whole = stretches === 1 ? back(0) : undefined;
    this.#keep(this.#gradient(layers), dim);
    this.#eachLogits(true, (first, count, logits) => {
      const x = view(this.#input(layers), dim, first, count);
      this.#weightGradient(x, logits, "output_proj");
      for (let i = 0; i < stretches; i++) {
        const part = { ...logits, byteOffset: i * stretch * 4, length: Math.min(stretch, outer - i * stretch) };
        this.#linear(part, whole ?? back(i), view(this.#gradient(layers), dim, first, count), { accumulate: i > 0 });
      }
    });
  }

  loss(): void {
    this.#eachLogits(false, () => {});
  }

  #eachLogits(gradient: boolean, use: (first: number, count: number, logits: Rows) => void): void {
    const { dim, layers, vocabSize } = this.#model.config;
    const outer = padded(vocabSize);
    this.#slabs(this.#rows, outer, (first, count) => {
      const logits = this.#slab("logits", outer, count);
      const losses = this.#scratchSlot("losses", bytesOf(count));
      this.#linear(view(this.#input(layers), dim, first, count), "output_proj", logits);
      this.steps.push(
        planCrossEntropy({
          targets: { buffer: "targets", offset: first * 4, size: bytesOf(count) },
          weight: { buffer: "loss_weight", offset: 0, size: 16 },
          logits: { buffer: logits.buffer, offset: 0, size: count * outer * 4 },
          losses,
          rows: count,
          vocabulary: vocabSize,
          stride: outer,
          gradient,
          maxWorkgroups: this.#maxWorkgroups,
        }),
        planSumLoss({ losses, status: { buffer: "status", offset: 0, size: STATUS_BYTES }, rows: count, accumulate: true }),
      );
      use(first, count, logits);
    });
  }

  /** Token table and position embedding, from the gradient of their sum. */
  #embeddingsBackward(): void {
    const { dim, vocabSize } = this.#model.config;
    const { positions } = this.#shape;
    const x = view(this.#gradient(0), dim, 0, this.#rows);
    this.#addGroups(x, "id_groups", vocabSize, this.#matrix("token_emb", GRADIENTS), true);
    if (this.#model.config.positions === false) return;
    const bytes = bytesOf(positions * dim);
    this.kept.set("dpositions", bytes);
    this.#addGroups(x, "position_groups", positions, { buffer: "dpositions", offset: 0, size: bytes }, false);

    const back = this.#transposed("transposed", "pos_emb.2");
    this.#slabs(positions, 2 * dim, (first, count) => {
      const features = view("features", dim, first, count);
      const gradient = view("dpositions", dim, first, count);
      const [hidden, dHidden] = [this.#slab("hidden", 2 * dim, count), this.#slab("hidden_gradient", 2 * dim, count)];
      this.#linear(features, "pos_emb.0", hidden);
      this.#linear(gradient, back, dHidden);
      this.#activateBackward(hidden, dHidden, "silu");
      this.#weightGradient(hidden, gradient, "pos_emb.2");
      this.#weightGradient(features, dHidden, "pos_emb.0");
    });
  }

  /** Rows of x, added up by key. */
  #addGroups(x: Rows, table: string, keys: number, gradient: Slot, accumulate: boolean): void {
    const { steps, partialBytes } = planEmbedBackward({
      x,
      table: { buffer: table, offset: 0, size: bytesOf(rowGroupWords(x.count, keys)) },
      gradient,
      keys,
      partial: "group_blocks",
      accumulate,
      maxWorkgroups: this.#maxWorkgroups,
    });
    this.#scratchSlot("group_blocks", partialBytes);
    this.steps.push(...steps);
  }

  get #homConfig() {
    const { config, scratchBudget } = this.#model;
    const { dim, order, orderExpand, decay = false } = config;
    return { dim, order, orderExpand, activation: "gelu", decay, scratchBudget } as const;
  }

  get #homCall() {
    const { batch, length } = this.#shape;
    return { batch, queryLength: length, contextLength: length, query: 0, context: 0, mask: { kind: "causal", ahead: 1 } } as const;
  }

  #homWeights(i: number) {
    const [projections, ag] = [this.#matrix(`layers.${i}.projections`), this.#matrix(`layers.${i}.ag`)];
    return {
      projections,
      ag,
      decay: { buffer: DECAYS, offset: i * decayBytes(this.#model.config), size: 0 },
      gradProjections: { ...projections, buffer: GRADIENTS },
      gradAg: { ...ag, buffer: GRADIENTS },
    };
  }

  /** The input of layer i, or the last one's output. */
  #input(i: number): string {
    return `x${this.#training ? i : i % 2}`;
  }

  /** The gradient of layer i's input; two buffers take turns, or one is added to where the mixer's own gradient passes the token shift first. */
  #gradient(i: number): string {
    return `dx${this.#model.config.tokenShift ? 0 : i % 2}`;
  }

  /** What the feed-forward part of layer i starts from. */
  #between(i: number): string {
    return `mid${this.#training ? i : 0}`;
  }

  #matrixOf(name: string): ArenaMatrix {
    const matrix = this.#matrices.get(name);
    if (!matrix) throw new Error(`StepPlanner: no matrix is called ${name}`);
    return matrix;
  }

  #matrix(name: string, buffer: string = WEIGHTS): Slot {
    const { offset, size } = this.#matrixOf(name);
    return { buffer, offset, size };
  }

  /** Columns [first, first + count) of a matrix, transposed: what a gradient is multiplied by on its way back. */
  #transposed(role: string, name: string, first = 0, count = this.#matrixOf(name).columns): Slot {
    const { rows: inner, columns: outer } = this.#matrixOf(name);
    const transposed = this.#scratchSlot(role, (count + 1) * inner * 4);
    this.steps.push(planTranspose({ w: this.#matrix(name), transposed, inner, outer, first, count, maxWorkgroups: this.#maxWorkgroups }));
    return transposed;
  }

  #linear(x: Rows, w: string | Slot, y: Rows, options: { activation?: "gelu" | "silu"; residual?: Rows; accumulate?: boolean } = {}): void {
    const { tile } = this.#model.tuning;
    const slot = typeof w === "string" ? this.#matrix(w) : w;
    this.steps.push(planLinear({ x, w: slot, weightDtype: "f32", y, ...options, tile, maxWorkgroups: this.#maxWorkgroups }));
  }

  /** Adds to the gradient of a whole matrix. */
  #weightGradient(x: Rows, dy: Rows, name: string): void {
    const { columns } = this.#matrixOf(name);
    const { steps, partialBytes } = weightGradientSteps({
      x,
      dy,
      gradient: this.#matrix(name, GRADIENTS),
      columns,
      first: 0,
      bias: true,
      accumulate: true,
      partial: "gradient_blocks",
      partialBytes: this.#slabBytes,
      tile: this.#model.tuning.tile,
      maxBinding: this.#maxBinding,
      maxWorkgroups: this.#maxWorkgroups,
    });
    if (partialBytes > 0) this.#scratchSlot("gradient_blocks", partialBytes);
    this.steps.push(...steps);
  }

  #activateBackward(u: Rows, gradients: Rows, activation: "gelu" | "silu"): void {
    const elements = u.count * u.length;
    const slot = ({ buffer }: Rows): Slot => ({ buffer, offset: 0, size: elements * 4 });
    this.steps.push(planActivateBackward({ u: slot(u), gradients: slot(gradients), elements, activation, maxWorkgroups: this.#maxWorkgroups }));
  }

  /** Stretches of rows with scratch rows of `width` numbers. */
  #slabs(rows: number, width: number, use: (first: number, count: number) => void): void {
    const widest = Math.max(width, this.#model.config.dim);
    const most = Math.min(this.#slabBytes, this.#maxBinding);
    const atOnce = Math.max(SLAB_ROWS, Math.floor(most / (padded(widest) * 4 * SLAB_ROWS)) * SLAB_ROWS);
    for (let first = 0; first < rows; first += atOnce) use(first, Math.min(atOnce, rows - first));
  }

  /** What one of several scratch buffers may take. */
  get #slabBytes(): number {
    return Math.min(this.#model.scratchBudget / 4, SLAB_BYTES);
  }

  /** Scratch rows of `width` numbers, filled up to a multiple of 4. */
  #slab(role: string, width: number, count: number): Rows {
    this.#scratchSlot(role, bytesOf(count * padded(width)));
    return view(role, padded(width), 0, count);
  }

  #scratchSlot(role: string, bytes: number): Slot {
    this.scratch.set(role, Math.max(this.scratch.get(role) ?? 0, bytes));
    return { buffer: role, offset: 0, size: bytes };
  }

  #needScratch(scratch: ReadonlyMap<string, number>): void {
    for (const [role, bytes] of scratch) this.#scratchSlot(role, bytes);
  }

  #keep(role: string, width: number): void {
    this.kept.set(role, bytesOf(this.#rows * width));
  }
}

/** Rows of `width` numbers, one behind the other from the buffer's beginning. */
function view(buffer: string, width: number, first: number, count: number): Rows {
  return { buffer, byteOffset: 0, length: width, stride: width, first, count };
}

/** From one layer's decay factors to the next one's. */
function decayBytes(config: HlmConfig): number {
  const { expand4 } = momentLayout(config);
  return Math.ceil((3 * expand4 * 16) / BIND_ALIGNMENT) * BIND_ALIGNMENT;
}

/** The decay factors of all layers, as the kernels read them. */
export function decayTables(config: HlmConfig, params: Readonly<Record<string, Float32Array>>): Float32Array<ArrayBuffer> {
  const { expand4 } = momentLayout(config);
  const stride = decayBytes(config) / 4;
  const tables = new Float32Array(config.layers * stride);
  for (let i = 0; i < config.layers; i++) tables.set(decayTable(params[`layers.${i}.hom.decay`] ?? [], expand4), i * stride);
  return tables;
}

/** Bindings hold whole vec4s. */
const bytesOf = (elements: number): number => Math.ceil(elements / 4) * 16;

/** Steps on other buffers, or on parts of them. */
function rename(steps: readonly Step[], names: Readonly<Record<string, string | Slot>>): Step[] {
  const renamed = (slot: Slot): Slot => {
    const name = names[slot.buffer];
    if (name === undefined) return slot;
    return typeof name === "string" ? { ...slot, buffer: name } : { ...slot, buffer: name.buffer, offset: name.offset + slot.offset };
  };
  return steps.map((step) => ({ ...step, slots: Object.fromEntries(Object.entries(step.slots).map(([key, slot]) => [key, renamed(slot)])) }));
}
