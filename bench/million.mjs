// A million tokens through one layer's state, in several chunkings: error against float64, and memory.
//   npm run bench:million [-- --tokens 1000000] [--json FILE]
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { HomLayer, Tensor } from "homm-webgpu";
import { requestNodeGpu } from "homm-webgpu/node";
import { homReference } from "homm-webgpu/reference";
import { layerParams, normals } from "./data.mjs";
import { instrument } from "./instrument.mjs";
import { relativeError } from "./statistics.mjs";

const { values: options } = parseArgs({ options: { tokens: { type: "string", default: "1000000" }, json: { type: "string" } } });
const total = Number(options.tokens);
/** Different tokens; the stream repeats them, so that float64 needs to compute only these. */
const distinct = 1_000;

const gpu = await requestNodeGpu();
const { counts } = instrument();
console.log(`adapter ${gpu.info.description}, ${total.toLocaleString("en-US")} tokens`);
/** @type {Record<string, unknown>[]} */
const report = [];

/**
 * @param {{ dim: number, order: number, orderExpand: number }} config
 * @param {string} name @param {(call: number) => number} chunkOf length of the call-th chunk
 * @param {number} shift of the tokens' mean: 0 is a random walk of roundings, 1 an almost constant drift
 */
async function stream(config, name, chunkOf, shift) {
  const { dim } = config;
  const params = layerParams(1, config);
  const layer = await HomLayer.create(gpu, config, params);
  // Twice, so that a chunk may run over the end.
  const once = normals(2, distinct * dim).map((v) => v + shift);
  const twice = new Float32Array(2 * once.length);
  twice.set(once);
  twice.set(once, once.length);
  const tokens = Tensor.from(gpu, twice, [1, 2 * distinct, dim]);
  const query = normals(3, 4 * dim);
  const state = layer.createState();
  const start = performance.now();
  let memory = 0;
  let calls = 0;
  for (let seen = 0; seen < total; calls++) {
    const n = Math.min(chunkOf(calls), total - seen, distinct);
    layer.append(state, Tensor.wrap(gpu, tokens.buffer, [1, n, dim], { byteOffset: (seen % distinct) * dim * 4 }));
    seen += n;
    if (calls % 512 === 511) await gpu.device.queue.onSubmittedWorkDone();
    if (memory === 0 && seen >= total / 2) memory = counts.liveBytes;
  }
  await gpu.device.queue.onSubmittedWorkDone();
  const seconds = (performance.now() - start) / 1000;
  const grown = counts.liveBytes - memory;
  const xq = Tensor.from(gpu, query, [1, 4, dim]);
  const y = layer.query(state, xq);
  const actual = await y.read();
  // total is a multiple of the distinct tokens: every one was seen equally often, so their mean is the stream's.
  const expected = homReference({ ...config, activation: "gelu" }, params, {
    query,
    context: once,
    batch: 1,
    queryLength: 4,
    contextLength: distinct,
  });
  const error = relativeError(actual, expected);
  const label = `D=${dim} k=${config.order} e=${config.orderExpand}, ${name}, mean ${shift}`;
  console.log(
    `${label.padEnd(52)} error ${error.toExponential(2)}  ${calls.toLocaleString("en-US")} calls, ${seconds.toFixed(0)} s; state ${state.bytes} bytes, GPU memory ${grown >= 0 ? "+" : ""}${grown} bytes in the second half`,
  );
  report.push({ ...config, chunks: name, shift, error, calls, seconds, stateBytes: state.bytes, grownBytes: grown, count: state.count[0] });
  for (const part of [state, tokens, xq, y, layer]) part.destroy();
  // The last 32 programs are kept, 512 bytes of uniforms each.
  if (!(error <= 5e-6) || Math.abs(grown) > 32 * 512) process.exitCode = 1;
}

if (total % distinct !== 0) throw new Error(`--tokens must be a multiple of ${distinct}, got ${total}`);
const mixed = [1, 7, 64, 1_000, 333, 2];
const small = { dim: 8, order: 2, orderExpand: 1 };
for (const shift of [0, 1]) {
  for (const n of [1, 7, 64, 1_000]) await stream(small, `chunks of ${n}`, () => n, shift);
  await stream(small, "mixed chunks", (call) => mixed[call % mixed.length] ?? 1, shift);
}
await stream({ dim: 256, order: 2, orderExpand: 4 }, "chunks of 1000", () => 1_000, 0);
if (options.json) await writeFile(options.json, `${JSON.stringify({ adapter: gpu.info, node: process.version, total, report }, null, 1)}\n`);
gpu.destroy();
