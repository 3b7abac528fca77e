import { normals, SEEDS, transposed } from "../data.mjs";
import copySource from "../kernels/copy.wgsl?raw";
import matvecColumns from "../kernels/matvec_columns.wgsl?raw";
import matvecRows from "../kernels/matvec_rows.wgsl?raw";
import multiplyAddSource from "../kernels/multiply_add.wgsl?raw";
import direct8x4 from "../kernels/product_direct_8x4.wgsl?raw";
import direct16x8 from "../kernels/product_direct_16x8.wgsl?raw";
import quads16x8 from "../kernels/product_quads_16x8.wgsl?raw";
import staged64x64 from "../kernels/product_staged_64x64.wgsl?raw";
import staged128x128 from "../kernels/product_staged_128x128.wgsl?raw";
import type { CopyTask, MatvecTask, MultiplyAddTask, Prepared, ProductsTask, Task } from "../types.ts";
import { Unsupported } from "../types.ts";
import { drive } from "./harness.ts";

type Grid = readonly [number, number];

/** A kernel with its memory and grid: everything that a dispatch needs. */
interface Job {
  readonly pipeline: GPUComputePipeline;
  readonly group: GPUBindGroup;
  readonly grid: Grid;
}

interface Product {
  readonly name: string;
  readonly source: string;
  /** Multiples that rows, inner and outer must be of. */
  readonly unit: readonly [rows: number, inner: number, outer: number];
  /** Rows x columns of an invocation, or of a workgroup that shares. */
  readonly tile: readonly [rows: number, columns: number];
  readonly staged?: true;
  readonly feature?: "subgroups";
}

const PRODUCTS: readonly Product[] = [
  { name: "direct 8x4", source: direct8x4, unit: [8, 4, 4], tile: [8, 4] },
  { name: "direct 16x8", source: direct16x8, unit: [16, 4, 8], tile: [16, 8] },
  { name: "quads 16x8", source: quads16x8, unit: [16, 4, 32], tile: [16, 8], feature: "subgroups" },
  { name: "staged 64x64", source: staged64x64, unit: [64, 16, 64], tile: [64, 64], staged: true },
  { name: "staged 128x128", source: staged128x128, unit: [128, 16, 128], tile: [128, 128], staged: true },
];

const MATVECS = [
  ...[1, 4, 16].map((split) => ({ name: `columns, ${split} lanes each`, source: matvecColumns, split, transposed: true })),
  ...[1, 4, 16, 64].map((split) => ({ name: `rows, ${split} lanes each`, source: matvecRows, split, transposed: false })),
];

/** A variant this many times slower than the best at first is not tried again. */
const HOPELESS = 1.5;
const TURNS = 6;

