// Runs in a folder where the packed package is installed: the minimal layer beside the whole one on one device. Bits are the same, for both take the same tile.
import * as whole from "homm-webgpu";
import * as minimal from "homm-webgpu/minimal";
import { requestNodeGpu } from "homm-webgpu/node";

const config = { dim: 24, order: 3, orderExpand: 2 };
const momentDim = config.dim * config.order * config.orderExpand;
const [batch, length] = [2, 70];

let seed = 1;
const values = (/** @type {number} */ count, scale = 1) =>
  Float32Array.from({ length: count }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed / 2 ** 31 - 1) * scale;
  });
const params = {
  "ho_proj.weight": values(momentDim * config.dim, 0.5),
  "ho_proj.bias": values(momentDim),
  "se_proj.weight": values(momentDim * config.dim, 0.5),
  "se_proj.bias": values(momentDim),
  "ag_proj.weight": values(config.dim * momentDim, 0.2),
  "ag_proj.bias": values(config.dim),
};
const tokens = values(batch * length * config.dim);
const token = values(batch * config.dim);

const node = await requestNodeGpu();
const { device } = node;

/** What one of the two says to everything that both can. @param {typeof whole | typeof minimal} entry */
async function outputs({ requestGpu, Tensor, HomLayer }) {
  const gpu = await requestGpu({ device, tuning: { tile: "8x4", decodeLanes: 1 } });
  const layer = await HomLayer.create(/** @type {any} */ (gpu), config, params);
  const x = Tensor.from(/** @type {any} */ (gpu), tokens, [batch, length, config.dim]);
  const next = Tensor.from(/** @type {any} */ (gpu), token, [batch, 1, config.dim]);
  const state = layer.createState({ batch });
  const unmasked = layer.forward(x);
  const causal = layer.forward(x, { mask: "causal" });
  layer.append(state, x);
  const appended = layer.query(state, next);
  const stepped = layer.step(state, x);
  const decoded = layer.step(state, next);
  const cloned = layer.query(state.clone(), next);
  const read = Object.entries({ unmasked, causal, appended, stepped, decoded, cloned });
  return { gpu, layer, x, state, read: await Promise.all(read.map(async ([name, tensor]) => [name, await tensor.read()])) };
}

const [all, few] = [await outputs(whole), await outputs(minimal)];
const same = few.read.map(([name, found], i) => {
  const expected = /** @type {Float32Array} */ (all.read[i]?.[1]);
  return [name, /** @type {Float32Array} */ (found).every((value, j) => Number.isFinite(value) && value === expected[j])];
});

const { gpu, layer, x, state } = few;
const [small, lengths] = [/** @type {any} */ (gpu), new Uint32Array([3, 70])];
const refused = [];
for (const call of [
  () => layer.forward(x, { mask: { lengths } }),
  () => layer.forward(x, { mask: "causal", queryMask: new Uint8Array(batch * length) }),
  () => layer.createMask({ lengths }, { batch, queryLength: length }),
  () => layer.createState({ window: 4 }),
  () => layer.append(state, x, { lengths }),
  () => layer.query(state, x, { cuSeqlens: lengths }),
  () => state.merge(state.clone()),
  () => state.scale(0.5),
  () => state.save(),
  () => minimal.HomState.load(small, new Uint8Array(8)),
  () => minimal.Tensor.from(small, tokens, [tokens.length], { dtype: "f16" }),
  () => minimal.HomLayer.create(small, { ...config, weightDtype: "i8" }, params),
]) {
  try {
    await call();
    refused.push("nothing");
  } catch (error) {
    refused.push(`${/** @type {Error} */ (error).name} ${/** @type {Error} */ (error).message}`);
  }
}
console.log(JSON.stringify({ ...Object.fromEntries(same), refused }));
for (const owner of [all.gpu, few.gpu, node]) owner.destroy();
