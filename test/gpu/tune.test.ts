import { describe, expect, it } from "vitest";
import { HomLayer, requestGpu, Tensor, tune } from "../../src/index.ts";
import { homReference } from "../../src/reference/index.ts";
import { normals, randomParams } from "../reference/inputs.ts";
import { expectClose } from "../support/compare.ts";
import { createDevice, getDevice } from "../support/gpu.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });

describe("tune", () => {
  it("finds a tuning that survives JSON and computes the right thing", async () => {
    const found = await tune(gpu, { dim: 20, tokens: 64, milliseconds: 20 });
    const tuning = JSON.parse(JSON.stringify(found));
    const tuned = await requestGpu({ device: gpu.device, tuning });
    expect(tuned.tuning).toEqual(found);
    expect({ ...found, tile: gpu.tuning.tile, fusedSelectMaxDim: gpu.tuning.fusedSelectMaxDim, decodeLanes: gpu.tuning.decodeLanes }).toEqual(
      gpu.tuning,
    );
    const shape = { dim: 20, order: 2, orderExpand: 2 };
    const params = Object.fromEntries(Object.entries(randomParams(1, shape)).map(([key, values]) => [key, Float32Array.from(values)]));
    using layer = await HomLayer.create(tuned, shape, params);
    const x = Float32Array.from(normals(2, 70 * 20));
    using input = Tensor.from(tuned, x, [1, 70, 20]);
    using y = layer.forward(input);
    const expected = homReference(shape, params as never, { query: x, batch: 1, queryLength: 70 });
    expectClose(await y.read(), expected, { relL2: LAYER_F32, what: "y", adapter: gpu.info.description });
  });

  it("leaves no buffer behind", async () => {
    const device = await createDevice();
    let live = 0;
    const createBuffer = device.createBuffer.bind(device);
    device.createBuffer = (descriptor) => {
      const buffer = createBuffer(descriptor);
      const destroy = buffer.destroy.bind(buffer);
      live++;
      buffer.destroy = () => {
        live--;
        buffer.destroy = destroy;
        return destroy();
      };
      return buffer;
    };
    const own = await requestGpu({ device });
    const before = live;
    await tune(own, { dim: 4, tokens: 8, milliseconds: 5 });
    expect(live).toBe(before);
    device.destroy();
  });

  it("takes only what it knows", async () => {
    await expect(tune(gpu, { tokens: 0 })).rejects.toThrow(/tune: tokens must be an integer from 1/);
    await expect(tune({} as never)).rejects.toThrow(TypeError);
    for (const tuning of [
      { tile: "4x4" },
      { blockTokens: 48 },
      { blockTokens: 4 },
      { prefixBlockTokens: 4096 },
      { fusedSelectMaxDim: -1 },
      { decodeLanes: 8 },
      { tiles: 1 },
    ]) {
      await expect(requestGpu({ device: gpu.device, tuning: tuning as never })).rejects.toThrow(/requestGpu: (the unknown key|tuning)/);
    }
  });
});
