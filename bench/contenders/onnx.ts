import * as ort from "onnxruntime-web/webgpu";
import { attentionParams, layerParams, normals, paddingMask, SEEDS, transposed } from "../data.mjs";
import { type AttentionTask, type DecodeTask, type LayerSizes, type LayerTask, type Prepared, type Task, Unsupported } from "../types.ts";
import { drive } from "./harness.ts";
import { type Graph, type Node, onnxModel } from "./onnx_model.ts";

type Initializers = Record<string, Graph["initializers"][string]>;

const DISTINCT = 8;

drive(async () => ({
  version: ort.env.versions.web ?? "unknown",
  async start() {
    ort.env.logLevel = "error";
    // The first session loads the WebAssembly module and opens the device.
    await session({ nodes: [node("Identity", ["x"], ["y"])], inputs: { x: [1] }, outputs: { y: [1] }, initializers: {} });
  },
  async prepare(task: Task): Promise<Prepared> {
    if (task.kind === "layer") return layer(task);
    if (task.kind === "decode") return decode(task);
    if (task.kind === "attention") return attention(task);
    throw new Unsupported(`no ${task.kind} in onnxruntime-web`);
  },
}));

async function session(graph: Graph): Promise<ort.InferenceSession> {
  return ort.InferenceSession.create(onnxModel(graph), { executionProviders: ["webgpu"], preferredOutputLocation: "gpu-buffer" });
}

/** A tensor in GPU memory of ours, to be passed as an input or an output. */
async function tensor(dims: readonly number[], data?: Float32Array<ArrayBuffer>): Promise<ort.Tensor> {
  const device = await ort.env.webgpu.device;
  const size = Math.ceil((dims.reduce((a, b) => a * b, 1) * 4) / 16) * 16;
  const buffer = device.createBuffer({ size, usage: GPUBufferUsage.STORAGE | GPUBufferUsage.COPY_SRC | GPUBufferUsage.COPY_DST });
  if (data) device.queue.writeBuffer(buffer, 0, data);
  return ort.Tensor.fromGpuBuffer(buffer, { dataType: "float32", dims: [...dims], download: () => read(buffer, dims) });
}

async function read(buffer: GPUBuffer, dims: readonly number[]): Promise<Float32Array<ArrayBuffer>> {
  const device = await ort.env.webgpu.device;
  const staging = device.createBuffer({ size: buffer.size, usage: GPUBufferUsage.MAP_READ | GPUBufferUsage.COPY_DST });
  const encoder = device.createCommandEncoder();
  encoder.copyBufferToBuffer(buffer, 0, staging, 0, buffer.size);
  device.queue.submit([encoder.finish()]);
  await staging.mapAsync(GPUMapMode.READ);
  const result = new Float32Array(staging.getMappedRange().slice(0, dims.reduce((a, b) => a * b, 1) * 4));
  staging.destroy();
  return result;
}

async function dataOf(value: ort.Tensor): Promise<Float32Array> {
  return (await read(value.gpuBuffer, value.dims)) as Float32Array;
}

function layerInitializers({ dim, order, orderExpand }: LayerSizes): Initializers {
  const width = order * orderExpand * dim;
  const params = layerParams(SEEDS.params, { dim, order, orderExpand });
  const matrix = (values: Float32Array<ArrayBuffer>, rows: number, columns: number) => ({
    shape: [columns, rows],
    data: transposed(values, rows, columns),
  });
  return {
    ho: matrix(params["ho_proj.weight"], width, dim),
    ho_bias: { shape: [width], data: params["ho_proj.bias"] },
    se: matrix(params["se_proj.weight"], width, dim),
    se_bias: { shape: [width], data: params["se_proj.bias"] },
    ag: matrix(params["ag_proj.weight"], dim, width),
    ag_bias: { shape: [dim], data: params["ag_proj.bias"] },
  };
}

const node = (op: string, inputs: string[], outputs: string[], attributes?: Node["attributes"], domain?: string): Node => ({
  op,
  inputs,
  outputs,
  ...(attributes && { attributes }),
  ...(domain !== undefined && { domain }),
});

