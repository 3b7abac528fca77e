import { blockUntilReady, defaultDevice, init, type Array as JaxArray, jit, nn, numpy as np, tree } from "@jax-js/jax";
import { attentionParams, layerParams, normals, paddingMask, SEEDS, transposed } from "../data.mjs";
import { type AttentionTask, type DecodeTask, type LayerSizes, type LayerTask, type Prepared, type Task, Unsupported } from "../types.ts";
import { drive } from "./harness.ts";

// The library counts references: a function consumes its arguments, `.ref` keeps one for later.

type Weights = { ho: JaxArray; hoBias: JaxArray; se: JaxArray; seBias: JaxArray; ag: JaxArray; agBias: JaxArray };

const DISTINCT = 8;

drive(async () => ({
  version: __JAX_VERSION__,
  async start() {
    const devices = await init("webgpu");
    if (!devices.includes("webgpu")) throw new Unsupported("jax-js found no WebGPU here");
    defaultDevice("webgpu");
  },
  async prepare(task: Task): Promise<Prepared> {
    if (task.kind === "layer") return layer(task);
    if (task.kind === "decode") return decode(task);
    if (task.kind === "attention") return attention(task);
    throw new Unsupported(`no ${task.kind} in jax-js`);
  },
}));

/** Calls whose outputs are dropped but the last. */
function repeated(run: () => JaxArray): Prepared {
  let outputs: JaxArray[] = [];
  let waiting: Promise<unknown>[] = [];
  return {
    call() {
      const y = run();
      outputs.push(y);
      // Compiles and submits what is pending.
      waiting.push(blockUntilReady(y));
    },
    async flush() {
      await Promise.all(waiting);
      for (const y of outputs.slice(0, -1)) y.dispose();
      outputs = outputs.slice(-1);
      waiting = [];
    },
    async read() {
      const [y] = outputs;
      if (!y) throw new Error("nothing has been computed");
      return Float32Array.from(await y.ref.data());
    },
  };
}

function weightsOf({ dim, order, orderExpand }: LayerSizes): Weights {
  const width = order * orderExpand * dim;
  const params = layerParams(SEEDS.params, { dim, order, orderExpand });
  // Stored [in, out], as products want them.
  const matrix = (values: Float32Array<ArrayBuffer>, rows: number, columns: number) =>
    np.array(transposed(values, rows, columns), { shape: [columns, rows] });
  return {
    ho: matrix(params["ho_proj.weight"], width, dim),
    hoBias: np.array(params["ho_proj.bias"]),
    se: matrix(params["se_proj.weight"], width, dim),
    seBias: np.array(params["se_proj.bias"]),
    ag: matrix(params["ag_proj.weight"], dim, width),
    agBias: np.array(params["ag_proj.bias"]),
  };
}

/** m_1 = z_1, m_i = z_i m_(i-1) of tokens [..., D]. */
function moments(x: JaxArray, weight: JaxArray, bias: JaxArray, order: number): JaxArray[] {
  const z = nn.gelu(np.matmul(x, weight).add(bias), { approximate: false });
  const chunks = np.split(z, order, -1);
  const products: JaxArray[] = [];
  for (const chunk of chunks) {
    const before = products.at(-1);
    products.push(before ? chunk.mul(before.ref) : chunk);
  }
  return products;
}

