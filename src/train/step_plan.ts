import { planHomBackward, planHomTranspose, transposedWeights } from "../layers/hom_backward_plan.ts";
import { planHom } from "../layers/hom_plan.ts";
import { padded } from "../layers/params.ts";
import { MAX_INNER_STEPS, momentLayout } from "../layers/planner.ts";
import { bytesOf, type FeedForward, type PackedMatrix, type RowsIn, TrainingSteps, view } from "../layers/training_steps.ts";
import type { HlmConfig } from "../models/hlm_weights.ts";
import { planAdamw, SETTINGS_BYTES } from "../ops/adamw.ts";
import { planCrossEntropy } from "../ops/cross_entropy.ts";
import { decayTable } from "../ops/decay_moments.ts";
import { planEmbed } from "../ops/embed.ts";
import { planEmbedBackward, rowGroupWords } from "../ops/embed_backward.ts";
import { planGradientNorm } from "../ops/gradient_norm.ts";
import { planGradientStatus } from "../ops/gradient_status.ts";
import { planMergeGradients } from "../ops/merge_gradients.ts";
import type { Rows } from "../ops/op.ts";
import { planShift } from "../ops/shift.ts";
import { planShiftBackward, shiftBlocks } from "../ops/shift_backward.ts";
import { planSumLoss } from "../ops/sum_loss.ts";
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

class StepPlanner extends TrainingSteps implements StepPlan {
  readonly #model: PlannedModel;
  readonly #shape: StepShape;
  /** Whether the inputs of all layers are needed again. */
  readonly #training: boolean;
  readonly #rows: number;
  readonly #matrices: ReadonlyMap<string, ArenaMatrix>;

  constructor(model: PlannedModel, shape: StepShape, training: boolean) {
    super({ ...model, dim: model.config.dim });
    this.#model = model;
    this.#shape = shape;
    this.#training = training;
    this.#rows = shape.batch * shape.length;
    this.#matrices = new Map(model.layout.matrices.map((matrix) => [matrix.name, matrix]));
  }

