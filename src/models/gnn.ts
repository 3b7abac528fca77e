import { checkObject, rangeError, raw, typeError } from "../checks.ts";
import { HomBlock } from "../layers/block.ts";
import type { LinearLayer } from "../layers/linear.ts";
import { HomMask, type MaskShape, resolveMask } from "../layers/mask.ts";
import { checkTensor } from "../layers/tensor_checks.ts";
import type { Gpu } from "../runtime/gpu.ts";
import { allOf, checkGpu, type Shape, Tensor } from "../runtime/tensor.ts";
import { checkSizes, modelParams, Parts, scratchRows } from "./image_parts.ts";
import { blockShapes } from "./vision.ts";
import type { ModelWeights } from "./with_shapes.ts";

/** Sizes of a {@link HomGnn}. */
export interface HomGnnConfig {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
  readonly ffwExpand: number;
  /** Layers of a network, under `layers.i`. Default: a single layer, whose keys have no prefix. */
  readonly layers?: number | undefined;
  /** Classes of a network's `linear`. Default: none, and the output is the last layer's. */
  readonly classes?: number | undefined;
}

/** Row t: the weights of the nodes that node t sees, non-zero for booleans. `[N·N]` for all graphs of a batch or `[B·N·N]`, or made by `createAdjacency`. */
export type Adjacency = Uint8Array | Float32Array | HomMask;

const KEYS = ["dim", "order", "orderExpand", "ffwExpand"];

/** What a {@link HomGnn} is made of. @internal */
export interface HomGnnParts {
  /** What comes before the checkpoint keys of each block. */
  readonly prefixes: readonly string[];
  readonly blocks: readonly HomBlock[];
  readonly output: LinearLayer | undefined;
  readonly owned: Parts;
}

/** A checked call. @internal */
export interface HomGnnCall {
  readonly shape: MaskShape;
  readonly mask: HomMask;
  readonly outShape: Shape;
}

/**
 * HoM over graphs: every node mixes the moments (of tanh) of the nodes that it sees, by their mean; then a feed-forward part; both with residuals. Checkpoint keys of a layer:
 * `ho_proj`, `se_proj`, `ag_proj`, `ffw.1`, `ffw.3`, each with weight and bias; of a network `layers.i.…` and `linear`. A node that sees none reads zeros (the formula divides 0 by 0).
 *
 * That of `homm-webgpu/train` adds `forwardForTraining`.
 */
export class HomGnn {
  readonly gpu: Gpu;
  readonly config: Readonly<HomGnnConfig>;
  /** @internal */
  protected readonly parts: HomGnnParts;
  #destroyed = false;

  /** @internal */
  protected constructor(gpu: Gpu, config: HomGnnConfig, parts: HomGnnParts) {
    this.gpu = gpu;
    this.config = Object.freeze({ ...config });
    this.parts = parts;
  }

  /** @throws TypeError, RangeError for the configuration, WeightsError for the checkpoint, GpuLostError, GpuOutOfMemoryError */
  static create(gpu: Gpu, config: HomGnnConfig, weights: ModelWeights): Promise<HomGnn> {
    return HomGnn.make((...parts) => new HomGnn(...parts), gpu, config, weights);
  }

  /** @internal */
  protected static async make<Model extends HomGnn>(
    create: (gpu: Gpu, config: HomGnnConfig, parts: HomGnnParts) => Model,
    gpu: Gpu,
    config: HomGnnConfig,
    weights: ModelWeights,
  ): Promise<Model> {
    const where = "HomGnn.create";
    checkGpu(where, gpu);
    checkObject(where, "config", config, [...KEYS, "layers", "classes"]);
    checkSizes(where, { layers: 1, classes: 1, ...defined(config) }, [...KEYS, "layers", "classes"]);
    gpu.checkUsable(where);
    const { dim, order, orderExpand, ffwExpand, layers, classes } = config;
    const prefixes = layers === undefined ? [""] : Array.from({ length: layers }, (_, i) => `layers.${i}.`);
    const shapes: Record<string, number[]> = classes === undefined ? {} : { "linear.weight": [classes, dim], "linear.bias": [classes] };
    for (const prefix of prefixes) {
      const own = blockShapes(prefix, { dim, order, orderExpand, ffwExpand }, ["ffw.1", "ffw.3"]);
      // These checkpoints keep the mixer's parameters beside the feed-forward part's.
      for (const [key, shape] of Object.entries(own)) shapes[key.replace(`${prefix}hom.`, prefix)] = shape;
    }
    const params = modelParams(where, weights, shapes, {});
    const parts = new Parts();
    try {
      const blocks: HomBlock[] = [];
      for (const prefix of prefixes) {
        const own = Object.entries(params).flatMap(([key, value]) => {
          if (!key.startsWith(prefix) || key.startsWith("linear.")) return [];
          const name = key.slice(prefix.length);
          return [[name.startsWith("ffw.") ? name : `hom.${name}`, value] as const];
        });
        const block = { dim, order, orderExpand, ffwExpand, activation: "tanh" } as const;
        blocks.push(parts.keep(await HomBlock.create(gpu, block, Object.fromEntries(own))));
      }
      const { result: output, status } = gpu.guard(where, () =>
        classes === undefined ? undefined : parts.linear(gpu, params, "linear", { inner: dim, outer: classes }),
      );
      const failure = await status;
      if (failure) throw failure;
      await output?.prepare();
      return create(gpu, config, { prefixes, blocks, output, owned: parts });
    } catch (error) {
      parts.destroy();
      throw error;
    }
  }