async function layer({ batch, tokens, dim, order, orderExpand, mask }: LayerTask): Promise<Prepared> {
  const weights = weightsOf({ dim, order, orderExpand });
  const x = np.array(normals(SEEDS.tokens, batch * tokens * dim), { shape: [batch, tokens, dim] });
  const select = (w: Omit<Weights, "ho" | "hoBias">, query: JaxArray, h: JaxArray) =>
    np.matmul(nn.sigmoid(np.matmul(query, w.se).add(w.seBias)).mul(h), w.ag).add(w.agBias);

  if (mask === "none") {
    const run = jit(({ ho, hoBias, ...rest }: Weights, x: JaxArray) => {
      const means = moments(x.ref, ho, hoBias, order).map((m) => np.mean(m, 1, { keepdims: true }));
      return select(rest, x, np.concatenate(means, -1));
    });
    return repeated(() => run(tree.ref(weights), x.ref));
  }
  if (mask === "causal") {
    const counts = np.array(
      Float32Array.from({ length: tokens }, (_, t) => 1 / (t + 1)),
      { shape: [1, tokens, 1] },
    );
    const run = jit(({ ho, hoBias, ...rest }: Weights, x: JaxArray, counts: JaxArray) => {
      const m = np.concatenate(moments(x.ref, ho, hoBias, order), -1);
      return select(rest, x, np.cumsum(m, 1).mul(counts));
    });
    return repeated(() => run(tree.ref(weights), x.ref, counts.ref));
  }
  const used =
    mask === "padding"
      ? paddingMask(SEEDS.mask, batch * tokens)
      : Uint8Array.from({ length: batch * tokens }, (_, i) => (i % tokens < tokens - 3 ? 1 : 0));
  const weight = np.array(Float32Array.from(used), { shape: [batch, tokens, 1] });
  const run = jit(({ ho, hoBias, ...rest }: Weights, x: JaxArray, weight: JaxArray) => {
    const sums = moments(x.ref, ho, hoBias, order).map((m) => np.sum(m.mul(weight.ref), 1, { keepdims: true }));
    const h = np.concatenate(sums, -1).div(np.sum(weight, 1, { keepdims: true }).add(1e-7));
    return select(rest, x, h);
  });
  return repeated(() => run(tree.ref(weights), x.ref, weight.ref));
}

async function decode({ dim, order, orderExpand }: DecodeTask): Promise<Prepared> {
  const weights = weightsOf({ dim, order, orderExpand });
  const width = order * orderExpand * dim;
  const data = normals(SEEDS.tokens, DISTINCT * dim);
  const tokens = Array.from({ length: DISTINCT }, (_, i) => np.array(data.slice(i * dim, (i + 1) * dim), { shape: [1, dim] }));
  const step = jit((w: Weights, sum: JaxArray, count: JaxArray, x: JaxArray) => {
    const after = sum.add(np.concatenate(moments(x.ref, w.ho, w.hoBias, order), -1));
    const seen = count.add(1);
    const gate = nn.sigmoid(np.matmul(x, w.se).add(w.seBias));
    const y = np.matmul(gate.mul(after.ref.div(seen.ref)), w.ag).add(w.agBias);
    return [y, after, seen] as [JaxArray, JaxArray, JaxArray];
  });
  const empty = () => ({ sum: np.zeros([1, width]), count: np.zeros([1, 1]), seen: 0 });
  let state = empty();
  const prepared = repeated(() => {
    const token = tokens[state.seen % DISTINCT];
    if (!token) throw new Error("no token");
    const [y, sum, count] = step(tree.ref(weights), state.sum, state.count, token.ref);
    state = { sum, count, seen: state.seen + 1 };
    return y;
  });
  return {
    ...prepared,
    restart() {
      state.sum.dispose();
      state.count.dispose();
      state = empty();
    },
  };
}

async function attention({ tokens, dim, heads, causal }: AttentionTask): Promise<Prepared> {
  const params = attentionParams(SEEDS.params, dim);
  const matrix = (values: Float32Array<ArrayBuffer>) => np.array(transposed(values, dim, dim), { shape: [dim, dim] });
  const weights = { q: matrix(params.q), k: matrix(params.k), v: matrix(params.v), o: matrix(params.o) };
  const x = np.array(normals(SEEDS.tokens, tokens * dim), { shape: [1, tokens, dim] });
  const run = jit((w: typeof weights, x: JaxArray) => {
    const split = (weight: JaxArray) => np.matmul(x.ref, weight).reshape([1, tokens, heads, dim / heads]);
    const [q, k, v] = [split(w.q), split(w.k), split(w.v)];
    x.dispose();
    return np.matmul(nn.dotProductAttention(q, k, v, { isCausal: causal }).reshape([1, tokens, dim]), w.o);
  });
  return repeated(() => run(tree.ref(weights), x.ref));
}