  /** Logits' input from tokens: what is kept on the way is what the backward pass starts from. */
  forward(): void {
    const { dim, layers } = this.#model.config;
    if (this.#model.config.positions !== false) this.#positions();
    this.#embed();
    const hom = planHom(this.#homConfig, this.#model.tuning, this.#model.limits, { ...this.#homCall, out: 0, residual: 0 });
    for (let i = 0; i < layers; i++) {
      const [x, mid] = [this.#input(i), this.#between(i)];
      this.#keep(mid, dim);
      this.#keep(this.#input(i + 1), dim);
      const mixed = this.#shift(i);
      this.add(hom, { query: mixed, context: mixed, residual: x, out: mid, ...this.#homWeights(i) });
      const part = this.#feedForward(i);
      this.feedForward(part, this.#rowsOf(this.#input(i + 1)), part.x, this.#rows);
    }
  }

  #positions(): void {
    const { dim } = this.#model.config;
    const { positions } = this.#shape;
    this.slabs(positions, 2 * dim, (first, count) => {
      const hidden = this.slab("hidden", 2 * dim, count);
      this.linear(view(this.#rowsOf("features"), first, count), this.#matrix("pos_emb.0"), hidden, { activation: "silu" });
      this.linear(hidden, this.#matrix("pos_emb.2"), view(this.#rowsOf("positions"), first, count));
    });
  }

  #embed(): void {
    const { dim } = this.#model.config;
    const { positions } = this.#shape;
    // Zeros, as every new buffer has them, where nothing embeds positions.
    this.kept.set("positions", bytesOf(positions * dim));
    this.#keep("x0", dim);
    this.slabs(this.#rows, dim, (first, count) => {
      const step = planEmbed({
        ids: { buffer: "ids", offset: first * 4, size: bytesOf(count) },
        positionRows: { buffer: "position_rows", offset: first * 4, size: bytesOf(count) },
        table: this.#matrix("token_emb"),
        positions: { buffer: "positions", offset: 0, size: bytesOf(positions * dim) },
        y: { buffer: "x0", offset: first * dim * 4, size: bytesOf(count * dim) },
        tokens: count,
        dim,
        maxWorkgroups: this.maxWorkgroups,
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
    const common = { batch, length, dim: config.dim, maxWorkgroups: this.maxWorkgroups };
    this.steps.push(planShift({ x: whole(this.#input(i)), mix: this.#matrix(`layers.${i}.shift`), y: whole("shifted"), ...common }));
    return "shifted";
  }

  #feedForward(i: number): FeedForward {
    return { up: this.#matrixOf(`layers.${i}.ffw.0`), down: this.#matrixOf(`layers.${i}.ffw.2`), x: this.#rowsOf(this.#between(i)) };
  }

  /** Gradients of all parameters, from that of the last layer's output. */
  backward(): void {
    const { layers } = this.#model.config;
    for (let i = layers - 1; i >= 0; i--) {
      const gradient = this.#rowsOf(this.#gradient(i + 1));
      this.feedForwardBackward(this.#feedForward(i), gradient, gradient, { rows: this.#rows, accumulate: true });
      this.#homBackward(i);
    }
    this.#embeddingsBackward();
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
      projectionsBack: this.scratchSlot("transposed", bytes.projectionsBack),
      agBack: this.scratchSlot("transposed_up", bytes.agBack),
      ...this.#homWeights(i),
    };
    const { steps, scratch } = planHomBackward(this.#homConfig, tuning, limits, {
      ...this.#homCall,
      gradOut: 0,
      gradQuery: 0,
      residual: config.tokenShift ? undefined : 0,
      accumulate: true,
    });
    this.add({ steps: [...planHomTranspose(config, limits), ...steps], scratch }, names);
    if (config.tokenShift) this.#shiftBackward(i);
  }

  /** Adds what comes back through the token shift to the gradient of mid, which passes by it; that is then the gradient of x. */
  #shiftBackward(i: number): void {
    const { dim } = this.#model.config;
    const { batch, length } = this.#shape;
    const blocks = shiftBlocks(batch, length);
    const partial = this.scratchSlot("gradient_blocks", blocks * padded(dim) * 4);
    const whole = (buffer: string): Slot => ({ buffer, offset: 0, size: bytesOf(this.#rows * dim) });
    const mix = `layers.${i}.shift`;
    const maxWorkgroups = this.maxWorkgroups;
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
    const stretch = Math.max(4, Math.min(outer, Math.floor(this.slabBytes / (inner * 4)) & ~3, MAX_INNER_STEPS * 4));
    const stretches = Math.ceil(outer / stretch);
    const back = (i: number) => this.transposed("transposed", this.#matrixOf("output_proj"), i * stretch, Math.min(stretch, outer - i * stretch));
    const whole = stretches === 1 ? back(0) : undefined;
    this.#keep(this.#gradient(layers), dim);
    this.#eachLogits(true, (first, count, logits) => {
      const x = view(this.#rowsOf(this.#input(layers)), first, count);
      this.weightGradient(x, logits, this.#matrixOf("output_proj"), true);
      for (let i = 0; i < stretches; i++) {
        const part = { ...logits, byteOffset: i * stretch * 4, length: Math.min(stretch, outer - i * stretch) };
        this.linear(part, whole ?? back(i), view(this.#rowsOf(this.#gradient(layers)), first, count), { accumulate: i > 0 });
      }
    });
  }

  loss(): void {
    this.#eachLogits(false, () => {});
  }

  #eachLogits(gradient: boolean, use: (first: number, count: number, logits: Rows) => void): void {
    const { layers, vocabSize } = this.#model.config;
    const outer = padded(vocabSize);
    this.slabs(this.#rows, outer, (first, count) => {
      const logits = this.slab("logits", outer, count);
      const losses = this.scratchSlot("losses", bytesOf(count));
      this.linear(view(this.#rowsOf(this.#input(layers)), first, count), this.#matrix("output_proj"), logits);
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
          maxWorkgroups: this.maxWorkgroups,
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
    const x = view(this.#rowsOf(this.#gradient(0)), 0, this.#rows);
    this.#addGroups(x, "id_groups", vocabSize, this.#matrix("token_emb", GRADIENTS), true);
    if (this.#model.config.positions === false) return;
    const bytes = bytesOf(positions * dim);
    this.kept.set("dpositions", bytes);
    this.#addGroups(x, "position_groups", positions, { buffer: "dpositions", offset: 0, size: bytes }, false);

    const back = this.transposed("transposed", this.#matrixOf("pos_emb.2"));
    this.slabs(positions, 2 * dim, (first, count) => {
      const features = view(this.#rowsOf("features"), first, count);
      const gradient = view(this.#rowsOf("dpositions"), first, count);
      const [hidden, dHidden] = [this.slab("hidden", 2 * dim, count), this.slab("hidden_gradient", 2 * dim, count)];
      this.linear(features, this.#matrix("pos_emb.0"), hidden);
      this.linear(gradient, back, dHidden);
      this.activateBackward(hidden, dHidden, "silu");
      this.weightGradient(hidden, gradient, this.#matrixOf("pos_emb.2"), true);
      this.weightGradient(features, dHidden, this.#matrixOf("pos_emb.0"), true);
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
      maxWorkgroups: this.maxWorkgroups,
    });
    this.scratchSlot("group_blocks", partialBytes);
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

  #matrixOf(name: string): PackedMatrix {
    const { rows, columns } = this.#matrices.get(name) ?? { rows: 0, columns: 0 };
    return { weights: this.#matrix(name), gradient: this.#matrix(name, GRADIENTS), rows, columns };
  }

  #matrix(name: string, buffer: string = WEIGHTS): Slot {
    const matrix = this.#matrices.get(name);
    if (!matrix) throw new Error(`StepPlanner: no matrix is called ${name}`);
    return { buffer, offset: matrix.offset, size: matrix.size };
  }

  #rowsOf(buffer: string): RowsIn {
    return { buffer, width: this.#model.config.dim };
  }

  #keep(role: string, width: number): void {
    this.kept.set(role, bytesOf(this.#rows * width));
  }
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