drive(async () => {
  let device: GPUDevice;
  return {
    version: "plain WGSL",
    async start() {
      const adapter = await navigator.gpu.requestAdapter({ powerPreference: "high-performance" });
      if (!adapter) throw new Error("WebGPU found no adapter");
      const { maxBufferSize, maxStorageBufferBindingSize } = adapter.limits;
      device = await adapter.requestDevice({
        requiredFeatures: (["subgroups"] as const).filter((feature) => adapter.features.has(feature)),
        requiredLimits: { maxBufferSize, maxStorageBufferBindingSize },
      });
    },
    async prepare(task: Task): Promise<Prepared> {
      if (task.kind === "products") return products(task);
      if (task.kind === "matvec") return matvecs(task);
      if (task.kind === "multiply_add") return multiplyAdd(task);
      if (task.kind === "copy") return copy(task);
      throw new Unsupported(`plain WGSL has no ${task.kind}`);
    },
  };

  function buffer(bytes: number, data?: Float32Array<ArrayBuffer>): GPUBuffer {
    const result = device.createBuffer({ size: bytes, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_DST | GPUBufferUsage.COPY_SRC });
    if (data) device.queue.writeBuffer(result, 0, data);
    return result;
  }

  function uniform(...words: number[]): GPUBuffer {
    const result = device.createBuffer({ size: 16, usage: GPUBufferUsage.UNIFORM | GPUBufferUsage.COPY_DST });
    device.queue.writeBuffer(
      result,
      0,
      Uint32Array.from({ length: 4 }, (_, i) => words[i] ?? 0),
    );
    return result;
  }

  async function compile(source: string, constants: Readonly<Record<string, number>> = {}): Promise<GPUComputePipeline> {
    const lines = Object.entries(constants).map(([name, value]) => `const ${name}: u32 = ${value}u;`);
    const module = device.createShaderModule({ code: [source, ...lines].join("\n") });
    return device.createComputePipelineAsync({ layout: "auto", compute: { module } });
  }

  function job(pipeline: GPUComputePipeline, buffers: readonly GPUBuffer[], grid: Grid): Job {
    const entries = buffers.map((resource, binding) => ({ binding, resource: { buffer: resource } }));
    return { pipeline, group: device.createBindGroup({ layout: pipeline.getBindGroupLayout(0), entries }), grid };
  }

  /** `count` workgroups, in two dimensions where one is not enough. */
  function spread(count: number): Grid {
    const rows = Math.ceil(count / 65_535);
    return [Math.ceil(count / rows), rows];
  }

  function submit(jobs: readonly Job[]): void {
    const encoder = device.createCommandEncoder();
    const pass = encoder.beginComputePass();
    for (const { pipeline, group, grid } of jobs) {
      pass.setPipeline(pipeline);
      pass.setBindGroup(0, group);
      pass.dispatchWorkgroups(...grid);
    }
    pass.end();
    device.queue.submit([encoder.finish()]);
  }

  async function timed(jobs: readonly Job[]): Promise<number> {
    const start = performance.now();
    submit(jobs);
    await device.queue.onSubmittedWorkDone();
    return performance.now() - start;
  }

  /** The fastest of several ways to do the same. Those that are near take turns, and each counts with its best turn. */
  async function fastest<T extends { readonly name: string }>(
    candidates: readonly T[],
    make: (candidate: T) => Promise<Job>,
  ): Promise<T & { job: Job }> {
    const tried: (T & { job: Job; ms: number })[] = [];
    for (const candidate of candidates) {
      const made = await make(candidate);
      const first = await timed([made]);
      tried.push({ ...candidate, job: made, ms: Math.min(first, await timed([made])) });
    }
    const near = () => HOPELESS * Math.min(...tried.map(({ ms }) => ms));
    for (let turn = 0; turn < TURNS; turn++) {
      for (const item of tried) if (item.ms <= near()) item.ms = Math.min(item.ms, await timed([item.job]));
    }
    const [best] = tried.sort((a, b) => a.ms - b.ms);
    if (!best) throw new Unsupported("no kernel fits these sizes");
    return best;
  }

  async function read(source: GPUBuffer): Promise<Float32Array> {
    const staging = device.createBuffer({ size: source.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
    const encoder = device.createCommandEncoder();
    encoder.copyBufferToBuffer(source, 0, staging, 0, source.size);
    device.queue.submit([encoder.finish()]);
    await staging.mapAsync(GPUMapMode.READ);
    const result = new Float32Array(staging.getMappedRange().slice(0));
    staging.destroy();
    return result;
  }

  function productJob({ tile, staged }: Product, pipeline: GPUComputePipeline, shape: readonly [number, number, number], buffers: GPUBuffer[]): Job {
    const [rows, inner, outer] = shape;
    const tiles: Grid = [outer / tile[1], rows / tile[0]];
    const grid = staged ? tiles : spread(Math.ceil((tiles[0] * tiles[1]) / 64));
    return job(pipeline, [uniform(rows, inner / 4, outer / 4), ...buffers], grid);
  }

  /** Kernels that can do this product on this adapter; `names` narrows them down where it leaves any. */
  function productsFor(shape: readonly [number, number, number], names?: readonly string[]): Product[] {
    const fitting = PRODUCTS.filter(
      ({ unit, feature }) => shape.every((size, i) => size % (unit[i] ?? 1) === 0) && (!feature || device.features.has(feature)),
    );
    const named = fitting.filter(({ name }) => names?.includes(name));
    return named.length > 0 ? named : fitting;
  }

  async function products({ shapes, variants }: ProductsTask): Promise<Prepared> {
    const compiled = new Map<string, Promise<GPUComputePipeline>>();
    const pipelineOf = ({ name, source }: Product) => {
      const pipeline = compiled.get(name) ?? compile(source);
      compiled.set(name, pipeline);
      return pipeline;
    };
    const chosen: { name: string; job: Job }[] = [];
    let last: GPUBuffer | undefined;
    for (const shape of shapes) {
      const [rows, inner, outer] = shape;
      const x = buffer(rows * inner * 4, normals(SEEDS.tokens, rows * inner));
      const w = buffer(inner * outer * 4, normals(SEEDS.params, inner * outer, 1 / Math.sqrt(inner)));
      const y = buffer(rows * outer * 4);
      const best = await fastest(productsFor(shape, variants), async (product) => productJob(product, await pipelineOf(product), shape, [x, w, y]));
      chosen.push(best);
      last = y;
    }
    const jobs = chosen.map((best) => best.job);
    return {
      call: () => submit(jobs),
      read: () => read(last ?? buffer(16)),
      details: {
        variant: [...new Set(chosen.map(({ name }) => name))].join(", "),
        work: shapes.reduce((sum, [rows, inner, outer]) => sum + 2 * rows * inner * outer, 0),
      },
    };
  }

  async function matvecs({ shapes }: MatvecTask): Promise<Prepared> {
    const chosen: { name: string; job: Job }[] = [];
    let last: GPUBuffer | undefined;
    for (const [inner, outer] of shapes) {
      const x = buffer(inner * 4, normals(SEEDS.tokens, inner));
      const w = normals(SEEDS.params, inner * outer, 1 / Math.sqrt(inner));
      const [byColumns, byRows] = [w, transposed(w, inner, outer)].map((values) => buffer(values.byteLength, values));
      if (!byColumns || !byRows) throw new Error("no buffers");
      const y = buffer(outer * 4);
      const best = await fastest(MATVECS, async (candidate) => {
        const pipeline = await compile(candidate.source, { SPLIT: candidate.split });
        const outputs = candidate.transposed ? outer / 4 : outer;
        const groups = Math.ceil(outputs / (64 / candidate.split));
        return job(pipeline, [uniform(1, inner / 4, outer / 4), x, candidate.transposed ? byColumns : byRows, y], [groups, 1]);
      });
      chosen.push(best);
      last = y;
    }
    return {
      call: () => submit(chosen.map((best) => best.job)),
      read: () => read(last ?? buffer(16)),
      details: {
        variant: chosen.map(({ name }) => name).join("; "),
        work: shapes.reduce((sum, [inner, outer]) => sum + 4 * inner * outer, 0),
      },
    };
  }

  async function multiplyAdd(_task: MultiplyAddTask): Promise<Prepared> {
    const invocations = 1 << 16;
    const y = buffer(invocations * 16);
    const make = async (steps: number) => job(await compile(multiplyAddSource, { STEPS: steps }), [y], [invocations / 64, 1]);
    // As long as it takes to drown the cost of a submission, on a fast GPU too.
    let steps = 64;
    let made = await make(steps);
    await timed([made]);
    while (steps < 1 << 16 && (await timed([made])) < 30) {
      steps *= 4;
      made = await make(steps);
      await timed([made]);
    }
    return { call: () => submit([made]), read: () => read(y), details: { variant: "8 chains of vec4f", work: invocations * steps * 64 } };
  }

  async function copy({ bytes }: CopyTask): Promise<Prepared> {
    const x = buffer(bytes, normals(SEEDS.tokens, bytes / 4));
    const y = buffer(bytes);
    const widths = [1, 4].map((vectors) => ({ name: `${vectors} vec4f a lane`, vectors }));
    const best = await fastest(widths, async ({ vectors }) => {
      const pipeline = await compile(copySource, { VECTORS: vectors });
      return job(pipeline, [x, y], spread(Math.ceil(bytes / 16 / 64 / vectors)));
    });
    return { call: () => submit([best.job]), read: () => read(y), details: { variant: best.name, work: 2 * bytes } };
  }
});
