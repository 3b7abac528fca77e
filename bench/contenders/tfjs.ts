import type { WebGPUBackend } from "@tensorflow/tfjs-backend-webgpu";
import * as tf from "@tensorflow/tfjs-core";
import "@tensorflow/tfjs-backend-webgpu";
import { attentionParams, layerParams, normals, paddingMask, SEEDS, transposed } from "../data.mjs";
import { type AttentionTask, type DecodeTask, type LayerSizes, type LayerTask, type Prepared, type Task, Unsupported } from "../types.ts";
import { drive } from "./harness.ts";

const DISTINCT = 8;

drive(async () => ({
  version: tf.version_core,
  async start() {
    if (!tf.findBackendFactory("webgpu"))
      throw new Unsupported("tfjs registers no WebGPU backend here: it looks for navigator.gpu in a window or a worker");
    if (!(await tf.setBackend("webgpu"))) throw new Unsupported("tfjs could not start its WebGPU backend");
    await tf.ready();
  },
  async prepare(task: Task): Promise<Prepared> {
    if (task.kind === "layer") return layer(task);
    if (task.kind === "decode") return decode(task);
    if (task.kind === "attention") return attention(task);
    throw new Unsupported(`no ${task.kind} in tfjs`);
  },
}));

/** Calls whose outputs are dropped but the last. */
function repeated(run: () => tf.Tensor): Prepared {
  let y: tf.Tensor | undefined;
  return {
    call() {
      y?.dispose();
      y = tf.tidy(run);
    },
    flush() {
      // It submits after every 15 dispatches; the rest is put on the queue as its own readback does it.
      const backend = tf.backend() as WebGPUBackend;
      backend.ensureCommandEncoderReady();
      backend.endComputePassEncoder();
      backend.submitQueue();
    },
    async read() {
      if (!y) throw new Error("nothing has been computed");
      return Float32Array.from(await y.data());
    },
  };
}

function weightsOf({ dim, order, orderExpand }: LayerSizes) {
  const width = order * orderExpand * dim;
  const params = layerParams(SEEDS.params, { dim, order, orderExpand });
  const matrix = (values: Float32Array, rows: number, columns: number) => tf.tensor2d(transposed(values, rows, columns), [columns, rows]);
  return {
    ho: matrix(params["ho_proj.weight"], width, dim),
    hoBias: tf.tensor1d(params["ho_proj.bias"]),
    se: matrix(params["se_proj.weight"], width, dim),
    seBias: tf.tensor1d(params["se_proj.bias"]),
    ag: matrix(params["ag_proj.weight"], dim, width),
    agBias: tf.tensor1d(params["ag_proj.bias"]),
  };
}

type Weights = ReturnType<typeof weightsOf>;

/** m_1 = z_1, m_i = z_i m_(i-1) of tokens [tokens, D]. */
function moments(x: tf.Tensor2D, weights: Weights, order: number): tf.Tensor[] {
  const z = tf.fused.matMul({ a: x, b: weights.ho, bias: weights.hoBias });
  // The exact form: tfjs has no gelu.
  const gelu = tf.mul(tf.mul(z, 0.5), tf.add(tf.erf(tf.mul(z, Math.SQRT1_2)), 1));
  const products: tf.Tensor[] = [];
  for (const chunk of tf.split(gelu, order, -1)) {
    const before = products.at(-1);
    products.push(before ? tf.mul(chunk, before) : chunk);
  }
  return products;
}

