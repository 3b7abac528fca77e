import type { AttentionCost, LinearAttentionCost, PomCost } from "homm-webgpu/baselines";

/** What a contender is asked to compute; plain data, so that it passes into a page or another process. */
export type Task = LayerTask | DecodeTask | AttentionTask | RivalTask | ProductsTask | MatvecTask | MultiplyAddTask | CopyTask;

export interface LayerSizes {
  readonly dim: number;
  readonly order: number;
  readonly orderExpand: number;
}

/** One call of the layer on itself, or ("moments") of the part of it that depends on the context alone. */
export interface LayerTask extends LayerSizes {
  readonly kind: "layer" | "moments";
  readonly batch: number;
  readonly tokens: number;
  readonly mask: "none" | "causal" | "padding" | "lengths";
}

/** One token, then the next, on a state of sums and a count. */
export interface DecodeTask extends LayerSizes {
  readonly kind: "decode";
}

/** Softmax self-attention with its four projections, batch 1. */
export interface AttentionTask {
  readonly kind: "attention";
  readonly tokens: number;
  readonly dim: number;
  readonly heads: number;
  readonly causal: boolean;
  /** Where a library has an operator for all of it: that one (default), or the operations that it is made of. */
  readonly form?: "operator" | "operations";
}

/** A layer of homm-webgpu/baselines or homm-webgpu/pom on itself, batch 1, without biases. */
export interface RivalTask {
  readonly kind: "rival";
  readonly tokens: number;
  readonly causal: boolean;
  readonly layer: AttentionCost | LinearAttentionCost | PomCost;
}

/** Plain matrix products [rows, inner] x [inner, outer], one after the other. */
export interface ProductsTask {
  readonly kind: "products";
  readonly shapes: readonly (readonly [rows: number, inner: number, outer: number])[];
  /** Of which the fastest is taken; default all that the adapter has. */
  readonly variants?: readonly string[];
}

/** Plain matrix-vector products [inner] x [inner, outer], one after the other. */
export interface MatvecTask {
  readonly kind: "matvec";
  readonly shapes: readonly (readonly [inner: number, outer: number])[];
}

export interface MultiplyAddTask {
  readonly kind: "multiply_add";
}

export interface CopyTask {
  readonly kind: "copy";
  readonly bytes: number;
}

/** What a task's setting-up found, besides being ready. */
export interface Details {
  /** Of several kernels, the one that was fastest here. */
  readonly variant?: string;
  /** FLOPs or bytes of one call, where only the contender knows them. */
  readonly work?: number;
  /** What `HomLayer.plan` says of the call. */
  readonly plan?: {
    readonly dispatches: readonly { readonly kernel: string; readonly workgroups: readonly number[] }[];
    readonly flops: number;
    readonly bytesRead: number;
    readonly bytesWritten: number;
    readonly scratchBytes: number;
  };
  readonly weightBytes?: number;
}

/** A task that is ready to run. */
export interface Prepared {
  /** Enqueues one call. Nothing is read back; after `flush` its work is on the queue. */
  call(): void | Promise<void>;
  /** Puts on the queue what a library has kept to itself. */
  flush?(): void | Promise<void>;
  /** The output of the last call, row-major. */
  read(): Promise<Float32Array>;
  /** Starts the stream of a decoding task anew. */
  restart?(): void | Promise<void>;
  readonly details?: Details;
}

/** One way of computing the tasks. */
export interface Contender {
  readonly version: string;
  /** Loads the library and opens its device. */
  start(): Promise<void>;
  /** Uploads weights and inputs, and compiles what can be compiled beforehand. Throws `Unsupported` for a task that it cannot do. */
  prepare(task: Task): Promise<Prepared>;
}

/** Says why a contender does not take part. */
export class Unsupported extends Error {}

export interface Opened {
  readonly version: string;
  /** From the end of `start` to the first result on the GPU, compilation included. */
  readonly firstResultMs: number;
  /** Loading the library and opening a device. */
  readonly startMs: number;
  /** Largest sum of the sizes of all GPU buffers alive at once, from the beginning to after the second call. */
  readonly peakBytes: number;
  readonly details: Details | null;
}

export interface Counts {
  readonly dispatches: number;
  readonly submits: number;
  readonly liveBytes: number;
  readonly peakBytes: number;
}

/** How the runner drives a contender in a page or a process; see contenders/harness.ts. */
export interface Driver {
  machine(): Promise<AdapterReport>;
  open(task: Task): Promise<Opened>;
  /** Milliseconds of `calls` calls, from the first call to the end of their GPU work. */
  run(calls: number): Promise<number>;
  counts(): Promise<Counts>;
  /** Restarts a stream and decodes this many tokens. */
  restart(calls: number): Promise<void>;
  /** Rows of the last output, how many of all its numbers are not finite, and what the devices complained about so far. */
  read(rows: readonly number[], width: number): Promise<{ values: number[]; length: number; notFinite: number; complaints: string[] }>;
  /** Milliseconds of each dispatch of one call by the GPU's clock; empty where there is no such clock. */
  kernels(rounds: number): Promise<{ kernel: string; ms: number }[]>;
}

export interface AdapterReport {
  readonly vendor: string;
  readonly architecture: string;
  readonly device: string;
  readonly description: string;
  readonly software: boolean;
  readonly features: string[];
  readonly limits: Record<string, number>;
  readonly subgroups: readonly [number, number];
}
