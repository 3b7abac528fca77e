import { describe, expect, it } from "vitest";
import { HomLayer, requestGpu, Tensor } from "../../src/index.ts";
import { expandMoments } from "../../src/reference/moments.ts";
import { uniforms } from "../reference/inputs.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";

const gpu = await requestGpu({ device: await getDevice(), tuning: { tile: "8x4" } });

/** test/reference/theory.test.ts says why; here the moments are the layer's own. */
const STANDARD_ERRORS = 4.5;

describe("the layer with identity and random signs", () => {
  it("estimates ⟨x, y⟩ᵏ without bias, k = 1 to 4", async () => {
    const [dim, order, orderExpand, seeds] = [8, 4, 64, 6];
    const width = orderExpand * dim;
    const shape = { dim, order, orderExpand, activation: "identity" } as const;
    const [x, y] = [normals32(3, dim), normals32(4, dim)].map((v) => v.map((value) => 0.4 * value)) as [Float32Array<ArrayBuffer>, Float32Array];
    const sums = (f: (a: number, b: number) => number) => x.reduce((sum, value, i) => sum + f(value, y[i]!), 0);
    const [xy, xx, yy, squares] = [sums((a, b) => a * b), sums((a) => a * a), sums((_, b) => b * b), sums((a, b) => (a * b) ** 2)];
    const means = new Float64Array(order);
    for (let seed = 0; seed < seeds; seed++) {
      const next = uniforms(100 + seed);
      const weight = Float32Array.from({ length: order * width * dim }, () => (next() < 0.5 ? -1 : 1));
      const zeros = new Float32Array(order * width * dim);
      const my = expandMoments(y, { "ho_proj.weight": weight, "se_proj.weight": zeros, "ag_proj.weight": zeros }, shape);
      // A gate of zeros passes half. Output k - 1 is ⟨m_k(x), m_k(y)⟩ / width.
      const output = new Float32Array(dim * order * width);
      for (let i = 0; i < order * width; i++) output[Math.floor(i / width) * order * width + i] = (2 * my[i]!) / width;
      using layer = await HomLayer.create(
        gpu,
        { ...shape, bias: false },
        { "ho_proj.weight": weight, "se_proj.weight": zeros, "ag_proj.weight": output },
      );
      using query = Tensor.from(gpu, x, [1, 1, dim]);
      using result = layer.forward(query);
      const estimates = await result.read();
      for (let i = 0; i < order; i++) means[i] = means[i]! + estimates[i]! / seeds;
    }
    for (let k = 1; k <= order; k++) {
      const variance = (xx * yy + 2 * xy ** 2 - 2 * squares) ** k - xy ** (2 * k);
      const z = (means[k - 1]! - xy ** k) / Math.sqrt(variance / (seeds * width));
      expect(Math.abs(z), `order ${k}: ${z} standard errors`).toBeLessThan(STANDARD_ERRORS);
    }
  });
});
