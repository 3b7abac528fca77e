import { expect, it } from "vitest";
import { requestGpu } from "../../src/index.ts";
import { packLinear } from "../../src/layers/params.ts";
import { planLinear } from "../../src/ops/linear.ts";
import { linear } from "../../src/reference/linear.ts";
import { expectClose } from "../support/compare.ts";
import { getDevice } from "../support/gpu.ts";
import { normals32 } from "../support/hom.ts";
import { runSteps, slotOf } from "../support/steps.ts";
import { LAYER_F32 } from "../support/tolerances.ts";

const gpu = await requestGpu({ device: await getDevice() });

it.each([
  { rows: 1, inner: 5, outer: 3 },
  { rows: 20, inner: 12, outer: 8 },
  { rows: 65, inner: 8, outer: 7 },
])("adds to what y holds: $rows rows, $inner to $outer", async ({ rows, inner, outer }) => {
  const [x, weight, bias, before] = [normals32(1, rows * inner), normals32(2, outer * inner), normals32(3, outer), normals32(4, rows * outer)];
  const w = packLinear([{ weight, bias, outer: { count: 1, width: outer } }], { count: 1, width: inner });
  const view = (buffer: string, length: number) => ({ buffer, byteOffset: 0, length, stride: length, first: 0, count: rows });
  const step = planLinear({
    x: view("x", inner),
    w: slotOf("w", w.length),
    weightDtype: "f32",
    y: view("y", outer),
    accumulate: true,
    tile: "8x4",
    maxWorkgroups: 65_535,
  });
  expect(step.bytesRead).toBe((rows * inner + w.length + rows * outer) * 4);
  const { y } = await runSteps(gpu, [step], { x, w, y: before, empty: 4 });
  const expected = linear(x, weight, bias, { inDim: inner, outDim: outer, residual: before });
  expectClose(y, expected, { relL2: LAYER_F32, what: "y", adapter: gpu.info.description });
});
