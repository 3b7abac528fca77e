// Runs in a folder where the packed package is installed: one layer on the GPU against its float64 twin. It has to end by itself.
import { HomLayer, Tensor } from "homm-webgpu";
import { requestNodeGpu } from "homm-webgpu/node";
import { homReference } from "homm-webgpu/reference";

const shape = { dim: 12, order: 3, orderExpand: 2 };
const momentDim = shape.dim * shape.order * shape.orderExpand;
const [batch, length] = [2, 33];

let seed = 1;
const values = (/** @type {number} */ count, scale = 1) =>
  Float32Array.from({ length: count }, () => {
    seed = (Math.imul(seed, 1664525) + 1013904223) >>> 0;
    return (seed / 2 ** 31 - 1) * scale;
  });
const params = {
  "ho_proj.weight": values(momentDim * shape.dim, 0.5),
  "ho_proj.bias": values(momentDim),
  "se_proj.weight": values(momentDim * shape.dim, 0.5),
  "se_proj.bias": values(momentDim),
  "ag_proj.weight": values(shape.dim * momentDim, 0.2),
  "ag_proj.bias": values(shape.dim),
};
const query = values(batch * length * shape.dim);
const expected = homReference(shape, params, { query, batch, queryLength: length });

const gpu = await requestNodeGpu();
const layer = await HomLayer.create(gpu, shape, params);
const input = Tensor.from(gpu, query, [batch, length, shape.dim]);
const output = layer.forward(input);
const result = await output.read();
let [difference, norm] = [0, 0];
expected.forEach((value, i) => {
  difference += ((result[i] ?? Number.NaN) - value) ** 2;
  norm += value ** 2;
});
console.log(JSON.stringify({ shape: output.shape, relativeL2: Math.sqrt(difference / norm), adapter: gpu.info.description }));
for (const owner of [output, input, layer, gpu]) owner.destroy();