/** Nodes from `x` to the moments `m_1` … `m_k`. */
function momentNodes(order: number): Node[] {
  const chunks = Array.from({ length: order }, (_, i) => (i === 0 ? "m_1" : `z_${i + 1}`));
  return [
    node("MatMul", ["x", "ho"], ["x_ho"]),
    node("Add", ["x_ho", "ho_bias"], ["projected"]),
    node("Gelu", ["projected"], ["z"]),
    ...(order === 1 ? [node("Identity", ["z"], ["m_1"])] : [node("Split", ["z"], chunks, { axis: -1, num_outputs: order })]),
    ...chunks.slice(1).map((chunk, i) => node("Mul", [chunk, `m_${i + 1}`], [`m_${i + 2}`])),
  ];
}

/** Nodes from `x` and `h` to `y`. */
function selectionNodes(): Node[] {
  return [
    node("MatMul", ["x", "se"], ["x_se"]),
    node("Add", ["x_se", "se_bias"], ["gate_in"]),
    node("Sigmoid", ["gate_in"], ["gate"]),
    node("Mul", ["gate", "h"], ["gated"]),
    node("MatMul", ["gated", "ag"], ["mixed"]),
    node("Add", ["mixed", "ag_bias"], ["y"]),
  ];
}

async function layer({ batch, tokens, dim, order, orderExpand, mask }: LayerTask): Promise<Prepared> {
  const shape = [batch, tokens, dim];
  const initializers: Initializers = { ...layerInitializers({ dim, order, orderExpand }), axes: { shape: [1], data: BigInt64Array.of(1n) } };
  const names = Array.from({ length: order }, (_, i) => `m_${i + 1}`);
  const nodes = momentNodes(order);
  if (mask === "none") {
    nodes.push(...names.map((name) => node("ReduceMean", [name, "axes"], [`h_${name}`], { keepdims: 1 })));
    nodes.push(
      node(
        "Concat",
        names.map((name) => `h_${name}`),
        ["h"],
        { axis: -1 },
      ),
    );
  } else if (mask === "causal") {
    initializers["axis"] = { shape: [], data: BigInt64Array.of(1n) };
    initializers["shares"] = { shape: [1, tokens, 1], data: Float32Array.from({ length: tokens }, (_, t) => 1 / (t + 1)) };
    nodes.push(node("Concat", names, ["m"], { axis: -1 }), node("CumSum", ["m", "axis"], ["sums"]), node("Mul", ["sums", "shares"], ["h"]));
  } else {
    const used =
      mask === "padding"
        ? paddingMask(SEEDS.mask, batch * tokens)
        : Uint8Array.from({ length: batch * tokens }, (_, i) => (i % tokens < tokens - 3 ? 1 : 0));
    initializers["weight"] = { shape: [batch, tokens, 1], data: Float32Array.from(used) };
    initializers["tiny"] = { shape: [1], data: Float32Array.of(1e-7) };
    for (const name of names) {
      nodes.push(node("Mul", [name, "weight"], [`w_${name}`]), node("ReduceSum", [`w_${name}`, "axes"], [`s_${name}`], { keepdims: 1 }));
    }
    nodes.push(
      node(
        "Concat",
        names.map((name) => `s_${name}`),
        ["sums"],
        { axis: -1 },
      ),
      node("ReduceSum", ["weight", "axes"], ["seen"], { keepdims: 1 }),
      node("Add", ["seen", "tiny"], ["divisor"]),
      node("Div", ["sums", "divisor"], ["h"]),
    );
  }
  nodes.push(...selectionNodes());
  const run = await session({ nodes, inputs: { x: shape }, outputs: { y: shape }, initializers });
  return withOutput(run, { x: await tensor(shape, normals(SEEDS.tokens, batch * tokens * dim)) }, await tensor(shape));
}

function withOutput(run: ort.InferenceSession, inputs: Record<string, ort.Tensor>, y: ort.Tensor): Prepared {
  return {
    async call() {
      await run.run(inputs, { y });
    },
    read: () => dataOf(y),
  };
}

