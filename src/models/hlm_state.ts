import { checkObject, raw, typeError } from "../checks.ts";
import { WeightsError } from "../errors.ts";
import { HomState } from "../layers/hom_state.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { checkGpu } from "../runtime/tensor.ts";
import { USAGE } from "../runtime/usage.ts";
import type { GPUBuffer } from "../webgpu.ts";
import { parseSafetensors, type Weights, writeSafetensors } from "../weights/index.ts";

/** Positions whose embeddings are computed at once while decoding. */
export const POSITION_CHUNK = 64;

/** Metadata of a saved state: its version, the position of the next token, and how many layers there are. */
const FORMAT_KEY = "homm-webgpu.hlm_state";
const VERSION = "1";
const POSITION_KEY = "position";
const layerName = (i: number) => `layers.${i}`;
const shiftName = (i: number) => `layers.${i}.last_tokens`;

/** What decides whether a saved state fits a model. */
interface StateOwner {
  readonly config: {
    readonly layers: number;
    readonly dim: number;
    readonly order: number;
    readonly orderExpand: number;
    readonly tokenShift?: boolean | undefined;
  };
}

/**
 * A language model's memory of a text: one {@link HomState} a layer, and the position of the next token. Its size does not depend on the
 * length of the text. Made by `Hlm.createState`; `clone` it to continue a text in two ways.
 */
export class HlmState {
  readonly gpu: Gpu;
  readonly layers: readonly HomState[];
  readonly batch: number;
  readonly window: number | undefined;
  /** Embeddings `[POSITION_CHUNK, D]` of positions from `cachedFrom` on. @internal */
  readonly positions: GPUBuffer;
  /** @internal */
  cachedFrom: number | undefined;
  /** Of a model with a token shift: each layer's last tokens `[B, D]`, and where the next ones go; the two take turns. @internal */
  readonly shifted: readonly { previous: GPUBuffer; next: GPUBuffer }[];
  #position: number;
  #destroyed = false;

  /** @internal */
  constructor(gpu: Gpu, layers: readonly HomState[], batch: number, window: number | undefined, position: number, dim: number, tokenShift: boolean) {
    this.gpu = gpu;
    this.layers = layers;
    this.batch = batch;
    this.window = window;
    this.#position = position;
    this.positions = gpu.createBuffer("hom.hlm_state.positions", Math.max(16, POSITION_CHUNK * dim * 4), USAGE.STORAGE | USAGE.COPY_DST);
    const lastTokens = () =>
      gpu.createBuffer("hom.hlm_state.last_tokens", Math.max(16, batch * dim * 4), USAGE.STORAGE | USAGE.COPY_SRC | USAGE.COPY_DST);
    this.shifted = tokenShift ? layers.map(() => ({ previous: lastTokens(), next: lastTokens() })) : [];
  }

  /** Tokens taken in so far, and so the position of the next one. */
  get position(): number {
    return this.#position;
  }

  /** GPU memory of the state. */
  get bytes(): number {
    const shifted = this.shifted.reduce((sum, { previous, next }) => sum + previous.size + next.size, 0);
    return this.layers.reduce((sum, state) => sum + state.bytes, this.positions.size) + shifted;
  }