  /** Uploads an adjacency once, for any number of calls of this shape. */
  createAdjacency(adjacency: Uint8Array | Float32Array, sizes: { readonly batch?: number; readonly nodes: number }): HomMask {
    const where = "HomGnn.createAdjacency";
    checkObject(where, "sizes", sizes, ["batch", "nodes"]);
    const { batch = 1, nodes } = sizes;
    checkSizes(where, { batch, nodes }, ["batch", "nodes"]);
    this.checkUsable(where);
    return adjacencyMask(where, this.gpu, adjacency, { batch, queryLength: nodes, contextLength: nodes });
  }

  /** Nodes `[B, N, D]` -> `[B, N, D]`, or `[B, N, classes]`. @throws TypeError, RangeError, GpuLostError */
  forward(x: Tensor, adjacency: Adjacency): Tensor {
    const where = "HomGnn.forward";
    const call = this.check(where, x, adjacency);
    const y = this.run(where, x, call);
    if (call.mask !== adjacency) call.mask.destroy();
    return y;
  }

  /** @internal */
  protected check(where: string, x: Tensor, adjacency: Adjacency): HomGnnCall {
    this.checkUsable(where);
    const { gpu } = this;
    const { dim, classes } = this.config;
    checkTensor(where, "x", x, gpu);
    const [batch = 0, nodes = 0] = x.shape;
    if (x.shape.length !== 3 || x.shape[2] !== dim) throw rangeError(where, "x", `have shape [B, N, ${dim}]`, x.shape);
    if (x.dtype !== "f32") throw typeError(where, "x", "be f32", raw(x.dtype));
    const shape = { batch, queryLength: nodes, contextLength: nodes };
    if (adjacency instanceof HomMask) adjacency.check(where, gpu, shape, adjacency.blockTokens, 0);
    const mask = adjacency instanceof HomMask ? adjacency : adjacencyMask(where, gpu, adjacency, shape);
    return { shape, mask, outShape: [batch, nodes, classes ?? dim] };
  }

  /** @internal */
  protected run(where: string, x: Tensor, { shape, mask, outShape }: HomGnnCall): Tensor {
    const { gpu } = this;
    const { blocks, output } = this.parts;
    const rows = shape.batch * shape.queryLength;
    const free: (() => void)[] = [];
    const { result, status } = gpu.guard(where, () => {
      const y = { buffer: Tensor.allocate(where, gpu, "hom.output", outShape), byteOffset: 0 };
      const between = scratchRows(gpu, "graph_between", rows, this.config.dim);
      gpu.submit("gnn", (pass) => {
        let from: { buffer: Tensor["buffer"]; byteOffset: number } = x;
        for (const [i, block] of blocks.entries()) {
          const last = i === blocks.length - 1 && !output;
          const to = last ? y : scratchRows(gpu, i % 2 === 0 ? "graph_even" : "graph_odd", rows, this.config.dim);
          free.push(...block.record(pass, { shape, resolved: mask.resolved, prepared: mask, query: from }, between, to, rows));
          from = to;
        }
        output?.record(pass, { x: from, y, rows });
      });
      return y.buffer;
    });
    for (const f of free) f();
    return Tensor.adopt(gpu, result, outShape, allOf([status, x.status]));
  }

  /** Frees the weights. Results already returned stay valid. */
  destroy(): void {
    if (this.#destroyed) return;
    this.#destroyed = true;
    this.parts.owned.destroy();
  }

  [Symbol.dispose](): void {
    this.destroy();
  }

  /** @internal */
  protected checkUsable(where: string): void {
    if (this.#destroyed) throw typeError(where, "model", "be alive", raw("a destroyed model"));
    this.gpu.checkUsable(where);
  }
}

/** A full mask without the epsilon of a masked mean. */
function adjacencyMask(where: string, gpu: Gpu, adjacency: Uint8Array | Float32Array, shape: MaskShape): HomMask {
  return new HomMask(gpu, shape, resolveMask(where, { full: adjacency }, shape, 1, 0), 1);
}

function defined(config: HomGnnConfig): Record<string, unknown> {
  return Object.fromEntries(Object.entries(config).filter(([, value]) => value !== undefined));
}