async function decode({ dim, order, orderExpand }: DecodeTask): Promise<Prepared> {
  const width = order * orderExpand * dim;
  const names = Array.from({ length: order }, (_, i) => `m_${i + 1}`);
  const run = await session({
    nodes: [
      ...momentNodes(order),
      node("Concat", names, ["m"], { axis: -1 }),
      node("Add", ["sum", "m"], ["sum_after"]),
      node("Add", ["count", "one"], ["count_after"]),
      node("Div", ["sum_after", "count_after"], ["h"]),
      ...selectionNodes(),
    ],
    inputs: { x: [1, dim], sum: [1, width], count: [1, 1] },
    outputs: { y: [1, dim], sum_after: [1, width], count_after: [1, 1] },
    initializers: { ...layerInitializers({ dim, order, orderExpand }), one: { shape: [1], data: Float32Array.of(1) } },
  });
  const data = normals(SEEDS.tokens, DISTINCT * dim);
  const tokens = await Promise.all(Array.from({ length: DISTINCT }, (_, i) => tensor([1, dim], data.slice(i * dim, (i + 1) * dim))));
  const y = await tensor([1, dim]);
  const device = await ort.env.webgpu.device;
  // Two states that take turns: one is read, the other written.
  const states = await Promise.all([0, 1].map(async () => ({ sum: await tensor([1, width]), count: await tensor([1, 1]) })));
  let seen = 0;
  return {
    async call() {
      const [x, before, after] = [tokens[seen % DISTINCT], states[seen % 2], states[(seen + 1) % 2]];
      if (!x || !before || !after) throw new Error("no token");
      seen++;
      await run.run({ x, ...before }, { y, sum_after: after.sum, count_after: after.count });
    },
    read: () => dataOf(y),
    restart() {
      seen = 0;
      for (const { sum, count } of states) {
        device.queue.writeBuffer(sum.gpuBuffer, 0, new Float32Array(width));
        device.queue.writeBuffer(count.gpuBuffer, 0, new Float32Array(1));
      }
    },
  };
}

async function attention({ tokens, dim, heads, causal, form = "operator" }: AttentionTask): Promise<Prepared> {
  const params = attentionParams(SEEDS.params, dim);
  const initializers: Initializers = Object.fromEntries(
    Object.entries(params).map(([name, data]) => [`w_${name}`, { shape: [dim, dim], data: transposed(data, dim, dim) }]),
  );
  const shape = [1, tokens, dim];
  const core =
    form === "operator"
      ? [node("MultiHeadAttention", ["q", "k", "v"], ["mixed"], { num_heads: heads, ...(causal && { unidirectional: 1 }) }, "com.microsoft")]
      : attentionNodes({ tokens, dim, heads, causal }, initializers);
  const run = await session({
    nodes: [...["q", "k", "v"].map((name) => node("MatMul", ["x", `w_${name}`], [name])), ...core, node("MatMul", ["mixed", "w_o"], ["y"])],
    inputs: { x: shape },
    outputs: { y: shape },
    initializers,
  });
  return withOutput(run, { x: await tensor(shape, normals(SEEDS.tokens, tokens * dim)) }, await tensor(shape));
}

/** Nodes from `q`, `k`, `v` [1, N, D] to `mixed` [1, N, D], by way of all scores. */
function attentionNodes({ tokens, dim, heads, causal }: Omit<AttentionTask, "kind" | "form">, initializers: Initializers): Node[] {
  const sizes = (...values: number[]) => ({ shape: [values.length], data: BigInt64Array.from(values, BigInt) });
  initializers["heads"] = sizes(1, tokens, heads, dim / heads);
  initializers["joined"] = sizes(1, tokens, dim);
  initializers["scale"] = { shape: [1], data: Float32Array.of(1 / Math.sqrt(dim / heads)) };
  if (causal) {
    const future = Float32Array.from({ length: tokens * tokens }, (_, i) => (i % tokens > Math.floor(i / tokens) ? -1e30 : 0));
    initializers["future"] = { shape: [1, 1, tokens, tokens], data: future };
  }
  return [
    ...["q", "k", "v"].flatMap((name) => [
      node("Reshape", [name, "heads"], [`${name}_heads`]),
      node("Transpose", [`${name}_heads`], [`${name}_first`], { perm: name === "k" ? [0, 2, 3, 1] : [0, 2, 1, 3] }),
    ]),
    node("MatMul", ["q_first", "k_first"], ["products"]),
    node("Mul", ["products", "scale"], ["scores"]),
    ...(causal ? [node("Add", ["scores", "future"], ["seen"])] : []),
    node("Softmax", [causal ? "seen" : "scores"], ["shares"], { axis: -1 }),
    node("MatMul", ["shares", "v_first"], ["values"]),
    node("Transpose", ["values"], ["rows"], { perm: [0, 2, 1, 3] }),
    node("Reshape", ["rows", "joined"], ["mixed"]),
  ];
}