  /** An independent copy. */
  clone(): HlmState {
    this.checkUsable("HlmState.clone");
    const copies = this.layers.map((state) => state.clone());
    const copy = new HlmState(this.gpu, copies, this.batch, this.window, this.#position, this.#dim, this.shifted.length > 0);
    const encoder = this.gpu.device.createCommandEncoder({ label: "hom.hlm_state.clone" });
    this.shifted.forEach(({ previous }, i) => {
      const to = copy.shifted[i];
      if (to) encoder.copyBufferToBuffer(previous, 0, to.previous, 0, previous.size);
    });
    this.gpu.device.queue.submit([encoder.finish()]);
    return copy;
  }

  /** Forgets everything and starts at position 0. */
  reset(): void {
    this.checkUsable("HlmState.reset");
    for (const state of this.layers) state.reset();
    const encoder = this.gpu.device.createCommandEncoder({ label: "hom.hlm_state.reset" });
    for (const { previous } of this.shifted) encoder.clearBuffer(previous);
    this.gpu.device.queue.submit([encoder.finish()]);
    this.#position = 0;
  }

  /**
   * The state as bytes: a safetensors file with the bytes of each layer's state as U8 tensors. `HlmState.load` reads it on any device.
   * @param options.metadata texts to keep with it, for example that which the state has taken in; `parseSafetensors` reads them
   */
  async save(options: { readonly metadata?: Readonly<Record<string, string>> } = {}): Promise<Uint8Array<ArrayBuffer>> {
    const where = "HlmState.save";
    checkObject(where, "options", options, ["metadata"]);
    this.checkUsable(where);
    const { metadata = {} } = options;
    for (const key of [FORMAT_KEY, POSITION_KEY]) {
      if (key in metadata) throw typeError(where, "options.metadata", `leave the key ${JSON.stringify(key)} to the state`, raw("it"));
    }
    const position = String(this.#position);
    const shape = [this.batch, this.#dim];
    const last = this.shifted.map(async ({ previous }) => new Float32Array(await this.gpu.readBytes(where, previous, 0, this.batch * this.#dim * 4)));
    const [layers, shifted] = await Promise.all([Promise.all(this.layers.map((state) => state.save())), Promise.all(last)]);
    const tensors: Record<string, { shape: number[]; data: Uint8Array | Float32Array }> = {};
    layers.forEach((data, i) => {
      tensors[layerName(i)] = { shape: [data.length], data };
    });
    shifted.forEach((data, i) => {
      tensors[shiftName(i)] = { shape, data };
    });
    return writeSafetensors(tensors, { ...metadata, [FORMAT_KEY]: VERSION, [POSITION_KEY]: position });
  }

  /**
   * A saved state on this device.
   * @param options.model refuses bytes that do not fit this model
   * @throws WeightsError for bytes that are truncated, corrupted, foreign or of another version or shape; nothing is loaded then
   */
  static load(gpu: Gpu, bytes: Uint8Array | ArrayBuffer, options: { readonly model?: StateOwner } = {}): HlmState {
    const where = "HlmState.load";
    checkGpu(where, gpu);
    checkObject(where, "options", options, ["model"]);
    const file = parseSafetensors(bytes);
    const position = positionOf(where, file);
    const { model } = options;
    const tokenShift = file.has(shiftName(0));
    const size = tokenShift ? file.size / 2 : file.size;
    if (model && model.config.layers !== size)
      throw new WeightsError(`${where}: bytes must have the model's ${model.config.layers} layers, got ${size}`);
    if (model && (model.config.tokenShift ?? false) !== tokenShift)
      throw new WeightsError(
        `${where}: bytes must be of a model ${tokenShift ? "with" : "without"} a token shift, got a model ${tokenShift ? "without" : "with"} one`,
      );
    const states: HomState[] = [];
    try {
      for (let i = 0; i < size; i++) states.push(HomState.load(gpu, layerBytes(where, file, i)));
      const [first] = states;
      if (!first) throw new WeightsError(`${where}: bytes must have at least one layer, got none`);
      for (const [i, state] of states.entries()) {
        checkAlike(where, i, state, first);
        if (model) {
          for (const key of ["dim", "order", "orderExpand"] as const) {
            if (state.config[key] !== model.config[key])
              throw new WeightsError(`${where}: ${key} must be the model's ${model.config[key]}, got ${state.config[key]}`);
          }
        }
      }
      const { dim } = first.config;
      const last = tokenShift ? states.map((_, i) => lastTokens(where, file, i, first.batch * dim)) : [];
      const state = new HlmState(gpu, states, first.batch, first.window, position, dim, tokenShift);
      last.forEach((tokens, i) => {
        const to = state.shifted[i];
        if (to) gpu.device.queue.writeBuffer(to.previous, 0, tokens);
      });
      return state;
    } catch (error) {
      for (const state of states) state.destroy();
      throw error;
    }
  }

  /** Frees the state's memory. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    for (const state of this.layers) state.destroy();
    this.positions.destroy();
    for (const { previous, next } of this.shifted) for (const buffer of [previous, next]) buffer.destroy();
  }

  get #dim(): number {
    return this.layers[0]?.config.dim ?? 0;
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** @internal */
  checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "state", "be alive", raw("a destroyed state"));
    this.gpu.checkUsable(where);
  }

  /** @internal */
  advance(tokens: number): void {
    this.#position += tokens;
  }
}

function positionOf(where: string, { metadata }: Weights): number {
  const version = metadata[FORMAT_KEY];
  if (version !== VERSION) {
    const got = version === undefined ? "another safetensors file" : `version ${version}; this package reads version ${VERSION}`;
    throw new WeightsError(`${where}: bytes must be a saved HlmState, got ${got}`);
  }
  const position = Number(metadata[POSITION_KEY]);
  if (!Number.isSafeInteger(position) || position < 0)
    throw new WeightsError(`${where}: bytes must have a position of at least 0, got ${JSON.stringify(metadata[POSITION_KEY])}`);
  return position;
}

function layerBytes(where: string, file: Weights, i: number): Uint8Array {
  const name = layerName(i);
  if (!file.has(name)) throw new WeightsError(`${where}: bytes must have ${name}, got ${file.names.join(", ")}`);
  return file.get(name).bytes;
}

function lastTokens(where: string, file: Weights, i: number, size: number): Float32Array<ArrayBuffer> {
  const name = shiftName(i);
  if (!file.has(name)) throw new WeightsError(`${where}: bytes must have ${name}, got ${file.names.join(", ")}`);
  const tokens = Float32Array.from(file.get(name).toFloat32());
  if (tokens.length !== size) throw new WeightsError(`${where}: ${name} must have ${size} elements, got ${tokens.length}`);
  return tokens;
}

/** The layers of one model share everything but their sums. */
function checkAlike(where: string, i: number, state: HomState, first: HomState): void {
  const facts = ({ config, batch, window, count }: HomState) => ({ ...config, batch, window, count: count.join() });
  const own = Object.entries(facts(state));
  const other: Record<string, unknown> = facts(first);
  const odd = own.find(([key, value]) => value !== other[key]);
  if (odd) throw new WeightsError(`${where}: every layer must have ${odd[0]} ${other[odd[0]]}, as the first has, got ${odd[1]} in layer ${i}`);
}
