// Reads a stream of any length into a state of constant size, saves it, and asks it in what could be another process.
import { readFile, rm, writeFile } from "node:fs/promises";
import { HomLayer, HomState, Tensor } from "homm-webgpu";
import { requestNodeGpu } from "homm-webgpu/node";

const [dim, order, orderExpand] = [64, 2, 2];
const M = order * orderExpand * dim;
const random = (/** @type {number} */ n) => Float32Array.from({ length: n }, () => Math.random() - 0.5);
const params = { "ho_proj.weight": random(M * dim), "se_proj.weight": random(M * dim), "ag_proj.weight": random(dim * M) };

const gpu = await requestNodeGpu();
console.log(gpu.info.description);
const hom = await HomLayer.create(gpu, { dim, order, orderExpand, bias: false }, params);

const state = hom.createState();
for (let chunk = 0; chunk < 20; chunk++) {
  const tokens = Tensor.from(gpu, random(500 * dim), [1, 500, dim]);
  hom.append(state, tokens);
  tokens.destroy();
}
await writeFile("state.bin", await state.save());

const loaded = HomState.load(gpu, await readFile("state.bin"), { layer: hom });
const question = Tensor.from(gpu, random(dim), [1, 1, dim]);
const [before, after] = await Promise.all([hom.query(state, question).read(), hom.query(loaded, question).read()]);
console.log(`${loaded.count[0]} tokens in ${(await readFile("state.bin")).byteLength} bytes`);
console.log(before.every((value, i) => value === after[i]) ? "the saved state answers the same" : "the saved state answers otherwise");
await rm("state.bin");
gpu.destroy();
