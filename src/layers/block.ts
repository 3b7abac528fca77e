import { checkInteger, checkOneOf, rangeError, typeError } from "../checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import type { BufferView } from "../runtime/program.ts";
import { Tensor } from "../runtime/tensor.ts";
import type { GPUComputePassEncoder } from "../webgpu.ts";
import { type HomForwardOptions, HomLayer } from "./hom.ts";
import type { HomConfig, HomParams } from "./hom_config.ts";
import { LinearLayer } from "./linear.ts";
import type { LayerRecord } from "./moment_layer.ts";
import { parameter } from "./params.ts";
import { checkTensor } from "./tensor_checks.ts";

/** Sizes of a {@link HomBlock}: those of its layer, and of its feed-forward part. */
export interface HomBlockConfig extends HomConfig {
  /** f: the feed-forward part is f·D wide. */
  readonly ffwExpand: number;
}

/**
 * A residual block: x = xq + hom(xq, xc), then x + ffw(x), ffw = Linear(D, f·D), GELU, Linear(f·D, D).
 * Parameters: `hom.{ho,se,ag}_proj.{weight,bias}` and `ffw.1`, `ffw.3` (or `ffw.0`, `ffw.2`, where the checkpoint has no dropout first).
 */
export class HomBlock {
  readonly gpu: Gpu;
  readonly config: HomBlockConfig;
  readonly hom: HomLayer;
  /** @internal */
  readonly up: LinearLayer;
  /** @internal */
  readonly down: LinearLayer;

  private constructor(gpu: Gpu, config: HomBlockConfig, hom: HomLayer, up: LinearLayer, down: LinearLayer) {
    this.gpu = gpu;
    this.config = config;
    this.hom = hom;
    this.up = up;
    this.down = down;
  }

  /**
   * Checks and uploads the parameters and compiles the kernels.
   * @throws TypeError, RangeError for the configuration, WeightsError for the parameters, GpuLostError, GpuOutOfMemoryError
   */
  static async create(gpu: Gpu, config: HomBlockConfig, params: HomParams): Promise<HomBlock> {
    const where = "HomBlock.create";
    if (typeof config !== "object" || config === null) throw typeError(where, "config", "be an object", config);
    if (typeof params !== "object" || params === null) throw typeError(where, "params", "be an object of Float32Arrays", params);
    const { ffwExpand, ...homConfig } = config;
    checkInteger(where, "ffwExpand", ffwExpand, 1);
    // The feed-forward part reads and writes f32.
    checkOneOf(where, "dtype", config.dtype ?? "f32", ["f32"]);
    const homParams = Object.fromEntries(Object.entries(params).flatMap(([key, value]) => (key.startsWith("hom.") ? [[key.slice(4), value]] : [])));
    const hom = await HomLayer.create(gpu, homConfig, homParams);
    const made: LinearLayer[] = [];
    try {
      const [first, second] = "ffw.0.weight" in params ? ["ffw.0", "ffw.2"] : ["ffw.1", "ffw.3"];
      const hidden = ffwExpand * config.dim;
      const linear = (name: string, inner: number, outer: number, activation: "identity" | "gelu") => {
        const weight = parameter(where, params, `${name}.weight`, [outer, inner]);
        const bias = parameter(where, params, `${name}.bias`, [outer]);
        const layer = new LinearLayer(gpu, { label: name, inner, outer, activation, weightDtype: config.weightDtype }, weight, bias);
        made.push(layer);
        return layer;
      };
      const { result, status } = gpu.guard(where, () => ({
        up: linear(first, config.dim, hidden, "gelu"),
        down: linear(second, hidden, config.dim, "identity"),
      }));
      const { up, down } = result;
      const failure = await status;
      if (failure) throw failure;
      await Promise.all([up.prepare(), down.prepare()]);
      return new HomBlock(gpu, config, hom, up, down);
    } catch (error) {
      hom.destroy();
      for (const layer of made) layer.destroy();
      throw error;
    }
  }

  /** Bytes of the weights on the GPU. */
  get weightBytes(): number {
    return this.hom.weightBytes + this.up.weightBytes + this.down.weightBytes;
  }

  /** `[B, T, D]` -> `[B, T, D]`; options as in {@link HomLayer.forward}. */
  forward(query: Tensor, options: Omit<HomForwardOptions, "residual"> = {}): Tensor {
    const where = "HomBlock.forward";
    const { out } = options;
    if (out) {
      checkTensor(where, "out", out, this.gpu);
      checkOneOf(where, "out's dtype", out.dtype, ["f32"]);
      if (out.shape.join() !== query?.shape?.join()) throw rangeError(where, "out", `have shape [${query?.shape?.join(", ")}]`, out.shape);
    }
    const mixed = this.hom.forward(query, { ...options, out: undefined, residual: query });
    try {
      const { result, status } = this.gpu.guard(where, () => {
        const buffer = out?.buffer ?? Tensor.allocate(where, this.gpu, "hom.block.output", query.shape);
        const rows = (query.shape[0] ?? 0) * (query.shape[1] ?? 0);
        this.gpu.submit("block", (pass) => this.recordFeedForward(pass, mixed, out ?? { buffer, byteOffset: 0 }, rows));
        return buffer;
      });
      const all = Promise.all([mixed.status, status]).then(([a, b]) => a ?? b);
      return out ? out.overwritten(all) : Tensor.adopt(this.gpu, result, query.shape, all);
    } finally {
      mixed.destroy();
    }
  }

  /** The whole block on bare buffers: `x` -> `y` by way of `between`; the residuals, at first the query unless told otherwise, are the kernels' epilogues. @internal */
  record(pass: GPUComputePassEncoder, call: Omit<LayerRecord, "out" | "context">, between: BufferView, y: BufferView, rows: number): (() => void)[] {
    const free = this.hom.record(pass, { residual: call.query, ...call, context: call.query, out: between });
    this.recordFeedForward(pass, between, y, rows);
    return free;
  }

  /** @internal */
  recordFeedForward(pass: GPUComputePassEncoder, x: BufferView, y: BufferView, rows: number, decode = false): void {
    const bytes = rows * this.config.ffwExpand * this.config.dim * 4;
    const hidden = { buffer: this.gpu.scratch("hidden", bytes), byteOffset: 0 };
    this.up.record(pass, { x, y: hidden, rows, decode });
    this.down.record(pass, { x: hidden, y, residual: x, rows, decode });
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    this.hom.destroy();
    this.up.destroy();
    this.down.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }
}
