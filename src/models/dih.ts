import { checkInteger, checkObject, rangeError, raw, typeError } from "../checks.ts";
import { HomLayer } from "../layers/hom.ts";
import type { LinearLayer } from "../layers/linear.ts";
import { addRows, planAddRows, type RowsOf } from "../ops/add_rows.ts";
import { modulate, planModulate } from "../ops/modulate.ts";
import { patchify, planPatchify } from "../ops/patchify.ts";
import { planUnpatchify, unpatchify } from "../ops/unpatchify.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { BufferView } from "../runtime/program.ts";
import { allOf, checkGpu, Tensor } from "../runtime/tensor.ts";
import type { GPUBuffer, GPUComputePassEncoder } from "../webgpu.ts";
import { checkImage, checkRows, checkSizes, KeptBuffers, modelParams, Parts, Plans, scratchRows } from "./image_parts.ts";
import { resizeGrid } from "./interpolate.ts";
import { positionFeatures } from "./positions.ts";
import { blockShapes } from "./vision.ts";
import type { ModelWeights } from "./with_shapes.ts";

/** Sizes of a {@link Dih}. */
export interface DihConfig {
  /** Channels of the images, or latents. */
  readonly channels: number;
  /** Classes; the embedding has one more, for none. */
  readonly classes: number;
  /** Steps of the diffusion. */
  readonly timesteps: number;
  /** Side of the images that the model was trained on. */
  readonly imageSize: number;
  readonly patchSize: number;
  readonly dim: number;
  readonly layers: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  /** Registers of a DiH++, which has learned positions and a condition for each token. Default: a DiH, which has neither. */
  readonly registers?: number | undefined;
}

/** A layer: the mixer, its feed-forward part, and what turns conditions into modulations and gates. */
interface DihBlock {
  readonly hom: HomLayer;
  readonly up: LinearLayer;
  readonly down: LinearLayer;
  readonly cond: LinearLayer;
  readonly gates: LinearLayer;
}

/** What a model is made of. @internal */
export interface DihMade {
  readonly inConv: LinearLayer;
  readonly time: readonly [LinearLayer, LinearLayer];
  readonly blocks: readonly DihBlock[];
  readonly outMod: LinearLayer;
  readonly output: LinearLayer;
  readonly registers: GPUBuffer | undefined;
  /** On the host: `freqs`, `classes_emb.weight` and, of a DiH++, `pos_emb`, `cond_pos_emb`. */
  readonly tables: Readonly<Record<string, Float32Array>>;
}

const SIZES = ["channels", "classes", "timesteps", "imageSize", "patchSize", "dim", "layers", "order", "orderExpand", "ffwExpand"];
/** What a DiH++ clamps its tokens to after each layer. */
export const TOKEN_LIMIT = 255;
const KEPT_PLANS = 64;

/**
 * The HoM diffusion model, DiH and DiH++: patches, conditions from time and class, layers x + hom(mod(LN(x)))·(1 + g), x + ffw(mod(LN(x)))·(1 + g), and patches again. It answers
 * with what the network predicts; the sampler is the caller's. Checkpoint keys are the original's: `in_conv`, `classes_emb`, `time_emb.{0,2}`, `freqs`,
 * `layers.i.{hom.*, ffw.{0,2}, cond_mlp.1, gate_mlp.1}`, `out_mod.1`, `out_proj`, and of a DiH++ `registers`, `pos_emb`, `cond_pos_emb`.
 */
export class Dih {
  readonly gpu: Gpu;
  readonly config: Readonly<DihConfig>;
  /** @internal */
  protected readonly made: DihMade;
  readonly #parts: Parts;
  readonly #grids = new KeptBuffers();
  readonly #plans: Plans;
  #destroyed = false;

  /** @internal */
  protected constructor(gpu: Gpu, config: DihConfig, parts: Parts, made: DihMade) {
    this.gpu = gpu;
    this.config = Object.freeze({ ...config });
    this.#parts = parts;
    this.made = made;
    this.#plans = new Plans(gpu, KEPT_PLANS);
  }

  /** @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError */
  static create(gpu: Gpu, config: DihConfig, weights: ModelWeights): Promise<Dih> {
    return Dih.make((...parts) => new Dih(...parts), gpu, config, weights);
  }

