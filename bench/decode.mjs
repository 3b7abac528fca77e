// Decoding: does a token cost the same at any position, what does it consist of, and how near is it to the speed of memory?
//   npm run bench:decode [-- --long 100000] [--rounds 9] [--json FILE]
import { readFile, writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { HomLayer, parseSafetensors, Tensor } from "homm-webgpu";
import { Hlm, hlmConfigOf } from "homm-webgpu/models";
import { requestNodeGpu } from "homm-webgpu/node";
import { layerParams, normals } from "./data.mjs";
import { instrument } from "./instrument.mjs";
import { median } from "./statistics.mjs";

const { values: options } = parseArgs({
  options: { long: { type: "string", default: "100000" }, rounds: { type: "string", default: "9" }, json: { type: "string" } },
});
const rounds = Number(options.rounds);
const positions = [10, 1_000, Number(options.long)];

const gpu = await requestNodeGpu();
const { counts } = instrument();
console.log(
  `adapter  ${gpu.info.description} (${gpu.info.software ? "software" : "GPU"}), Node ${process.version}, ${rounds} interleaved rounds, medians`,
);

/** Milliseconds of `work`, waited for. @param {() => void} work */
async function timed(work) {
  const start = performance.now();
  work();
  await gpu.device.queue.onSubmittedWorkDone();
  return performance.now() - start;
}

const copyPipeline = gpu.device.createComputePipeline({
  layout: "auto",
  compute: {
    module: gpu.device.createShaderModule({
      code: `@group(0) @binding(0) var<storage, read> a: array<vec4f>; @group(0) @binding(1) var<storage, read_write> b: array<vec4f>;
        @compute @workgroup_size(64) fn main(@builtin(global_invocation_id) id: vec3u, @builtin(num_workgroups) grid: vec3u) {
          let i = id.x + id.y * grid.x * 64u;
          if (i < arrayLength(&a)) { b[i] = a[i]; }
        }`,
    }),
  },
});

/** Seconds in which a plain WGSL loop copies this many bytes: the yardstick of a kernel that reads its weights once. @param {number} bytes */
async function copySeconds(bytes) {
  const size = Math.ceil(bytes / 16) * 16;
  const [from, to] = [0, 1].map(() => gpu.device.createBuffer({ size, usage: 0x80 }));
  if (!from || !to) throw new Error("no buffers");
  const entries = [from, to].map((buffer, binding) => ({ binding, resource: { buffer } }));
  const group = gpu.device.createBindGroup({ layout: copyPipeline.getBindGroupLayout(0), entries });
  const groups = Math.ceil(size / 16 / 64);
  const y = Math.ceil(groups / 65_535);
  const times = [];
  for (let round = 0; round < rounds + 1; round++) {
    const repeats = Math.max(1, Math.round(64e6 / size));
    const ms = await timed(() => {
      const encoder = gpu.device.createCommandEncoder();
      const pass = encoder.beginComputePass();
      pass.setPipeline(copyPipeline);
      pass.setBindGroup(0, group);
      for (let i = 0; i < repeats; i++) pass.dispatchWorkgroups(Math.ceil(groups / y), y);
      pass.end();
      gpu.device.queue.submit([encoder.finish()]);
    });
    if (round > 0) times.push(ms / 1000 / repeats);
  }
  from.destroy();
  to.destroy();
  return median(times);
}

/** @type {Record<string, unknown>[]} */
const report = [];

/**
 * Steps from each position in turn, round by round.
 * @param {string} name @param {number} weightBytes @param {{ position: number, step: () => void }[]} streams @param {number} steps
 */
async function measure(name, weightBytes, streams, steps) {
  /** @type {number[][]} */
  const times = streams.map(() => []);
  const before = { ...counts };
  for (let round = 0; round <= rounds; round++) {
    for (const [i, { step }] of streams.entries()) {
      const ms = await timed(() => {
        for (let s = 0; s < steps; s++) step();
      });
      if (round > 0) times[i]?.push(ms / steps);
    }
  }
  const tokens = (rounds + 1) * streams.length * steps;
  const perToken = { dispatches: (counts.dispatches - before.dispatches) / tokens, submits: (counts.submits - before.submits) / tokens };
  const copy = await copySeconds(weightBytes);
  const medians = times.map(median);
  const first = medians[0] ?? Number.NaN;
  console.log(
    `\n${name}: ${perToken.dispatches} dispatches and ${perToken.submits} submits a token, ${(weightBytes / 1e6).toFixed(2)} MB of weights`,
  );
  for (const [i, { position }] of streams.entries()) {
    const ms = medians[i] ?? Number.NaN;
    const spread = `${Math.min(...(times[i] ?? [])).toFixed(3)} to ${Math.max(...(times[i] ?? [])).toFixed(3)}`;
    const gbs = weightBytes / ms / 1e6;
    console.log(
      `  position ${String(position).padStart(7)}: ${ms.toFixed(3)} ms/token (${spread}), ${(ms / first).toFixed(3)} of the first; weights at ${gbs.toFixed(2)} GB/s, a copying kernel reads ${(weightBytes / copy / 1e9).toFixed(2)} GB/s`,
    );
    report.push({
      name,
      position,
      msPerToken: ms,
      ...perToken,
      weightBytes,
      weightBytesPerSecond: gbs * 1e9,
      copyBytesPerSecond: weightBytes / copy,
    });
  }
}

for (const dim of [256, 768]) {
  const config = { dim, order: 2, orderExpand: 2 };
  const layer = await HomLayer.create(gpu, config, layerParams(1, config));
  const token = Tensor.from(gpu, normals(2, dim), [1, 1, dim]);
  const out = Tensor.from(gpu, new Float32Array(dim), [1, 1, dim]);
  const chunk = Tensor.from(gpu, normals(3, 1_000 * dim), [1, 1_000, dim]);
  const streams = positions.map((position) => {
    const state = layer.createState();
    // The state at a position is a matter of its sums and counts: what was seen is the same chunk again and again.
    for (let left = position; left > 0; left -= 1_000) {
      layer.append(state, Tensor.wrap(gpu, chunk.buffer, [1, Math.min(left, 1_000), dim]));
    }
    return { position, state, step: () => void layer.step(state, token, { out }) };
  });
  await gpu.device.queue.onSubmittedWorkDone();
  await measure(`layer D=${dim} k=2 e=2`, layer.weightBytes, streams, 20);
  for (const { state } of streams) state.destroy();
  for (const part of [layer, token, out, chunk]) part.destroy();
}

const weights = parseSafetensors(await readFile(new URL("../demo/public/checkpoints/hlm_shakespeare.safetensors", import.meta.url)));
const model = await Hlm.create(gpu, hlmConfigOf(weights), weights);
const ids = (/** @type {number} */ n) => Int32Array.from({ length: n }, (_, i) => (i * 7) % model.config.vocabSize);
const beforeStates = counts.liveBytes;
let memory = 0;
const streams = [];
for (const position of positions) {
  const state = model.createState();
  for (let left = position; left > 0; left -= 5_000) {
    model.step(state, ids(Math.min(left, 5_000)), { logits: "last" }).destroy();
    await gpu.device.queue.onSubmittedWorkDone();
    if (position === positions.at(-1) && memory === 0) memory = counts.liveBytes;
  }
  streams.push({ position, state, step: () => model.step(state, ids(1)).destroy() });
}
const grown = counts.liveBytes - memory;
console.log(
  `\nmodel state: ${streams[0]?.state.bytes} bytes at any position; GPU memory from token 5,000 to token ${positions.at(-1)}: ${grown >= 0 ? "+" : ""}${grown} bytes (all states and scratch: ${counts.liveBytes - beforeStates})`,
);
await measure("model (4 layers of 128, ffw 2)", model.weightBytes, streams, 10);
for (const { state } of streams) state.destroy();
model.destroy();
if (options.json) await writeFile(options.json, `${JSON.stringify({ adapter: gpu.info, node: process.version, rounds, report }, null, 1)}\n`);
gpu.destroy();
