import { expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { LinearLayer } from "../../src/layers/linear.ts";
import { getDevice } from "../support/gpu.ts";

it("refuses weights that no binding of the device can hold, and takes them in fewer bytes", async () => {
  const gpu = await requestGpu({ device: await getDevice() });
  const small = Object.create(gpu, { limits: { value: { ...gpu.limits, maxStorageBufferBindingSize: 1024 } } }) as typeof gpu;
  const weight = new Float32Array(32 * 16);
  const config = { label: "output_proj", inner: 16, outer: 32 };
  expect(() => new LinearLayer(small, config, weight, undefined)).toThrow(RangeError);
  expect(() => new LinearLayer(small, config, weight, undefined)).toThrow(
    /the weights of output_proj must fit in a binding of 1024 bytes.* got 2176 bytes/,
  );
  const layer = new LinearLayer(small, { ...config, weightDtype: "i8" }, weight, undefined);
  expect(layer.weightBytes).toBeLessThan(1024);
  layer.destroy();
});