  /** @internal */
  protected static async make<Model extends Dih>(
    create: (gpu: Gpu, config: DihConfig, parts: Parts, made: DihMade) => Model,
    gpu: Gpu,
    config: DihConfig,
    weights: ModelWeights,
  ): Promise<Model> {
    const where = "Dih.create";
    checkGpu(where, gpu);
    checkObject(where, "config", config, [...SIZES, "registers"]);
    checkSizes(where, config, SIZES);
    const { channels, classes, timesteps, imageSize, patchSize, dim, layers, order, orderExpand, ffwExpand, registers } = config;
    if (registers !== undefined) checkInteger(where, "registers", registers, 1);
    if (dim % 4 !== 0) throw rangeError(where, "dim", "be a multiple of 4: sines and cosines of two coordinates", dim);
    if (imageSize % patchSize !== 0) throw rangeError(where, "imageSize", `be a multiple of the patchSize ${patchSize}`, imageSize);
    gpu.checkUsable(where);
    const n = (imageSize / patchSize) ** 2;
    const inner = channels * patchSize * patchSize;
    const dense = (name: string, to: number, from: number) => ({ [`${name}.weight`]: [to, from], [`${name}.bias`]: [to] });
    const shapes: Record<string, number[]> = {
      "classes_emb.weight": [classes + 1, dim],
      "in_conv.weight": [dim, channels, patchSize, patchSize],
      "in_conv.bias": [dim],
      ...dense("time_emb.0", 4 * dim, dim),
      ...dense("time_emb.2", dim, 4 * dim),
      ...dense("out_mod.1", 2 * dim, dim),
      ...dense("out_proj", inner, dim),
      ...(registers !== undefined && { registers: [1, registers, dim], pos_emb: [1, n, dim], cond_pos_emb: [1, registers + n, dim] }),
    };
    for (let i = 0; i < layers; i++) {
      Object.assign(shapes, blockShapes(`layers.${i}.`, { dim, order, orderExpand, ffwExpand }, ["ffw.0", "ffw.2"]));
      Object.assign(shapes, dense(`layers.${i}.cond_mlp.1`, 4 * dim, dim), dense(`layers.${i}.gate_mlp.1`, 2 * dim, dim));
    }
    const params = modelParams(where, weights, shapes, { freqs: [dim / 2] });
    const freqs = params["freqs"] ?? Float32Array.from({ length: dim / 2 }, (_, i) => timesteps ** ((-2 * i) / dim));
    const parts = new Parts();
    try {
      const linear = (name: string, from: number, to: number, activation: "identity" | "gelu" | "silu" = "identity") =>
        parts.linear(gpu, params, name, { inner: from, outer: to, activation });
      const { result, status } = gpu.guard(where, () => ({
        inConv: linear("in_conv", inner, dim),
        time: [linear("time_emb.0", dim, 4 * dim, "silu"), linear("time_emb.2", 4 * dim, dim)] as const,
        outMod: linear("out_mod.1", dim, 2 * dim),
        output: linear("out_proj", dim, inner),
        registers: registers === undefined ? undefined : parts.keep(gpu.upload("hom.dih.registers", params["registers"] ?? new Float32Array())),
        dense: Array.from({ length: layers }, (_, i) => ({
          up: linear(`layers.${i}.ffw.0`, dim, ffwExpand * dim, "gelu"),
          down: linear(`layers.${i}.ffw.2`, ffwExpand * dim, dim),
          cond: linear(`layers.${i}.cond_mlp.1`, dim, 4 * dim),
          gates: linear(`layers.${i}.gate_mlp.1`, dim, 2 * dim),
        })),
      }));
      const blocks: DihBlock[] = [];
      for (const [i, own] of result.dense.entries()) {
        const prefix = `layers.${i}.hom.`;
        const mixer = Object.entries(params).flatMap(([key, value]) => (key.startsWith(prefix) ? [[key.slice(prefix.length), value] as const] : []));
        blocks.push({ ...own, hom: parts.keep(await HomLayer.create(gpu, { dim, order, orderExpand }, Object.fromEntries(mixer))) });
      }
      const failure = await status;
      if (failure) throw failure;
      const layersOfModel = [result.inConv, ...result.time, result.outMod, result.output, ...result.dense.flatMap((own) => Object.values(own))];
      const activations = ["identity", "silu"] as const;
      await Promise.all([
        ...layersOfModel.map((layer) => layer.prepare()),
        ...[patchify, unpatchify, modulate].map((kernel) => gpu.prepare(kernel, {})),
        ...activations.map((activation) => gpu.prepare(addRows, { activation })),
      ]);
      return create(gpu, config, parts, { ...result, blocks, tables: { ...params, freqs } });
    } catch (error) {
      parts.destroy();
      throw error;
    }
  }