async function layer({ batch, tokens, dim, order, orderExpand, mask }: LayerTask): Promise<Prepared> {
  const width = order * orderExpand * dim;
  const weights = weightsOf({ dim, order, orderExpand });
  const x = tf.tensor2d(normals(SEEDS.tokens, batch * tokens * dim), [batch * tokens, dim]);
  const byRow = (m: tf.Tensor) => tf.reshape(m, [batch, tokens, width / order]);
  let h: () => tf.Tensor;
  if (mask === "none") {
    h = () =>
      tf.concat(
        moments(x, weights, order).map((m) => tf.mean(byRow(m), 1, true)),
        -1,
      );
  } else if (mask === "causal") {
    const counts = tf.tensor3d(
      Float32Array.from({ length: tokens }, (_, t) => 1 / (t + 1)),
      [1, tokens, 1],
    );
    h = () => tf.mul(tf.cumsum(tf.reshape(tf.concat(moments(x, weights, order), -1), [batch, tokens, width]), 1), counts);
  } else {
    const used =
      mask === "padding"
        ? paddingMask(SEEDS.mask, batch * tokens)
        : Uint8Array.from({ length: batch * tokens }, (_, i) => (i % tokens < tokens - 3 ? 1 : 0));
    const weight = tf.tensor3d(Float32Array.from(used), [batch, tokens, 1]);
    h = () => {
      const sums = moments(x, weights, order).map((m) => tf.sum(tf.mul(byRow(m), weight), 1, true));
      return tf.div(tf.concat(sums, -1), tf.add(tf.sum(weight, 1, true), 1e-7));
    };
  }
  return repeated(() => {
    const gate = tf.fused.matMul({ a: x, b: weights.se, bias: weights.seBias, activation: "sigmoid" });
    const read = tf.mul(tf.reshape(gate, [batch, tokens, width]), h());
    return tf.fused.matMul({ a: tf.reshape(read, [batch * tokens, width]) as tf.Tensor2D, b: weights.ag, bias: weights.agBias });
  });
}

async function decode({ dim, order, orderExpand }: DecodeTask): Promise<Prepared> {
  const width = order * orderExpand * dim;
  const weights = weightsOf({ dim, order, orderExpand });
  const data = normals(SEEDS.tokens, DISTINCT * dim);
  const tokens = Array.from({ length: DISTINCT }, (_, i) => tf.tensor2d(data.slice(i * dim, (i + 1) * dim), [1, dim]));
  const empty = () => ({ sum: tf.zeros([1, width]), seen: 0 });
  let state = empty();
  const prepared = repeated(() => {
    const x = tokens[state.seen % DISTINCT];
    if (!x) throw new Error("no token");
    const sum = tf.keep(tf.add(state.sum, tf.concat(moments(x, weights, order), -1)));
    state.sum.dispose();
    state = { sum, seen: state.seen + 1 };
    const gate = tf.fused.matMul({ a: x, b: weights.se, bias: weights.seBias, activation: "sigmoid" });
    // A count on the CPU is a uniform there.
    const read = tf.mul(gate, tf.mul(sum, 1 / state.seen)) as tf.Tensor2D;
    return tf.fused.matMul({ a: read, b: weights.ag, bias: weights.agBias });
  });
  return {
    ...prepared,
    restart() {
      state.sum.dispose();
      state = empty();
    },
  };
}

async function attention({ tokens, dim, heads, causal }: AttentionTask): Promise<Prepared> {
  const params = attentionParams(SEEDS.params, dim);
  const matrix = (values: Float32Array) => tf.tensor2d(transposed(values, dim, dim), [dim, dim]);
  const weights = { q: matrix(params.q), k: matrix(params.k), v: matrix(params.v), o: matrix(params.o) };
  const x = tf.tensor2d(normals(SEEDS.tokens, tokens * dim), [tokens, dim]);
  // -1e30 above the diagonal, made once.
  const future = causal ? tf.tidy(() => tf.mul(tf.sub(1, tf.linalg.bandPart(tf.ones([tokens, tokens]), -1, 0)), -1e30)) : undefined;
  const split = (weight: tf.Tensor2D) => tf.transpose(tf.reshape(tf.matMul(x, weight), [tokens, heads, dim / heads]), [1, 0, 2]);
  return repeated(() => {
    const scores = tf.mul(tf.matMul(split(weights.q), split(weights.k), false, true), 1 / Math.sqrt(dim / heads));
    const shares = tf.softmax(future ? tf.add(scores, future) : scores);
    const mixed = tf.reshape(tf.transpose(tf.matMul(shares, split(weights.v)), [1, 0, 2]), [tokens, dim]);
    return tf.matMul(mixed as tf.Tensor2D, weights.o);
  });
}
