// What the choices of src/runtime/tuning.ts and the size of a slab are worth on this adapter: the same layers with each of them, in interleaved rounds.
//   npm run bench:tunings [-- --shapes A,C,E] [--rounds 7] [--mask causal] [--decode 256,768] [--json FILE]
import { writeFile } from "node:fs/promises";
import { parseArgs } from "node:util";
import { HomLayer, Tensor } from "homm-webgpu";
import { requestNodeGpu } from "homm-webgpu/node";
import { SHAPES } from "./cases.mjs";
import { layerParams, normals, SEEDS } from "./data.mjs";
import { ratio, relativeError } from "./statistics.mjs";
import { align, short } from "./table.mjs";

const { values: options } = parseArgs({
  options: {
    shapes: { type: "string", default: Object.keys(SHAPES).join() },
    rounds: { type: "string", default: "7" },
    mask: { type: "string", default: "none" },
    decode: { type: "string", default: "256,768" },
    json: { type: "string" },
  },
});
const rounds = Number(options.rounds);
const MIB = 1 << 20;
/** The layers of the targets, and two that are too short to keep an adapter busy by themselves. @type {Record<string, (typeof SHAPES)["A"]>} */
const LAYERS = {
  ...SHAPES,
  S: { batch: 1, tokens: 128, dim: 128, order: 2, orderExpand: 2 },
  T: { batch: 1, tokens: 256, dim: 128, order: 2, orderExpand: 2 },
};
/** A round of one variant runs the layer for about this long. */
const ROUND_MS = 150;

const probe = await requestNodeGpu();
const subgroups = probe.device.features.has("subgroups");
console.log(
  `adapter  ${probe.info.description} (${probe.info.software ? "software" : "GPU"}), Node ${process.version}, ${rounds} interleaved rounds`,
);
console.log(`tuning   ${JSON.stringify(probe.tuning)}`);
probe.destroy();

/** The first is what the others are compared with. @type {{ name: string, tuning?: Partial<import("homm-webgpu").Tuning>, scratchBudget?: number }[]} */
const VARIANTS = [
  { name: "as tuned" },
  .../** @type {const} */ (["8x4", "16x8", "16x8_quads"])
    .filter((tile) => subgroups || tile !== "16x8_quads")
    .map((tile) => ({ name: tile, tuning: { tile } })),
  ...[16, 64, 128].map((tokens) => ({ name: `blocks of ${tokens}`, tuning: { blockTokens: tokens, prefixBlockTokens: tokens } })),
  // A slab takes half of the budget at most.
  ...[4, 2, 1].map((mib) => ({ name: `slab ${mib} MiB`, scratchBudget: 2 * mib * MIB })),
  ...[0, 128].map((dim) => ({ name: dim === 0 ? "select in two" : "select in one", tuning: { fusedSelectMaxDim: dim } })),
];

/** @typedef {{ name: string, gpu: import("homm-webgpu").Gpu, run: (times: number) => Promise<number>, out: Tensor, times: number[] }} Run */

/** Times runs in turn, in whole rounds, after their outputs have been compared. @param {string} id @param {Run[]} runs */
async function measure(id, runs) {
  const [first] = runs;
  if (!first) throw new Error("nothing to run");
  const expected = await first.out.read();
  for (const { name, out } of runs) {
    const error = relativeError(await out.read(), expected);
    if (!(error < 1e-5)) throw new Error(`${name} differs by ${error} at ${id}`);
  }
  const repeats = Math.max(1, Math.round(ROUND_MS / (await first.run(1))));
  for (let round = 0; round < rounds; round++) for (const { run, times } of runs) times.push((await run(repeats)) / repeats);
  return runs.map(({ name, times, gpu }) => {
    const { median, q1, q3 } = ratio(times, first.times);
    report.push({ shape: id, mask: options.mask, name, times, ratio: { median, q1, q3 } });
    gpu.destroy();
    return `${short(median)} (${short(q1)}-${short(q3)})`;
  });
}

/** @type {Record<string, unknown>[]} */
const report = [];
/** @type {string[][]} */
const table = [["time / as tuned", ...options.shapes.split(",")], ...VARIANTS.slice(1).map(({ name }) => [name])];
for (const id of options.shapes.split(",")) {
  const shape = LAYERS[id];
  if (!shape) throw new Error(`no shape ${id}: choose from ${Object.keys(LAYERS)}`);
  const { batch, tokens, dim, order, orderExpand } = shape;
  const params = layerParams(SEEDS.params, shape);
  const values = normals(SEEDS.tokens, batch * tokens * dim);
  /** @type {Run[]} */
  const runs = [];
  for (const { name, tuning, scratchBudget } of VARIANTS) {
    const gpu = await requestNodeGpu(tuning ? { tuning } : {});
    const layer = await HomLayer.create(gpu, { dim, order, orderExpand, ...(scratchBudget && { scratchBudget }) }, params);
    const query = Tensor.from(gpu, values, [batch, tokens, dim]);
    const out = Tensor.from(gpu, new Float32Array(batch * tokens * dim), [batch, tokens, dim]);
    const mask = options.mask === "causal" ? /** @type {const} */ ({ mask: "causal" }) : {};
    const run = async (/** @type {number} */ times) => {
      const start = performance.now();
      for (let i = 0; i < times; i++) layer.forward(query, { ...mask, out });
      await gpu.device.queue.onSubmittedWorkDone();
      return performance.now() - start;
    };
    await run(1);
    runs.push({ name, gpu, run, out, times: [] });
  }
  for (const [i, cell] of (await measure(id, runs)).entries()) if (i > 0) table[i]?.push(cell);
}
console.log(`\n${align(table)}`);

const widths = options.decode.split(",").filter(Boolean).map(Number);
const LANES = /** @type {const} */ ([1, 4, 16, 64]);
/** @type {string[][]} */
const decoding = [["a step / with 1 lane", ...widths.map((dim) => `D = ${dim}`)], ...LANES.slice(1).map((lanes) => [`${lanes} lanes`])];
for (const dim of widths) {
  const shape = { dim, order: 2, orderExpand: 2 };
  const params = layerParams(SEEDS.params, shape);
  /** @type {Run[]} */
  const runs = [];
  for (const decodeLanes of LANES) {
    const gpu = await requestNodeGpu({ tuning: { decodeLanes } });
    const layer = await HomLayer.create(gpu, shape, params);
    const state = layer.createState();
    const token = Tensor.from(gpu, normals(SEEDS.tokens, dim), [1, 1, dim]);
    const out = Tensor.from(gpu, new Float32Array(dim), [1, 1, dim]);
    const run = async (/** @type {number} */ times) => {
      const start = performance.now();
      for (let i = 0; i < times; i++) layer.step(state, token, { out });
      await gpu.device.queue.onSubmittedWorkDone();
      return performance.now() - start;
    };
    await run(1);
    runs.push({ name: `${decodeLanes} lanes`, gpu, run, out, times: [] });
  }
  for (const [i, cell] of (await measure(`decode D=${dim}`, runs)).entries()) if (i > 0) decoding[i]?.push(cell);
}
if (widths.length > 0) console.log(`\n${align(decoding)}`);
if (options.json) await writeFile(options.json, `${JSON.stringify({ node: process.version, rounds, report }, null, 1)}\n`);