  /**
   * Noisy images `[B, C, S, S]` in f32 at times `[B]` of classes `[B]` -> what the network predicts, `[B, C, S, S]`. S may be any multiple of the patch: learned positions of a
   * DiH++ are resized (bicubically, antialiased), a DiH computes its own.
   * @throws TypeError, RangeError, GpuLostError
   */
  forward(image: Tensor, time: ArrayLike<number>, classes: ArrayLike<number>): Tensor {
    return this.run("Dih.forward", image, time, classes);
  }

  /** Batch rows, and patches of a side. @internal */
  protected check(where: string, image: Tensor): { readonly batch: number; readonly side: number } {
    if (this.#destroyed) throw typeError(where, "model", "be alive", raw("a destroyed model"));
    this.gpu.checkUsable(where);
    const { channels, patchSize } = this.config;
    const { batch, height, width } = checkImage(where, image, this.gpu, channels, patchSize);
    if (height !== width || height % patchSize !== 0)
      throw rangeError(where, "image", `be square, with sides that are multiples of ${patchSize}`, image.shape);
    return { batch, side: height / patchSize };
  }

  /** @internal */
  protected run(where: string, image: Tensor, time: ArrayLike<number>, classes: ArrayLike<number>): Tensor {
    const { batch, side } = this.check(where, image);
    const { gpu } = this;
    const { channels, patchSize, dim, registers = 0, ffwExpand } = this.config;
    const perToken = this.config.registers !== undefined;
    const height = side * patchSize;
    const width = height;
    const n = side * side;
    const tokens = registers + n;
    const rows = batch * tokens;
    const conditions = perToken ? rows : batch;
    const inner = channels * patchSize * patchSize;
    checkRows(where, gpu, rows, Math.max(4, ffwExpand) * dim);
    checkRows(where, gpu, batch * n, inner);
    const uploads = this.conditions(where, time, classes, batch);
    const position = this.grid(where, "pos_emb", side);
    const condPosition = perToken ? this.grid(where, "cond_pos_emb", side) : undefined;
    const key = [batch, side].join();
    const slot = (buffer: string, count: number, wide: number) => ({ buffer, offset: 0, size: count * wide * 4 });
    const { inConv, time: timeLayers, blocks, outMod, output, registers: registerRows } = this.made;
    const free: (() => void)[] = [];
    const { result, status } = gpu.guard(where, () => {
      const out = Tensor.allocate(where, gpu, "hom.image", image.shape);
      const [features, classRows] = uploads.map((data) => {
        const buffer = gpu.upload("hom.dih.conditions", data);
        free.push(() => buffer.destroy());
        return { buffer, byteOffset: 0 };
      }) as [BufferView, BufferView];
      const scratch = (role: string, count: number, wide: number) => scratchRows(gpu, role, count, wide);
      const patches = scratch("image_patches", batch * n, inner);
      const embedded = scratch("image_embedded", batch * n, dim);
      const timed = scratch("image_timed", batch, 4 * dim);
      const c = scratch("image_c", batch, dim);
      const silu = scratch("image_conditions", conditions, dim);
      const cond = scratch("image_modulations", conditions, 4 * dim);
      const gates = scratch("image_gates", conditions, 2 * dim);
      const u = scratch("image_u", rows, dim);
      const mixed = scratch("image_between", rows, dim);
      const hidden = scratch("hidden", rows, ffwExpand * dim);
      let x = scratch("image_x", rows, dim);
      let spare = scratch("image_spare", rows, dim);
      gpu.submit("dih", (pass) => {
        timeLayers[0].record(pass, { x: features, y: timed, rows: batch });
        timeLayers[1].record(pass, { x: timed, y: c, residual: classRows, rows: batch });
        this.#plans.record(pass, `conditions ${key}`, { c, position: condPosition, silu }, (maxWorkgroups) => {
          const a = { slot: slot("c", batch, dim), batch: dim, token: 0 };
          const count = perToken ? tokens : 1;
          const b = perToken ? { slot: slot("position", tokens, dim), batch: 0, token: dim } : undefined;
          const y = { slot: slot("silu", conditions, dim), batch: count * dim, token: dim };
          return planAddRows({ a, b, y, activation: "silu", batch, tokens: count, dim, maxWorkgroups });
        });
        this.#plans.record(pass, `patches ${key} ${image.byteOffset % 256}`, { image, rows: patches }, (maxWorkgroups) => {
          const from = { buffer: "image", byteOffset: image.byteOffset % 256 };
          return planPatchify({ image: from, rows: slot("rows", batch * n, inner), batch, channels, height, width, patch: patchSize, maxWorkgroups });
        });
        inConv.record(pass, { x: patches, y: embedded, rows: batch * n });
        const into = (at: number): RowsOf => ({ slot: slot("x", rows, dim), at, batch: tokens * dim, token: dim });
        this.#plans.record(pass, `positions ${key}`, { position, embedded, x }, (maxWorkgroups) => {
          const a = { slot: slot("position", n, dim), batch: 0, token: dim };
          const b = { slot: slot("embedded", batch * n, dim), batch: n * dim, token: dim };
          return planAddRows({ a, b, y: into(registers * dim), batch, tokens: n, dim, maxWorkgroups });
        });
        if (registerRows) {
          this.#plans.record(pass, `registers ${key}`, { registers: registerRows, x }, (maxWorkgroups) => {
            const a = { slot: slot("registers", registers, dim), batch: 0, token: dim };
            return planAddRows({ a, y: into(0), batch, tokens: registers, dim, maxWorkgroups });
          });
        }
        for (const block of blocks) {
          block.cond.record(pass, { x: silu, y: cond, rows: conditions });
          block.gates.record(pass, { x: silu, y: gates, rows: conditions });
          this.#modulate(pass, key, { x, m: cond, y: u }, [0, 1, 4]);
          const shape = { batch, queryLength: tokens, contextLength: tokens };
          const resolved = { plan: { kind: "none" }, uploads: {}, key: "none" } as const;
          free.push(...block.hom.record(pass, { query: u, context: u, out: mixed, shape, resolved }));
          this.#addGated(pass, key, { x, mixed, gates, y: spare }, 0, undefined);
          [x, spare] = [spare, x];
          this.#modulate(pass, key, { x, m: cond, y: u }, [2, 3, 4]);
          block.up.record(pass, { x: u, y: hidden, rows });
          block.down.record(pass, { x: hidden, y: mixed, rows });
          this.#addGated(pass, key, { x, mixed, gates, y: spare }, 1, perToken ? TOKEN_LIMIT : undefined);
          [x, spare] = [spare, x];
        }
        outMod.record(pass, { x: silu, y: gates, rows: conditions });
        this.#modulate(pass, key, { x, m: gates, y: u }, [0, 1, 2]);
        this.#plans.record(pass, `read ${key}`, { u, embedded }, (maxWorkgroups) => {
          const a = { slot: slot("u", rows, dim), at: registers * dim, batch: tokens * dim, token: dim };
          const y = { slot: slot("embedded", batch * n, dim), batch: n * dim, token: dim };
          return planAddRows({ a, y, batch, tokens: n, dim, maxWorkgroups });
        });
        output.record(pass, { x: embedded, y: patches, rows: batch * n });
        this.#plans.record(pass, `image ${key}`, { rows: patches, image: out }, (maxWorkgroups) => {
          const to = { buffer: "image", byteOffset: 0 };
          return planUnpatchify({ rows: slot("rows", batch * n, inner), image: to, batch, channels, height, width, patch: patchSize, maxWorkgroups });
        });
      });
      return out;
    });
    for (const f of free) f();
    return Tensor.adopt(gpu, result, image.shape, allOf([status, image.status]));
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.#parts.destroy();
    this.#grids.destroy();
    this.#plans.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** Tokens and conditions of a call, by its key. */
  #sizes(key: string) {
    const { dim, registers = 0 } = this.config;
    const [batch = 0, side = 0] = key.split(",").map(Number);
    const tokens = registers + side * side;
    const perToken = this.config.registers !== undefined;
    /** Elements of rows of `parts`·D conditions from one batch row and one token to the next. */
    const steps = (parts: number) => (perToken ? { batch: tokens * parts * dim, token: parts * dim } : { batch: parts * dim, token: 0 });
    return { batch, tokens, dim, conditions: perToken ? batch * tokens : batch, steps };
  }

  /** y = LN(x) ⊙ (1 + m[scale]) + m[shift], m in rows of `parts`·D. */
  #modulate(
    pass: GPUComputePassEncoder,
    key: string,
    buffers: { readonly x: BufferView; readonly m: BufferView; readonly y: BufferView },
    [scale, shift, parts]: readonly [number, number, number],
  ): void {
    this.#plans.record(pass, `modulate ${key} ${scale} ${parts}`, buffers, (maxWorkgroups) => {
      const { batch, tokens, dim, conditions, steps } = this.#sizes(key);
      const slot = (buffer: string, size: number) => ({ buffer, offset: 0, size: size * 4 });
      const { batch: mBatch, token: mToken } = steps(parts);
      return planModulate({
        x: slot("x", batch * tokens * dim),
        m: slot("m", conditions * parts * dim),
        y: slot("y", batch * tokens * dim),
        scaleAt: scale * dim,
        shiftAt: shift * dim,
        mBatch,
        mToken,
        batch,
        tokens,
        dim,
        maxWorkgroups,
      });
    });
  }

  /** y = x + mixed ⊙ (1 + gates[part]) */
  #addGated(
    pass: GPUComputePassEncoder,
    key: string,
    buffers: { readonly x: BufferView; readonly mixed: BufferView; readonly gates: BufferView; readonly y: BufferView },
    part: number,
    limit: number | undefined,
  ): void {
    this.#plans.record(pass, `add ${key} ${part}`, buffers, (maxWorkgroups) => {
      const { batch, tokens, dim, conditions, steps } = this.#sizes(key);
      const rows = (buffer: string) => ({
        slot: { buffer, offset: 0, size: batch * tokens * dim * 4 },
        batch: tokens * dim,
        token: dim,
      });
      const g = { slot: { buffer: "gates", offset: 0, size: conditions * 2 * dim * 4 }, at: part * dim, ...steps(2) };
      return planAddRows({ a: rows("x"), b: rows("mixed"), g, y: rows("y"), limit, batch, tokens, dim, maxWorkgroups });
    });
  }

  /** Time features and class embeddings, a row a batch row. @internal */
  protected conditions(where: string, time: ArrayLike<number>, classes: ArrayLike<number>, batch: number): [Float32Array, Float32Array] {
    const { dim } = this.config;
    for (const [name, values] of Object.entries({ time, classes })) {
      if (typeof values?.length !== "number") throw typeError(where, name, "be an array of numbers", values);
      if (values.length !== batch) throw rangeError(where, name, `have ${batch} elements, one an image`, raw(`${values.length}`));
    }
    const places = Array.from(time, Number);
    const bad = places.findIndex((t) => !Number.isFinite(t));
    if (bad !== -1) throw rangeError(where, `time[${bad}]`, "be finite", time[bad]);
    const table = this.made.tables["classes_emb.weight"] ?? new Float32Array();
    const rows = new Float32Array(batch * dim);
    for (let b = 0; b < batch; b++) {
      const id = checkInteger(where, `classes[${b}]`, classes[b], 0, this.config.classes);
      rows.set(table.subarray(id * dim, (id + 1) * dim), b * dim);
    }
    return [positionFeatures(this.made.tables["freqs"] ?? new Float32Array(), places), rows];
  }

  /** Positions of a grid of this side, on the GPU. @internal */
  protected grid(where: string, name: "pos_emb" | "cond_pos_emb", side: number): GPUBuffer {
    return this.#grids.get(`${name} ${side}`, () => this.gpu.upload(`hom.dih.${name}`, this.#grid(where, name, side)));
  }

  /** Positions of a grid of this side: the checkpoint's, resized where it has another, or those of a DiH. Registers keep theirs. */
  #grid(where: string, name: "pos_emb" | "cond_pos_emb", side: number): Float32Array {
    const { dim, registers, imageSize, patchSize } = this.config;
    const table = this.made.tables[name];
    if (!table) return fixedPositions(side, dim);
    if (side === imageSize / patchSize) return table;
    const kept = name === "pos_emb" ? 0 : (registers ?? 0) * dim;
    const resized = resizeGrid(where, table.subarray(kept), dim, side, true);
    const all = new Float32Array(kept + resized.length);
    all.set(table.subarray(0, kept));
    all.set(resized, kept);
    return all;
  }
}

/** `[side², D]`: sines and cosines of odd multiples of π along the columns in the first half of the channels, along the rows in the second. */
function fixedPositions(side: number, dim: number): Float32Array {
  const quarter = dim / 4;
  const code = new Float32Array(side * side * dim);
  for (let cell = 0; cell < side * side; cell++) {
    [cell % side, Math.floor(cell / side)].forEach((place, half) => {
      const u = side > 1 ? place / (side - 1) : 0;
      for (let j = 0; j < quarter; j++) {
        const at = cell * dim + 2 * half * quarter + j;
        code[at] = Math.sin(Math.PI * (2 * j + 1) * u);
        code[at + quarter] = Math.cos(Math.PI * (2 * j + 1) * u);
      }
    });
  }
  return code;
}
